"""Places on the command line: URLs are refused by name, and found settings do not write outside the working folder."""

import click
import pytest
from small import BUNDLE
from test_cli import run

from scanner.cli import COMMANDS
from scanner.cli.places import Input, Place
from scanner.dataset.readers.find import SCHEMES

PLACES = [
    (command.name, parameter)
    for command in COMMANDS
    for parameter in command.params
    if isinstance(parameter.type, click.Path)
]
WRITTEN = {
    ("scan", "store"), ("calibrate", "store"), ("calibrate", "out"), ("report", "out"), ("report", "write_baseline"),
    ("explain", "out"), ("images", "out"), ("verify", "out"), ("evaluate", "out"), ("compact", "store"),
    ("export", "out"), ("demo", "out"), ("recheck", "out"), ("recheck", "store"), ("threshold", "out"),
    ("accept", "baseline"), ("report", "metrics"), ("report", "junit"), ("report", "sarif"),
    ("evidence", "out"), ("init", "out"), ("init", "store"),
}  # fmt: skip
LOCAL = {  # what torch or pip read, and what is gone on in
    ("demo", "out"), ("evaluate", "out"), ("init", "out"),
    *(("export", name) for name in ("source", "out", "unet", "vae", "layout", "tokenizer")),
}  # fmt: skip
URLS = ["s3://b/x", "gs://b/x", "hf://b/x", "file:///tmp/x", "https://h/x", "abfss://c@a/x", "S3://b/x", " s3://b/x"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    (tmp_path / "here/captions.txt").write_text("a red barn\ntwo boats\n")
    return tmp_path / "here"


def test_every_path_option_knows_urls_and_whether_it_writes():
    assert all(isinstance(parameter.type, Place) for _, parameter in PLACES)
    assert {(command, parameter.name) for command, parameter in PLACES if parameter.type.writes} == WRITTEN
    assert {(command, parameter.name) for command, parameter in PLACES if not parameter.type.urls} == LOCAL


@pytest.mark.parametrize(
    ("command", "parameter"), PLACES, ids=[f"{command}-{parameter.name}" for command, parameter in PLACES]
)
def test_urls_are_refused_by_name_before_any_work(folder, command, parameter):
    argument = isinstance(parameter, click.Argument)
    for place in [*URLS, "s3:/b/x", "gs:/b"]:
        if parameter.type.urls and place.startswith(("s3://", "gs://", "az://")):
            continue
        if isinstance(parameter.type, Input) and place.startswith(SCHEMES):
            continue  # captions are read from there
        before = ["a/b"] if (command, parameter.name) == ("export", "out") else []
        out, err, code = run(command, *before, *([place] if argument else [parameter.opts[0], place]))
        assert (out, code) == ("", 2)
        if parameter.type.urls:
            assert f"{place}: needed a local path or a URL that begins with one of s3://, gs://, az://" in err
        else:
            assert f"{place}: a URL, and a local path is needed here: name a local path" in err
        assert "restore" not in err
    assert [path.name for path in folder.iterdir()] == ["captions.txt"]


def test_an_empty_path_is_none(folder):
    for place in ("", "  "):
        _, err, code = run("report", "--out", place)
        assert (code, f"{place!r} is no path" in err) == (2, True)


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["scan", "captions.txt", "--model", "bundl"], "bundl: no such folder; needed a bundle (made by"),
        (["scan", "captions.txt", "--screen-model", "bundl"], "bundl: no such folder; needed a bundle"),
        (["explain", "--model", "captions.txt"], "captions.txt: a file; needed a bundle"),
        (["verify", "--model", "."], ".: neither engine.json nor model_index.json in that folder; needed a bundle"),
        (["export", "./checkpoint", "out"], "checkpoint: no such folder; needed a diffusers checkpoint, or a hub id"),
        (["export", "a/b/c", "out"], "a/b/c: no such folder; needed a diffusers checkpoint"),
        (["export", "captions.txt", "out"], "captions.txt: a file; needed a diffusers checkpoint"),
        (["export", ".", "out"], ".: no model_index.json in that folder; needed a diffusers checkpoint"),
        (["export", BUNDLE, "out"], f"{BUNDLE}: a bundle already, which --dtype int8 alone takes; needed a diffusers"),
        (["export", BUNDLE, "captions.txt"], "captions.txt exists: remove it or name another folder"),
        (["export", "bundl", "out"], "bundl: no such folder; needed a diffusers checkpoint, or a hub id like owner/"),
    ],
)
def test_a_mistyped_model_is_usage(folder, command, said):
    out, err, code = run(*command)
    assert (out, code, said in err) == ("", 2, True), err


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("bundl", "bundle"),
        ("modles/sd15", "models/sd15"),
        ("models/sd-15", "models/sd15"),
        ("./modles/sd1.5", "models/sd15"),
    ],
)
def test_a_folder_that_is_nearly_called_so_is_asked_for(folder, given, meant):
    (folder / "bundle").mkdir()
    (folder / "models/sd15").mkdir(parents=True)
    for command in (["export", given, "out"], ["scan", "captions.txt", "--model", given, "--store", "store"]):
        _, err, code = run(*command)
        assert (code, f"{given.removeprefix('./')}: no such folder; did you mean {meant}?; needed" in err) == (
            2,
            True,
        ), err


def test_a_path_below_a_folder_is_no_hub_id(folder):
    (folder / "models").mkdir()
    _, err, code = run("export", "models/nothing-alike", "out")
    assert (code, "models/nothing-alike: no such folder; needed a diffusers checkpoint" in err) == (2, True), err


