"""`overscan init`: a settings file that runs."""

import re
import tomllib

import polars as pl
import pytest
from small import BUNDLE
from test_cli import run

from scanner.cli import cli, config
from scanner.cli.settings import load


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pl.DataFrame({"Caption": ["a cat", "credit card on brown", "christmas tree"]}).write_parquet("captions.parquet")
    (tmp_path / "bundle").symlink_to(BUNDLE)
    return tmp_path


def test_a_scan_and_a_report_then_need_no_arguments(folder):
    out, err, code = run("init", "captions.parquet", "-m", "bundle")
    assert (out, code) == ("overscan.toml\n", 0)
    assert err == (
        "1 file of captions, column Caption\nnext: overscan scan --dry-run, overscan scan, overscan report\n"
    )
    assert tomllib.loads((folder / "overscan.toml").read_text()) == {
        "store": "store",
        "scan": {"inputs": ["captions.parquet"], "model": "bundle"},
        "report": {"out": "report"},
        "threshold": {"out": "threshold.json"},
        "calibrate": {"model": "bundle", "out": "calibration.parquet"},
        "verify": {"model": "bundle", "out": "verified"},
        "explain": {"model": "bundle"},
    }
    _, err, code = run("scan", "--batch-size", "4")
    assert (code, "unique prompts  3\n" in err) == (0, True)
    assert run("report", "--top", "1")[2] == 0
    assert (folder / "report/report.html").is_file()


def test_what_is_commented_out_is_a_setting_with_its_options_words(folder):
    assert run("init", "captions.parquet", "-m", "bundle")[2] == 0
    text = (folder / "overscan.toml").read_text()
    assert "# seeds = 2  # Starting noises per prompt.\n" in text
    body = text[text.index("store =") :]
    (folder / "all.toml").write_text(re.sub(r"^# (\w+ = )", r"\1", body, flags=re.MULTILINE))
    commands = config.configurable(cli)
    settings = load(folder / "all.toml", {name: [item.name for item in it.params] for name, it in commands.items()})
    for name, command in commands.items():
        config._check(folder / "all.toml", command, settings[name])
    assert (settings["scan"]["seeds"], settings["report"]["fail_on"]) == (2, "new")
    assert len(settings["report"]) > 10
    defaults = {item.name: item.default for item in cli.commands["scan"].params}
    said = {name: settings["scan"][name] for name in ("seeds", "backend", "precision", "workers")}
    assert said == {name: defaults[name] for name in said}


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["captions.parquet"], 2, "Missing option '-m' / '--model'"),
        (["none.parquet", "-m", "bundle"], 2, "none.parquet: no such file"),
        (["captions.parquet", "-m", "bundel"], 2, "bundel: no such folder; did you mean bundle?"),
        (["captions.parquet", "-m", "bundle", "--column", "title"], 2, "title"),
        (["captions.parquet", "-m", "bundle", "-o", "there.toml"], 2, "there.toml exists: change it by hand"),
        (["captions.parquet", "-m", "bundle", "-s", "../store"], 0, "next: overscan --config overscan.toml scan --dr"),
        (["captions.parquet", "-m", "bundle", "-o", "my.toml"], 0, "next: overscan --config my.toml scan --dry-run, "),
    ],
)
def test_what_cannot_run_is_said_before_anything_is_written(folder, arguments, code, said):
    (folder / "there.toml").write_text("")
    _, err, found = run("init", *arguments)
    assert (found, said in " ".join(err.split())) == (code, True), err
    assert ((folder / "overscan.toml").exists() or (folder / "my.toml").exists()) == (code == 0)


def test_names_are_quoted_as_toml_has_it(folder):
    name = 'it\'s "quoted" \\ ünï.txt'
    (folder / name).write_text("a cat\n")
    assert run("init", name, "-m", "bundle")[2] == 0
    assert tomllib.loads((folder / "overscan.toml").read_text())["scan"]["inputs"] == [name]
