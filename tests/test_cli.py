import base64
import json
import re
import shlex
import zlib

import click
import polars as pl
import pytest
from click.testing import CliRunner
from small import BUNDLE

from scanner.cli import COMMANDS, cli, main
from scanner.cli.scores import ScoreName
from scanner.dataset.reading import of_json
from scanner.report import formats
from scanner.store.stored import read_store

PROMPTS = ["credit card on brown", "a caption nobody saw", "christmas tree"]


def run(*arguments):
    """Whole program with its exit code: stdout, stderr, code."""
    import contextlib
    import io
    import sys

    out, err, saved = io.StringIO(), io.StringIO(), sys.argv
    sys.argv = ["overscan", *map(str, arguments)]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.raises(SystemExit) as exit_:
            main()
    finally:
        sys.argv = saved
    return out.getvalue(), err.getvalue(), exit_.value.code or 0


@pytest.fixture
def scanned(tmp_path):
    (tmp_path / "p.txt").write_text("\n".join([*PROMPTS, PROMPTS[0], ""]))
    found = run("scan", tmp_path / "p.txt", "--model", BUNDLE, "--store", tmp_path / "store")
    return tmp_path, found


def test_scan_says_what_it_did(scanned):
    folder, (out, err, code) = scanned
    assert code == 0
    assert re.fullmatch(r"[0-9a-f]{32}\n", out)
    err = "".join(line for line in err.splitlines(keepends=True) if not line.startswith("scan: "))  # slow machines
    said = re.sub(r"in [\d.]+ s \([\d.]+ prompts/s, ", "in T s (R prompts/s, ", err)
    said = re.sub(r"batch (1|4|16|64|256)\)", "batch N)", said)
    assert said == (
        "rows            4\n"
        "unique prompts  3\n"
        "already scored  0\n"
        "scored now      3 in T s (R prompts/s, cpu float32: CPUExecutionProvider, batch N)\n"
    )
    _, err, _ = run("scan", folder / "p.txt", "--model", BUNDLE, "--store", folder / "store")
    assert "already scored  3\nscored now      0 in" in err


def test_report_writes_and_prints_the_ranking(scanned):
    folder, _ = scanned
    _, err, code = run("report", "--store", folder / "store", "--out", folder / "report", "--top", "1")
    assert code == 0
    assert "A ranking: flagged is not memorized." in err
    flagged = pl.read_parquet(folder / "report/flagged.parquet")
    assert flagged.select("rank", "text", "row").rows() == [
        (1, "credit card on brown", 0),
        (1, "credit card on brown", 3),
    ]
    assert len(pl.read_parquet(folder / "report/scores.parquet")) == 3


@pytest.mark.parametrize("json", [[], ["--json"]])
def test_a_redacted_report_holds_no_word_of_a_caption_and_no_folder(scanned, json):
    folder, _ = scanned
    (folder / "null.txt").write_text("\n".join(f"plain sentence {i}" for i in range(19)))
    made = ["--model", BUNDLE, "--store", folder / "store"]
    assert run("calibrate", folder / "null.txt", *made, "--out", folder / "cal.parquet")[2] == 0
    (folder / "out").mkdir()
    asked = ["--calibration", folder / "cal.parquet", "--fpr", "0.9", "--redact", "--nights", folder / "out", *json]
    baseline = ["--write-baseline", folder / "out/baseline.json"]
    out, err, code = run("report", "--store", folder / "store", "--out", folder / "out/report", *asked, *baseline)
    assert code == 0, err
    written = {"stdout": out, "stderr": err, "baseline": (folder / "out/baseline.json").read_text()}
    for path in (folder / "out/report").iterdir():
        if path.suffix == ".parquet":
            written[path.name] = f"{pl.read_parquet(path).rows()} {pl.read_parquet_metadata(path)}"
        else:
            written[path.name] = path.read_text()
    (packed,) = re.findall(r'id="payload">([^<]+)<', written["report.html"])
    written["payload"] = zlib.decompress(base64.b64decode(packed)).decode()
    assert set(formats.FILES) < set(written)
    secrets = ["credit", "brown", "nobody saw", "christmas", "plain sentence", str(folder), str(BUNDLE.parent), "/tmp"]
    found = {name: [secret for secret in secrets if secret in text] for name, text in written.items()}
    assert not {name: hits for name, hits in found.items() if hits}
    assert pl.read_parquet(folder / "out/report/rows_to_drop.parquet")["file"].unique().to_list() == ["p.txt"]
    assert "p.txt" in written["payload"]
    assert "20 characters" in written["flagged.csv"]