def test_a_hub_id_that_cannot_be_fetched_is_said_to_be_one(folder):
    _, err, code = run("export", "owner/name", "out")
    assert code == 4
    assert err.startswith("error: owner/name: no such folder, and as a hub id it cannot be fetched (")
    assert err.endswith("check its spelling and the network, or fetch it elsewhere and name its folder\n")
    assert [path.name for path in folder.iterdir()] == ["captions.txt"]


REPORT = ["report", "--store", "store", "--out", "report"]
SETTINGS = f'store = "store"\n[scan]\ninputs = ["captions.txt"]\nmodel = "{BUNDLE}"\n[report]\nout = "report"\n'


def victim(folder):
    (folder.parent / "victim").write_text("precious")
    return folder.parent / "victim"


@pytest.mark.parametrize("name", ["overscan.toml", "pyproject.toml"])
@pytest.mark.parametrize(
    ("key", "command", "value"),
    [
        ("report.write_baseline", REPORT, "{victim}"),
        ("report.write_baseline", REPORT, "../victim"),
        ("report.write_baseline", REPORT, "link/victim"),
        ("report.out", ["report", "--store", "store"], "{victim}-report"),
        ("scan.store", ["scan", "captions.txt", "--model", BUNDLE], "../elsewhere"),
        ("calibrate.out", ["calibrate", "captions.txt", "--model", BUNDLE, "--store", "store"], "{victim}"),
        ("demo.out", ["demo"], "../demo"),
        ("evaluate.out", ["evaluate", "captions.txt", "--model", BUNDLE], "../evaluated"),
        ("export.out", ["export", "a/b"], "../exported"),
    ],
)
def test_found_settings_do_not_write_outside(folder, name, key, command, value):
    file = victim(folder)
    (folder / "link").symlink_to(folder.parent)
    table, option = key.split(".")
    value = value.format(victim=file)
    head = "tool.overscan." if name == "pyproject.toml" else ""
    (folder / name).write_text(f'[{head}{table}]\n{option} = "{value}"\n')
    before = sorted(path.name for path in folder.parent.iterdir())
    out, err, code = run(*command)
    assert (out, code) == ("", 2)
    assert err.startswith(f"settings from {name} (found here)\n")
    assert f"error: {name}: {key} is {value!r}, outside the working folder: a settings file that was found here" in err
    assert f"name it: overscan --config {name} {table} ..." in err
    assert (file.read_text(), sorted(path.name for path in folder.parent.iterdir())) == ("precious", before)
    shown = run("config", "show", *map(str, command))
    assert (shown[2], f"{key} is {value!r}, outside" in shown[1]) == (2, True)


def test_a_named_file_writes_where_it_says_and_the_command_line_always(folder, monkeypatch):
    (folder / "overscan.toml").write_text(SETTINGS.replace('"report"', '"../reported"'))
    _, err, code = run("scan")
    assert (code, err.splitlines()[0]) == (0, "settings from overscan.toml (found here)")
    assert run("report")[2] == 2
    _, err, code = run("--config", "overscan.toml", "report")
    assert (code, err.splitlines()[0]) == (0, "settings from overscan.toml")
    assert (folder.parent / "reported/report.html").is_file()
    assert run("report", "--out", folder.parent / "again")[2] == 0
    monkeypatch.setenv("OVERSCAN_REPORT_OUT", "../by the environment")
    assert run("report")[2] == 0
    monkeypatch.delenv("OVERSCAN_REPORT_OUT")
    monkeypatch.setenv("OVERSCAN_CONFIG", "overscan.toml")
    assert run("report")[2] == 0
    assert sorted(path.name for path in folder.parent.iterdir()) == ["again", "by the environment", "here", "reported"]


def test_found_settings_read_anywhere(folder):
    assert run("scan", "captions.txt", "--model", BUNDLE, "--store", folder.parent / "store")[2] == 0
    (folder / "overscan.toml").write_text('store = "../store"\n[report]\nout = "report"\n')
    _, err, code = run("report", "--json")
    assert code == 0, err
    assert run("status")[2] == 0
    assert run("compact")[2] == 2  # which deletes files there


def test_nothing_is_said_of_settings_that_are_not(folder):
    (folder / "pyproject.toml").write_text("[tool.other]\nx = 1\n")
    assert run("status", "--store", "nowhere")[1].startswith("error: nowhere: no store there")
    name = "settings\x1b[31m.toml"
    (folder / name).write_text("[report]\ntop = 1\n")
    assert run("--config", name, "status", "--store", "x")[1].startswith(
        "settings from settings\\x1b[31m.toml\nerror: "
    )
    assert [path.name for path in folder.parent.iterdir()] == ["here"]


@pytest.mark.parametrize(
    ("command", "name"),
    [
        (["threshold", "--store", "store", "--out", "mine.txt"], "mine.txt"),
        (["calibrate", "mine.txt", "--model", BUNDLE, "--store", "store", "--out", "mine.txt"], "mine.txt"),
        (["report", "--store", "store", "--out", "."], "scores.parquet"),
    ],
)
def test_nobodys_file_is_replaced(folder, command, name):
    made = ["--model", BUNDLE, "--store", "store", "--backend", "cpu"]
    assert run("scan", "captions.txt", *made)[2] == 0
    (folder / name).write_text("mine\n")
    _, err, code = run(*command)
    assert code == 2, err
    assert f"{name}: another file is there" in err or f".: {name} in it, and no report of overscan" in err
    assert (folder / name).read_text() == "mine\n"


def test_ones_own_files_are_replaced(folder):
    made = ["--model", BUNDLE, "--store", "store", "--backend", "cpu"]
    assert run("scan", "captions.txt", *made)[2] == 0
    for _ in range(2):
        assert run("calibrate", "captions.txt", *made, "--out", "null.parquet")[2] == 0
        assert run("threshold", "--store", "store", "--out", "t.json")[2] == 0
        assert run("report", "--store", "store", "--out", ".")[2] == 0
