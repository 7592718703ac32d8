"""Settings, dry runs, status and exit codes of the command line; signals are in test_end_to_end.py."""

import errno
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time

import polars as pl
import pytest
from small import BUNDLE
from test_cli import run

from scanner.cli.settings import find_file, load
from scanner.config import ScanConfig
from scanner.errors import ConfigError, StoreError
from scanner.model import Model
from scanner.model.batch_size import SIZES
from scanner.scanning.request import Request, dataset

COMMAND = [sys.executable, "-c", "from scanner.cli import main; main()"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working directory with captions and settings."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "p.txt").write_text("male sign\nchristmas tree\nmale sign\n\n")
    (tmp_path / "overscan.toml").write_text(
        f'store = "store"\n[scan]\ninputs = ["p.txt"]\nmodel = "{BUNDLE}"\nseeds = 3\n'
        '[report]\nout = "report"\ntop = 1\n'
    )
    return tmp_path


FOUND = "settings from overscan.toml (found here)\n"


def timeless(text):
    text = re.sub(r"^(scan|batch size|prior|canaries): .*\n", "", text, flags=re.MULTILINE)  # on slow machines
    text = re.sub(r"batch (1|4|16|64|256)([);])", r"batch N\2", text)
    text = re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", "DATE", text)
    text = re.sub(r"[\d.]+ (s|min) \(at [\d.]+ prompts/s", "T (at R prompts/s", text)
    return re.sub(r"in [\d.]+ s \([\d.]+ prompts/s", "in T s (R prompts/s", text)


def test_a_night_needs_no_arguments(folder):
    scan_id = Model(BUNDLE, "auto", config=ScanConfig(seeds=(0, 1, 2))).scan_id
    out, err, code = run("scan", "--dry-run")
    assert (out, code, (folder / "store").exists()) == (f"{scan_id}\n", 0, False)
    empty = "no caption      WARNING: 1 of 4 rows (25.00%): 1 empty lines\n"
    assert timeless(err) == FOUND + (
        "rows            4\n"
        "unique prompts  3 (1 rows repeat one)\n"
        "already scored  0\n"
        "pending         3\n"
        "estimated       T (at R prompts/s, cpu float32: CPUExecutionProvider, batch N; nothing was written)\n" + empty
    )
    out, _, code = run("scan", "--json")
    done = json.loads(out)
    del done["seconds"]
    assert done.pop("batch_size") in SIZES
    assert code == 0
    files = [{"file": str(folder / "p.txt"), "rows": 4, "without_caption": 1, "reasons": {"empty lines": 1}}]
    reading = {"rows": 4, "without_caption": 1, "reasons": {"empty lines": 1}, "files": files, "passed_over": []}
    assert done == {
        "scan_id": scan_id,
        "store": "store",
        "backend": "cpu",
        "precision": "float32",
        "provider": "CPUExecutionProvider",
        "rows": 4,
        "unique": 3,
        "already_scored": 0,
        "scored": 2,
        "skipped": {"null": 1},
        "other_scans": 0,
        "left_out": [],
        "screening": None,
        "reading": reading,
        "shard": {"index": 1, "count": 1},
    }
    out, err, _ = run("scan", "--dry-run", "--json")
    assert err == FOUND + (
        "rows            4\nunique prompts  3 (1 rows repeat one)\nalready scored  3\npending         0\n" + empty
    )
    planned = json.loads(out)
    assert planned.pop("batch_size") in SIZES
    assert planned == {
        "scan_id": scan_id,
        "backend": "cpu",
        "precision": "float32",
        "provider": "CPUExecutionProvider",
        "rows": 4,
        "unique": 3,
        "duplicates": 1,
        "already_scored": 3,
        "pending": 0,
        "left_out": [],
        "prompts_per_second": 0.0,
        "seconds": 0.0,
        "first_pass": None,
        "refine": None,
        "screened_because": "",
        "reading": reading,
        "shard": {"index": 1, "count": 1},
    }
    out, err, code = run("report")
    assert code == 0
    assert (folder / "report/flagged.csv").is_file()

    out, err, code = run("status")
    assert (err, code) == (FOUND, 0)
    assert re.sub(r"\d+ files, [\d.]+ MB", "N files, S MB", timeless(out)) == (
        "store store\n\n"
        f"scan {scan_id[:8]}\n"
        f"  model     {BUNDLE}\n"
        "  backend   cpu float32 (CPUExecutionProvider)\n"
        "  settings  seeds 0, 1, 2; first 1 of 50 steps, told 289; guidance scale 7.5; prior of 64 noises\n"
        "  last run  DATE (1 in all)\n"
        "  rows      1 null, 2 scored\n\n"
        "table scores  version 1, N files, S MB with old versions\n"
        "table runs    version 1, N files, S MB with old versions\n"
    )
    found = json.loads(run("status", "--json")[0])
    assert found["scans"][0]["rows"] == {"null": 1, "scored": 2}
    assert found["tables"]["scores"]["version"] == 1
    out, err, code = run("compact")
    assert (out, err, code) == (
        "scores: 0 files merged, 0 deleted (kept 7 days)\nruns: 0 files merged, 0 deleted (kept 7 days)\n",
        FOUND,
        0,
    )


@pytest.mark.parametrize(
    ("variable", "said"),
    [
        ("OVERSCAN_SCAN_SEED", "no command has such an option; the nearest is OVERSCAN_SCAN_SEEDS. Variables"),
        ("OVERSCAN_SEEDS", "no command has such an option; the nearest is OVERSCAN_SCAN_SEEDS. Variables"),
        ("OVERSCAN_SCAN_FIRST-STEPS", "the nearest is OVERSCAN_SCAN_FIRST_STEPS. "),
        ("OVERSCAN_SCAN_INPUTS", "no command has such an option"),  # click takes no argument from the environment
        ("OVERSCAN_EXPLAIN_PROMPT", "no command has such an option"),  # which click would split at blanks
        ("OVERSCAN_QQQ", "no command has such an option. Variables are named after command and option"),
    ],
)
def test_an_unknown_variable_of_the_environment_is_an_error(folder, monkeypatch, variable, said):
    monkeypatch.setenv(variable, "4")
    for command in (["scan", "--dry-run"], ["status", "--store", "store"], ["config", "show"]):
        out, err, code = run(*command)
        assert (out, code) == ("", 2)
        assert err.startswith(f"error: {variable} in the environment: ")
        assert said in err


def test_variables_that_look_alike_are_left_alone(folder, monkeypatch):
    for name in ("_OVERSCAN_COMPLETED", "OVERSCANS", "OVERSCAN", "MY_OVERSCAN_SCAN_SEED"):
        monkeypatch.setenv(name, "4")
    monkeypatch.setenv("OVERSCAN_CONFIG_SHOW_JSON", "1")
    out, err, code = run("config", "show")
    assert (code, err) == (0, FOUND)
    assert json.loads(out)["settings"]["seeds"]["value"] == 3


def test_flags_beat_the_environment_beats_the_file(folder, monkeypatch):
    monkeypatch.setenv("OVERSCAN_SCAN_SEEDS", "4")
    monkeypatch.setenv("OVERSCAN_SCAN_LIMIT", "9")
    out, err, code = run("config", "show", "scan", "--limit", "5")
    assert (err, code) == (FOUND, 0)
    width = len(str(BUNDLE)) + 2
    lines = [
        ("inputs            ", '["p.txt"]', "overscan.toml"),
        ("model             ", f'"{BUNDLE}"', "overscan.toml"),
        ("store             ", '"store"', "overscan.toml"),
        ("column            ", "null", "default"),
        ("dialect           ", "null", "default"),
        ("reference         ", "null", "default"),
        ("base_model        ", "null", "default"),
        ("seeds             ", "4", "OVERSCAN_SCAN_SEEDS"),
        ("first_steps       ", "1", "default"),
        ("timesteps         ", "null", "default"),
        ("prior_noises      ", "null", "default"),
        ("guidance_scale    ", "7.5", "default"),
        ("batch_size        ", "null", "default"),
        ("backend           ", '"auto"', "default"),
        ("precision         ", '"auto"', "default"),
        ("workers           ", "1", "default"),
        ("executor          ", '"processes"', "default"),
        ("ray_address       ", "null", "default"),
        ("cpus_per_worker   ", "1.0", "default"),
        ("gpus_per_worker   ", "0.0", "default"),
        ("devices           ", "null", "default"),
        ("limit             ", "5", "command line"),
        ("strict            ", "false", "default"),
        ("screen            ", "null", "default"),
        ("screen_keep       ", "null", "default"),
        ("screen_curves     ", "null", "default"),
        ("screen_score      ", "null", "default"),
        ("screen_told       ", "null", "default"),
        ("screen_model      ", "null", "default"),
        ("screen_precision  ", "null", "default"),
        ("screen_sample     ", "null", "default"),
        ("shard             ", "null", "default"),
        ("dry_run           ", "false", "default"),
        ("files             ", "false", "default"),
        ("json              ", "false", "default"),
    ]
    scan_id = Model(BUNDLE, "auto", config=ScanConfig(seeds=(0, 1, 2, 3))).scan_id
    assert (
        out == "".join(f"{name}{value:{width}}  {source}\n" for name, value, source in lines) + f"scan_id {scan_id}\n"
    )
    shown = json.loads(run("config", "show", "--json")[0])
    assert (shown["file"], shown["scan_id"]) == ("overscan.toml", scan_id)
    assert shown["settings"]["limit"] == {"value": 9, "from": "OVERSCAN_SCAN_LIMIT"}
    assert re.search(r"^top +1 ", run("config", "show", "report")[0], re.MULTILINE)


def test_config_alone_shows_what_is_no_default_and_who_takes_it(folder, monkeypatch):
    monkeypatch.setenv("OVERSCAN_SCAN_SEEDS", "4")
    (folder / "overscan.toml").write_text('store = "store"\n[scan]\nseeds = 3\n[report]\ntop = 1\nout = "r"\n')
    out, err, code = run("config")
    assert (err, code) == (FOUND, 0)
    takers = "doctor, scan, status, compact, calibrate, threshold, report, recheck, images, evidence"
    assert out == (
        f'store  "store"  overscan.toml        {takers}\n'
        'seeds  "4"      OVERSCAN_SCAN_SEEDS  scan\n'
        'out    "r"      overscan.toml        report\n'
        "top    1        overscan.toml        report\n"
        "all else is the default: overscan config show COMMAND\n"
    )
    monkeypatch.delenv("OVERSCAN_SCAN_SEEDS")
    (folder / "overscan.toml").unlink()
    out, _, code = run("config")
    assert (code, out[:42]) == (0, "every setting is the default: no settings ")


def test_config_show_knows_the_scan_id_of_a_reference(folder):
    (folder / "reference.txt").write_text("a cat\na dog\na house\n")
    named = ["--reference", "reference.txt"]
    shown = json.loads(run("config", "show", "--json", "scan", *named)[0])
    out, _, code = run("scan", "--dry-run", *named)
    assert (code, out) == (0, shown["scan_id"] + "\n")
    assert shown["scan_id"] != Model(BUNDLE, "auto", config=ScanConfig(seeds=(0, 1, 2))).scan_id


def test_a_named_file_or_pyproject_serves_too(folder):
    (folder / "other.toml").write_text("[scan]\nseeds = 5\n")
    shown = json.loads(run("--config", "other.toml", "config", "show", "--json")[0])
    assert shown["settings"]["seeds"] == {"value": 5, "from": "other.toml"}
    assert (shown["settings"]["model"]["value"], shown["scan_id"]) == (None, None)
    (folder / "overscan.toml").unlink()
    (folder / "pyproject.toml").write_text('[project]\nname = "x"\n')
    assert find_file(folder) is None
    (folder / "pyproject.toml").write_text('[project]\nname = "x"\n[tool.overscan.scan]\nseeds = 6\n')
    shown = json.loads(run("config", "show", "--json")[0])
    assert shown["settings"]["seeds"] == {"value": 6, "from": "pyproject.toml"}


@pytest.mark.parametrize(
    "setting",
    ["strict = true", "seeds = 4", 'seeds = "4"', "guidance_scale = 5", "guidance_scale = 5.5"],
)
def test_settings_of_the_right_type_are_taken(tmp_path, monkeypatch, setting):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "overscan.toml").write_text(f"[scan]\n{setting}\n")
    assert run("config", "show")[2] == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sed = 3", "overscan.toml: sed is unknown; there are a, b, c"),
        ("[scan]\nsed = 3", "overscan.toml: scan.sed is unknown; there are a, b"),
        ("[raport]\na = 3", r"overscan.toml: \[raport\] is unknown, did you mean report\?; there are report, scan"),
        ("[scam]\na = 3", r"overscan.toml: \[scam\] is unknown, did you mean scan\?; there are report, scan"),
        ("[scan]\nc = 3", "overscan.toml: scan.c is unknown; there are a, b"),
        ("= 3", "overscan.toml: no readable TOML"),
        ("a = '\udcff'", "overscan.toml: no readable TOML"),
    ],
)
def test_settings_that_no_command_knows_are_refused(tmp_path, text, message):
    (tmp_path / "overscan.toml").write_text(text, errors="surrogateescape")
    with pytest.raises(ConfigError, match=message):
        load(tmp_path / "overscan.toml", {"scan": ("a", "b"), "report": ("b", "c")})