def test_the_environment_and_a_settings_file_can_redact(scanned, monkeypatch):
    folder, _ = scanned
    monkeypatch.chdir(folder)
    asked = ["report", "--store", "store", "--out", "report", "--top", "3"]
    for setting in ("environment", "file"):
        with monkeypatch.context() as patch:
            if setting == "environment":
                patch.setenv("OVERSCAN_REPORT_REDACT", "1")
            else:
                (folder / "overscan.toml").write_text("[report]\nredact = true\n")
            out, err, code = run(*asked)
        assert (code, [caption for caption in PROMPTS if caption in out]) == (0, []), err


def test_report_tells_of_captions_newer_than_the_scan(scanned):
    folder, _ = scanned
    with (folder / "p.txt").open("a") as file:
        file.write("something new\n")
    _, err, code = run("report", "--store", folder / "store", "--out", folder / "report")
    assert code == 0
    assert "1 prompts of the inputs are newer than the scan" in err


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["scan", "none.txt", "--model", BUNDLE, "--store", "s"], 2, "/none.txt: no such file"),
        (["scan", "p.txt", "--model", "nowhere", "--store", "s"], 2, "nowhere: no such folder; needed a bundle"),
        (["scan", "p.txt", "--model", BUNDLE, "--store", "s", "--backend", "torch"], 4, "or use --backend cpu"),
        (["scan", "p.txt", "--model", BUNDLE, "--store", "s", "--guidance-scale", "0.5"], 2, "needed 1 (no guidance)"),
        (["scan", "--model", BUNDLE, "--store", "s"], 2, "Missing argument 'INPUT...'"),
        (["report", "--store", "none", "--out", "r"], 2, "error: none: no store there"),
        (["report", "--store", "none", "--out", "r", "--top", "1", "--quantile", "0.5"], 2, "needed exactly one of"),
        (["export", "none", "out"], 2, "none: no such folder; needed a diffusers checkpoint"),
    ],
)
def test_exit_codes(tmp_path, monkeypatch, arguments, code, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "p.txt").write_text("a cat\n")
    out, err, found = run(*arguments)
    assert (found, out) == (code, "")
    assert message in err


@pytest.mark.parametrize("command", sorted(cli.commands))
def test_every_command_and_option_is_explained(command):
    result = CliRunner().invoke(cli, [command, "--help"])
    assert result.exit_code == 0
    assert cli.commands[command].help
    assert f"Usage: cli {command}" in result.output


def all_commands():
    groups = [cli, *(command for command in cli.commands.values() if isinstance(command, click.Group))]
    return [command for group in groups for command in group.commands.values() if not isinstance(command, click.Group)]


def options_of(command):
    return [option for option in command.params if isinstance(option, click.Option)]


@pytest.mark.parametrize("command", all_commands(), ids=lambda command: command.name)
def test_every_help_has_an_example_that_parses_and_says_what_each_option_is(command):
    unexplained = [option.name for option in options_of(command) if not (option.help or "")[:1].isalnum()]
    assert (unexplained, (command.epilog or "")[:12]) == ([], "\b\nExamples:\n")
    for line in command.epilog.splitlines()[2:]:
        found, words = resolved(shlex.split(line.partition(" <")[0]))
        context = click.Context(found, **found.context_settings)
        given, _, _ = found.make_parser(context).parse_args(words)
        missing = [item.name for item in found.params if item.required and given.get(item.name) in (None, ())]
        for item in found.params:
            if isinstance(item.type, ScoreName) and isinstance(given.get(item.name), str):
                item.type.convert(given[item.name], item, context)  # raises where it is none, or any of several
        assert found is not command or not missing, line
    assert command in [resolved(shlex.split(line))[0] for line in command.epilog.splitlines()[2:]]


def resolved(words):
    """The command of a command line, and its arguments."""
    command, words = cli, words[1:]
    while isinstance(command, click.Group):
        command, words = command.commands[words[0]], words[1:]
    return command, words


def test_out_model_and_store_are_one_letter_everywhere():
    short = {"out": "-o", "model": "-m", "store": "-s"}
    found = [(option.name, option.opts[0]) for command in all_commands() for option in options_of(command)]
    named = [(name, letter) for name, letter in found if name in short]
    assert len(named) > 25
    assert all(letter == short[name] for name, letter in named)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["scan", "--modle", "x"], "No such option '--modle'. (Did you mean ... '--model'"),
        (["report", "--output", "x"], "No such option '--output'. (Did you mean ... '--out'"),
        (["scna"], "No such command 'scna'. Did you mean 'scan'?"),
        (["scan", "--config", "x"], "--config goes before the command: overscan --config"),
        (["report", "--score", "guidance_spred"], "did you mean guidance_spread_v1? There are text_noise_norm_v1"),
        (["report", "--score", "confidence"], "'confidence' is no score here. There are text_noise_norm_v1, overest"),
        (["scan", "--screen-score", "agreement"], "'agreement' is no score here. There are text_noise_norm_v1, "),
        (["explain", "--score", "agreemnet_v1"], "'agreemnet_v1' is no score here; did you mean agreement_v1? "),
    ],
)
def test_near_misses_are_answered(arguments, said):
    out, err, code = run(*arguments)
    assert (out, code) == ("", 2)
    assert all(part in " ".join(err.split()) for part in said.split(" ... ")), err


def test_scores_are_named_without_their_version_while_there_is_one():
    names = ScoreName(["norm_v1", "norm_steps_v1", "growth_v1", "growth_v2"])
    assert [names.convert(name, None, None) for name in ("norm", "norm_steps", "growth_v2")] == [
        "norm_v1",
        "norm_steps_v1",
        "growth_v2",
    ]
    with pytest.raises(click.BadParameter, match="'growth': which version of it\\? There are growth_v1, growth_v2"):
        names.convert("growth", None, None)


def test_a_report_takes_a_score_without_its_version(scanned):
    folder, _ = scanned
    asked = [
        "report",
        "-s",
        folder / "store",
        "-o",
        folder / "report",
        "--top",
        "1",
        "--score",
        "low_noise_norm",
        "--json",
    ]
    out, _, code = run(*asked, "--score", "low_noise_norm")
    assert (code, json.loads(out)["score"]) == (0, "low_noise_norm_v1")


def test_settings_are_named_after_their_options():
    """The environment and settings files know parameters by name: --fail-on is OVERSCAN_REPORT_FAIL_ON and fail_on."""
    groups = [cli, *(command for command in cli.commands.values() if isinstance(command, click.Group))]
    commands = [*groups, *(command for group in groups for command in group.commands.values())]
    options = [option for command in commands for option in command.params if isinstance(option, click.Option)]
    assert len(options) > 50
    for option in options:
        assert option.opts[-1] == f"--{option.name.replace('_', '-')}"


def test_a_large_share_of_rows_without_a_caption_is_said_loudly_in_rows(tmp_path):
    (tmp_path / "p.jsonl").write_text('{"caption": "credit card"}\n' + '{"caption": null}\n{"u": 1}\n' * 50)
    _, err, code = run("scan", tmp_path / "p.jsonl", "--model", BUNDLE, "--store", tmp_path / "store")
    assert code == 0
    assert "\nno caption      WARNING: 100 of 101 rows (99.01%): 50 null, 50 no such key\n" in err
    (tmp_path / "q.jsonl").write_text('{"caption": {"en": "credit card"}}\n')
    _, err, code = run("scan", tmp_path / "q.jsonl", "--model", BUNDLE, "--store", tmp_path / "store")
    assert (code, "column 'caption' holds 1 objects with the keys en; needed text" in err) == (2, True)


def test_files_lists_what_was_read_and_what_was_passed_over(tmp_path):
    folder = tmp_path / "a\n::error::"
    folder.mkdir()
    (folder / "p.csv").write_text("Caption;u\ncredit card;1\n")
    (folder / "q.txt").write_text("floppy disk\nbadger\n")
    (folder / "README.txt").write_text("How to use this\n")
    out, err, code = run("scan", folder, "--model", BUNDLE, "--store", tmp_path / "store", "--files", "--json")
    name = f"{tmp_path}/a\\n::error::"
    dialect = "delimiter=semicolon quotechar=quote escapechar=none doublequote=yes skipinitialspace=no"
    passed_over = f"{name}/README.txt: a document: its name is in capitals"
    assert code == 0
    assert err.endswith(
        f"passed over     {passed_over}\n"
        f"read            {name}/p.csv: 1 rows Caption; {dialect}\n"
        f"read            {name}/q.txt: 2 rows\n"
        f"passed over     {passed_over}\n"
    )
    reading = json.loads(out)["reading"]
    assert reading["files"][1] == {"file": f"{folder}/q.txt", "rows": 2}
    assert reading["passed_over"] == [passed_over]
    record = read_store(tmp_path / "store").record
    assert (record.reading, record.dialect) == (of_json(reading), None)


def test_help_lists_commands_in_the_order_of_work_with_whole_sentences():
    out, _, code = run("--help")
    assert code == 0
    titles = [line.removesuffix(":") for line in out.splitlines() if line.endswith(":") and not line.startswith(" ")]
    assert titles == ["Options", "Try it", "Prepare", "Scan", "Decide", "Look closer", "Measure", "Hand over"]
    assert not [line for line in out.splitlines()[1:] if line.endswith("...")]
    listed = [line.split()[0] for line in out.splitlines() if line.startswith("  ") and line[2:3].islower()]
    assert [name for name in listed if name in cli.commands] == [command.name for command in COMMANDS]
    assert "  threshold  Choose a score from which captions are flagged, once, and keep it" in out