def test_shared_settings_reach_the_commands_that_know_them(tmp_path):
    (tmp_path / "overscan.toml").write_text("b = 1\nc = 2\n[scan]\nb = 3\n")
    known = {"scan": ("a", "b"), "report": ("b", "c"), "demo": ("d",)}
    assert load(tmp_path / "overscan.toml", known) == {"scan": {"b": 3}, "report": {"b": 1, "c": 2}, "demo": {}}


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--config", "none.toml", "scan"], 2, "File 'none.toml' does not exist"),
        (["--config", "broken.toml", "scan"], 2, "error: broken.toml: no readable TOML"),
        (
            ["--config", "typo.toml", "status"],
            2,
            "error: typo.toml: scan.sed is unknown, did you mean seeds?",
        ),
        (["--config", "wrong.toml", "scan"], 2, "Invalid value for '--seeds'"),
        (["config", "show", "scam"], 2, "no command 'scam'; there are "),
        (["config", "show", "scan", "--model", "p.txt"], 2, "p.txt: a file; needed a bundle"),
        (["status", "--store", "none"], 2, "error: none: no store there"),
        (["compact", "--store", "none"], 2, "error: none: no store there"),
        (["compact", "--store", "p.txt"], 2, "error: p.txt: no store there"),
        (["scan", "--store", "p.txt"], 2, "p.txt: a file; a store is a folder: name another --store"),
        (["scan", "--store", "foreign"], 2, "a Delta table described None, needed 'overscan store 1'"),
        (["scan", "--dry-run", "--store", "foreign"], 2, "a Delta table described None, needed 'overscan store 1'"),
        (["scan", "--store", "/proc/none"], 4, "error: /proc/none: "),
        (["scan", "--model", "bundle-of-nothing"], 2, "bundle-of-nothing: no such folder"),
    ],
)
def test_exit_codes(folder, arguments, code, message):
    (folder / "broken.toml").write_text("= 3")
    (folder / "typo.toml").write_text("[scan]\nsed = 3")
    (folder / "wrong.toml").write_text(f'[scan]\nseeds = "many"\ninputs = ["p.txt"]\nmodel = "{BUNDLE}"\nstore = "s"')
    pl.DataFrame({"x": [1]}).write_delta(str(folder / "foreign/scores"))
    out, err, found = run(*arguments)
    assert (found, out) == (code, ""), err
    assert message in err


def test_a_second_signal_ends_at_once(tmp_path):
    """Even while one engine call lasts long: batches of 4096 samples take seconds."""
    (tmp_path / "many.txt").write_text("\n".join(f"cat number {i}" for i in range(20_000)))
    command = [*COMMAND, "scan", str(tmp_path / "many.txt"), "--model", str(BUNDLE), "--store", str(tmp_path / "store")]
    process = subprocess.Popen([*command, "--batch-size", "8192"], stderr=subprocess.PIPE, text=True)
    begun = tmp_path / "store/runs/_delta_log/00000000000000000001.json"
    deadline = time.monotonic() + 60
    while not begun.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(1)
    process.send_signal(signal.SIGTERM)
    assert process.stderr.readline() == "stopping after the batch in hand; once more to stop at once\n"
    started = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 3
    assert time.monotonic() - started < 2
    process.stderr.close()
    assert run("status", "--store", tmp_path / "store")[2] == 0


def test_signals_before_any_scoring_stop_the_scan(tmp_path):
    from scanner import scan
    from scanner.errors import Interrupted

    (tmp_path / "p.txt").write_text("a cat\n")
    with pytest.raises(Interrupted, match="while preparing, before this pass scored anything"):
        scan(tmp_path / "p.txt", model=BUNDLE, store=tmp_path / "store", stop=lambda: True)
    heard = []
    with pytest.raises(Interrupted, match="while reading captions, before anything was scored: run it again"):
        scan(
            tmp_path / "p.txt", model=BUNDLE, store=tmp_path / "store", stop=lambda: "canaries" in heard,
            watch=lambda what, done, total: heard.append(what),
        )  # fmt: skip


def test_two_scans_of_one_store_at_once(tmp_path):
    (tmp_path / "p.txt").write_text("\n".join(f"cat number {i}" for i in range(100)))
    given = ["scan", tmp_path / "p.txt", "--model", BUNDLE, "--store", tmp_path / "store", "--backend", "cpu"]
    command = [*COMMAND, *map(str, given)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(2)]
    for process in processes:
        _, said = process.communicate(timeout=120)
        assert process.returncode == 0, said
    out, _, _ = run(*given, "--json")
    done = json.loads(out)
    assert (done["unique"], done["already_scored"], done["scored"]) == (100, 100, 0)


def test_completion_and_colours():
    environment = os.environ | {"_OVERSCAN_COMPLETE": "bash_source", "NO_COLOR": "1"}
    program = "import sys; sys.argv[0] = 'overscan'; from scanner.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "complete -o nosort -F _overscan_completion overscan" in done.stdout


def test_an_older_scan_of_the_store_can_be_reported(folder):
    older = run("scan")[0].strip()
    newer = run("scan", "--seeds", "1")[0].strip()
    for asked, scan_id in (([], newer), (["--scan-id", older[:8]], older), (["--scan-id", newer], newer)):
        out, err, code = run("report", "--json", "--score", "low_noise_norm_v1", *asked)
        assert code == 0, err
        assert json.loads(out)["scan_id"] == scan_id
    _, err, code = run("report", "--scan-id", "0" * 8)
    assert (code, err) == (2, f"{FOUND}error: store: no scan of scan_id 00000000; there are {newer}, {older}\n")


def test_status_tells_scans_apart(folder):
    run("scan")
    run("scan", "--seeds", "1", "--limit", "1")
    scans = json.loads(run("status", "--json")[0])["scans"]
    assert [(scan["config"]["seeds"], scan["rows"]) for scan in scans] == [
        ([0], {"scored": 1}),
        ([0, 1, 2], {"null": 1, "scored": 2}),
    ]


def test_work_files_that_stay_do_not_hide_why_a_scan_ended(folder, monkeypatch):
    (folder / "work").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder / "work"))

    def busy(path, *arguments, **options):  # somebody still writes there
        raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), str(path))

    def end() -> None:
        request = Request(folder / "p.txt", BUNDLE, folder / "store")
        with dataset(request, request.rows, lambda: False):
            patched.setattr(os, "rmdir", busy)
            raise StoreError("cut in half")

    with monkeypatch.context() as patched, pytest.raises(StoreError, match="cut in half"):
        end()
    assert len(list((folder / "work").glob("overscan-*"))) == 1
