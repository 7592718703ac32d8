"""Calibrated reports, policies and diffs, through the whole program."""

import csv
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from small import BUNDLE, LABELS
from test_cli import run

from scanner.audit import calibrate
from scanner.audit.diagnose import check_canaries
from scanner.cli import cli
from scanner.diffusion.scores import SCORES
from scanner.store.stored import read_store

DATA = ["credit card on brown", "a caption nobody saw", "christmas tree", "credit card on brown"]
NULL = [f"a plain sentence number {i}" for i in range(19)]
DOCS = (Path(__file__).parent.parent / "docs/decisions.md").read_text()
SCORE = "low_noise_norm_v1"


@pytest.fixture(scope="module")
def night(tmp_path_factory):
    """A store with a scan, then a calibration; what `calibrate` said."""
    folder = tmp_path_factory.mktemp("night")
    (folder / "data.txt").write_text("\n".join(DATA))
    (folder / "null.txt").write_text("\n".join(NULL))
    made = ["--model", BUNDLE, "--store", folder / "store"]
    assert run("scan", folder / "data.txt", *made)[2] == 0
    return folder, run("calibrate", folder / "null.txt", *made, "--out", folder / "cal.parquet")


def report(folder, *arguments, out="report"):
    return run("report", "--store", folder / "store", "--out", folder / out, "--score", SCORE, *arguments)


def test_calibrate_says_what_it_can_tell(night):
    folder, (out, err, code) = night
    assert (out, code) == (f"{folder / 'cal.parquet'}\n", 0)
    said = re.sub(r"in [\d.]+ s \([\d.]+ prompts/s, ", "in T s (R prompts/s, ", err)
    assert re.sub(r"batch (1|4|16|64|256)\)", "batch N)", said) == (
        "rows            19\n"
        "unique prompts  19\n"
        "already scored  0\n"
        "scored now      19 in T s (R prompts/s, cpu float32: CPUExecutionProvider, batch N)\n"
        "19 null captions: p-values from 0.05 up; at fdr 0.05 they flag 1 of a dataset's prompts or more, or none\n"
    )
    made = ["--model", BUNDLE, "--store", folder / "store", "--out", folder / "again.parquet"]
    out, err, _ = run("calibrate", folder / "null.txt", *made, "--batch-size", "3", "--json")
    assert "already scored  19\nscored now      0 in" in err
    scan_id = read_store(folder / "store").scan_id
    assert json.loads(out) == {
        "calibration": str(folder / "again.parquet"),
        "scan_id": scan_id,
        "null_captions": 19,
    }


PLAIN = [name for name, by in SCORES.items() if by.needs in (None, "prior") and by.told == 1]


@pytest.mark.parametrize("score", PLAIN)
def test_another_batch_size_is_no_changed_engine(night, score):
    folder, _ = night
    made = ["--model", BUNDLE, "--store", folder / "store", "--batch-size", "1"]
    assert run("scan", folder / "data.txt", *made)[2] == 0
    made = calibrate.read(folder / "cal.parquet", score)
    assert check_canaries(made, read_store(folder / "store").canaries(score)) < 1e-3 * np.ptp(made.null)


def test_the_newest_scan_is_still_the_newest_scan(night):
    folder, _ = night
    stored = read_store(folder / "store")
    assert set(stored.scores["text"]) == set(DATA)
    canaries = calibrate.read(folder / "cal.parquet", SCORE).canaries
    assert stored.canaries(SCORE).unique().sort("canary").equals(canaries.sort("canary"))


def test_a_decision_has_p_and_q_values(night):
    folder, _ = night
    out, err, code = report(folder, "--calibration", folder / "cal.parquet", "--fpr", "0.5", "--json")
    assert code == 0
    assert "note: of 3 prompts up to 1.5 would be flagged at fpr 0.5 were all of them benign, and " in err
    assert "A decision: flagged is not memorized. Written: " in err
    ranked = pl.read_parquet(folder / "report/scores.parquet")
    assert ranked["flagged"].equals((ranked["p_value"] <= 0.5).alias("flagged"))
    assert ranked["p_value"].is_between(0.05, 1).all()
    summary = json.loads(out)
    assert summary == json.loads((folder / "report/summary.json").read_text())
    assert (summary["kind"], summary["rule"], summary["scored"]) == ("decision", {"fpr": 0.5}, 3)
    assert (summary["calibration"]["n"], summary["calibration"]["smallest_p"]) == (19, 0.05)
    assert summary["calibration"]["canary_difference"] < 1e-3
    assert {"p_value", "q_value", "finding"} <= set(pl.read_parquet(folder / "report/flagged.parquet").columns)


def test_calibrated_without_a_rate_means_a_false_discovery_rate_of_a_twentieth(night):
    folder, _ = night
    _, err, code = report(folder, "--calibration", folder / "cal.parquet")
    assert code == 0
    assert "note: 19 null captions: p-values from 0.05 up; at fdr 0.05 they flag 3 or more of 3 prompts, or none" in err
    assert json.loads((folder / "report/summary.json").read_text())["rule"] == {"fdr": 0.05}


@pytest.mark.parametrize(
    ("settings", "variable", "arguments", "rule"),
    [
        ("quantile = 0.9", "", ["--top", "2"], {"top": 2}),
        ("quantile = 0.9", "TOP=3", [], {"top": 3}),
        ("quantile = 0.9", "TOP=3", ["--threshold", "-1"], {"threshold": -1}),
        ("quantile = 0.9", "", ["--calibration", "cal.parquet"], {"fdr": 0.05}),
        ("quantile = 0.9", "", ["--calibration", "cal.parquet", "--fpr", "0.5"], {"fpr": 0.5}),
        ("quantile = 0.9", "FPR=0.5", ["--calibration", "cal.parquet"], {"fpr": 0.5}),
        ("fpr = 0.5", "", ["--calibration", "cal.parquet"], {"fpr": 0.5}),
        ('quantile = 0.9\ncalibration = "cal.parquet"', "", [], {"quantile": 0.9}),
        ('calibration = "cal.parquet"', "", ["--top", "2"], {"top": 2}),
        ("", "TOP=3", ["--quantile", "0.9"], {"quantile": 0.9}),
        ("", "", [], {"quantile": 0.99}),
    ],
)
def test_a_stronger_limit_drops_the_weaker_ones(night, monkeypatch, settings, variable, arguments, rule):
    folder, _ = night
    monkeypatch.chdir(folder)
    (folder / "settings.toml").write_text(f'[report]\nstore = "store"\nout = "limits"\nscore = "{SCORE}"\n{settings}\n')
    if variable:
        monkeypatch.setenv(*f"OVERSCAN_REPORT_{variable}".split("="))
    out, err, code = run("--config", "settings.toml", "report", "--json", *arguments)
    assert code == 0, err
    assert json.loads(out)["rule"] == rule


def test_two_limits_of_one_source_are_refused(night, monkeypatch):
    folder, _ = night
    monkeypatch.chdir(folder)
    (folder / "settings.toml").write_text("[report]\nquantile = 0.9\ntop = 3\n")
    _, err, code = run("--config", "settings.toml", "report", "--store", "store", "--out", "limits")
    said = "settings from settings.toml\nerror: needed exactly one of top, quantile, threshold, fdr, fpr\n"
    assert (code, err) == (2, said)


def test_only_new_findings_break_the_build(night, tmp_path):
    folder, _ = night
    everything = ["--threshold", "-1"]
    _, err, code = report(folder, *everything, "--fail-on", "new", "--write-baseline", tmp_path / "b.json")
    assert (code, err.splitlines()[-1]) == (1, "policy violated: 3 new findings, --fail-on new")
    known = [*everything, "--baseline", tmp_path / "b.json"]
    assert report(folder, "--top", "1", "--write-baseline", tmp_path / "b.json")[2] == 0
    assert len(json.loads((tmp_path / "b.json").read_text())["prompt_ids"]) == 3, "accepting is a union"
    assert report(folder, *known, "--fail-on", "new")[2] == 0
    assert report(folder, *known, "--fail-on", "any")[2] == 1

    ids = pl.read_parquet(folder / "report/scores.parquet")["prompt_id"]
    with (tmp_path / "allow.csv").open("w", newline="") as file:
        csv.writer(file).writerows(
            [["prompt_id", "reason", "expires"], [ids[0], "ours", "9999-12-31"], [ids[1], "old", "2020-01-01"]]
        )
    _, err, code = report(folder, *everything, "--allow", tmp_path / "allow.csv", "--fail-on", "3")
    assert code == 0
    assert f"note: allow-list: 1 expired, so no longer allowed: {ids[1]}\n" in err
    flagged = pl.read_parquet(folder / "report/flagged.parquet")
    assert dict(flagged.select("prompt_id", "finding").iter_rows()) == {
        ids[0]: "allowed",
        ids[1]: "new",
        ids[2]: "new",
    }
    assert report(folder, *everything, "--allow", tmp_path / "allow.csv", "--fail-on", "2")[2] == 1


def test_accept_adds_to_a_baseline(night, tmp_path):
    folder, _ = night
    report(folder, "--threshold", "-1", out="seen")
    ids, base = pl.read_parquet(folder / "seen/scores.parquet")["prompt_id"].to_list(), tmp_path / "b.json"
    asked = ["accept", "--report", folder / "seen", "--baseline", base]
    out, err, code = run(*asked, "--ids", f"{ids[0][:8]},{ids[1]}", "--reason", "ours", "--json")
    assert (code, err) == (0, f"2 accepted, 2 of them not known before; {base} holds 2\n")
    assert json.loads(out) == {"accepted": sorted(ids[:2]), "new": 2, "held": 2}
    assert report(folder, "--threshold", "-1", "--baseline", base, "--fail-on", "2")[2] == 0
    assert report(folder, "--threshold", "-1", "--baseline", base, "--fail-on", "1")[2] == 1
    _, err, code = run(*asked, "--expires", "9999-12-31")
    assert (code, err) == (0, f"3 accepted, 1 of them not known before; {base} holds 3\n")
    assert report(folder, "--threshold", "-1", "--baseline", base, "--fail-on", "new")[2] == 0
    held = base.read_bytes()
    for wrong, said in (
        (
            ["--ids", "00000000"],
            "error: prompt_id '00000000': 0 flagged prompts of the report begin so; needed 8 or more",
        ),
        (["--expires", "2020-01-01"], "error: expires 2020-01-01: has passed; needed today or a later day"),
        (["--expires", "soon"], "Invalid value for '--expires'"),
    ):
        _, err, code = run(*asked, *wrong)
        assert (code, said in err, base.read_bytes()) == (2, True, held)
    (tmp_path / "mine.json").write_text("{}")
    _, err, code = report(folder, "--top", "1", "--write-baseline", tmp_path / "mine.json", out="never")
    assert (code, (folder / "never").exists(), (tmp_path / "mine.json").read_text()) == (2, False, "{}")


def test_a_kept_threshold_flags_as_the_calibration_did(night, tmp_path):
    folder, _ = night
    asked = ["threshold", "--store", folder / "store", "--score", SCORE, "--out", tmp_path / "t.json"]
    out, err, code = run(*asked, "--fpr", "0.5", "--calibration", folder / "cal.parquet")
    kept = json.loads((tmp_path / "t.json").read_text())
    assert (code, out) == (0, f"{tmp_path / 't.json'}\n")
    assert err == (
        f"{SCORE} from {kept['value']:.4g} up: a false positive rate of 0.5 by 19 null captions on {kept['date']}\n"
    )
    report(folder, "--calibration", folder / "cal.parquet", "--fpr", "0.5", out="decided")
    by_file = ["report", "--store", folder / "store", "--out", folder / "kept", "--threshold", tmp_path / "t.json"]
    assert run(*by_file)[2] == 0
    flags = [pl.read_parquet(folder / name / "scores.parquet")["flagged"] for name in ("decided", "kept")]
    assert flags[0].equals(flags[1])
    lines = [json.loads((folder / name / "summary.json").read_text())["headline"] for name in ("decided", "kept")]
    assert lines[0] == lines[1]
    assert lines[0].startswith(f"{flags[0].sum()} captions flagged, 1.5 expected by chance: ")
    _, err, code = run(*by_file, "--score", "agreement_v1")
    said = f"error: the threshold is of {SCORE}, the report by agreement_v1: choose one for that score\n"
    assert (code, err) == (2, said)
    for wrong, said in (
        (["--fpr", "0.5"], "--fpr without --calibration: null captions tell a rate"),
        (["--calibration", folder / "cal.parquet"], "--calibration without --fpr: needed the rate of false alarms"),
        (["--quantile", "0.5", "--fpr", "0.5", "--calibration", folder / "cal.parquet"], "needed exactly one of"),
        (["--fpr", "0.001", "--calibration", folder / "cal.parquet"], "fpr 0.001 needs smaller: calibrate with 999"),
    ):
        _, err, code = run(*asked, *wrong)
        assert (code, said in err) == (2, True), err


def test_a_base_rate_on_the_command_line(night):
    folder, _ = night
    asked = ["--calibration", folder / "cal.parquet", "--fpr", "0.5", "--json"]
    out, _, code = report(folder, *asked, "--base-rate", "0.01", "--tpr", "0.5")
    assert code == 0
    assert json.loads(out)["headline"].endswith("; about 1 % of them true at a base rate of 0.01")
    assert json.loads(out)["evidence"]["true_share"] == pytest.approx(0.005 / (0.005 + 0.495))
    for wrong, said in (
        ([*asked, "--tpr", "0.5"], "a tpr without a base rate says nothing of the flags"),
        (["--top", "1", "--base-rate", "0.01"], "a base rate says nothing of a ranking"),
        ([*asked, "--base-rate", "1"], "base-rate 1.0: needed more than 0 and less than 1"),
    ):
        _, err, code = report(folder, *wrong)
        assert (code, said in err) == (2, True), err


def test_a_report_notes_the_drift_of_new_captions(tmp_path):
    """Monday's captions are ordinary; of Tuesday's many are of those that the model was trained on."""
    made = ["--model", BUNDLE, "--store", tmp_path / "store", "--limit", "300"]
    labels = pl.read_parquet(LABELS).drop_nulls("label")
    (tmp_path / "data").mkdir()
    for night, label in (("monday", False), ("tuesday", True)):
        text = labels.filter(label=label)["prompt"].sort().head(60)
        (tmp_path / f"data/{night}.txt").write_text("\n".join(text))
        assert run("scan", tmp_path / "data", *made)[2] == 0
        asked = ["report", "--store", tmp_path / "store", "--out", tmp_path / "report", "--top", "5"]
        _, err, code = run(*asked)
        assert code == 0
        assert ("note: drift: the 60 new prompts score otherwise than the earlier night's (medians " in err) is label
    assert "drift: the 60 new prompts score otherwise" in (tmp_path / "report/report.html").read_text()


def test_diff_of_two_nights(night):
    folder, _ = night
    report(folder, "--top", "1", out="mon")
    report(folder, "--top", "2", out="tue")
    out, err, code = run("diff", "--from", folder / "mon", "--to", folder / "tue")
    second = pl.read_parquet(folder / "tue/scores.parquet").row(1, named=True)
    places = [i for i, text in enumerate(DATA) if text == second["text"]]
    more = f" +{len(places) - 1}" if len(places) > 1 else ""
    row = [
        second["prompt_id"],
        *[f"{second[SCORE]:.4f}"] * 2,
        f"{folder / 'data.txt'}:{places[0]}{more}",
        second["text"],
    ]
    header = "change\tprompt_id\tscore_before\tscore_after\tsources\ttext\n"
    assert (code, out) == (0, header + "\t".join(["flagged", *row]) + "\n")
    assert err == (
        "note: the nights flag by different rules, {'top': 1} and {'top': 2}\n"
        "0 new, 1 flagged, 0 unflagged, 0 gone, 0 moved\n"
    )
    found = json.loads(run("diff", "--from", folder / "tue", "--to", folder / "mon", "--json")[0])
    assert [(row["change"], row["rank_before"]) for row in found["changes"]] == [("unflagged", 2)]
    assert [source["row"] for source in found["changes"][0]["sources"]] == places


def test_a_calibration_that_does_not_fit_is_refused(night, tmp_path):
    folder, _ = night
    made = ["--model", BUNDLE, "--store", tmp_path / "store", "--seeds", "1", "--out", tmp_path / "one.parquet"]
    assert run("calibrate", folder / "null.txt", *made)[2] == 0
    one = calibrate.read(tmp_path / "one.parquet", SCORE).scan_id
    mine = read_store(folder / "store").scan_id
    _, err, code = report(folder, "--calibration", tmp_path / "one.parquet", "--fpr", "0.5")
    assert (code, err) == (
        2,
        f"error: the calibration is of scan_id {one}, the scan has {mine}: scores of other models or settings do not "
        "compare; calibrate with the --model and settings of the scan\n",
    )
    with pytest.raises(calibrate.ScannerError, match="no null caption has agreement_v1"):
        calibrate.read(tmp_path / "one.parquet", "agreement_v1")


def test_an_engine_that_changed_is_refused(night, tmp_path):
    folder, _ = night
    good = calibrate.read(folder / "cal.parquet", SCORE)
    changed = good.canaries.with_columns(pl.col(SCORE) * 1.5)
    scores = good.prompts.with_columns(status=pl.lit("scored"))
    calibrate.write(tmp_path / "cal.parquet", good.scan_id, scores, [SCORE], changed, good.source)
    _, err, code = report(folder, "--calibration", tmp_path / "cal.parquet", "--fpr", "0.5")
    assert code == 4
    assert err.startswith(f"error: the engine changed: {SCORE} of a canary prompt differs by ")
    assert err.endswith("are of the old engine: scan and calibrate into a new --store\n")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--fdr", "0.05"], 2, "error: fdr and fpr need a calibration: make one with `overscan calibrate`"),
        (["--calibration", "{cal}", "--fpr", "1e-3"], 2, "fpr 0.001 needs smaller: calibrate with 999 or more"),
        (["--calibration", "{cal}", "--fdr", "0.01"], 2, "so fdr 0.01 can never flag: calibrate with 99 or more"),
        (["--calibration", "{cal}", "--fdr", "0.1", "--top", "1"], 2, "needed exactly one of top, quantile, threshold"),
        (["--calibration", "none.parquet"], 2, "error: none.parquet: no such file; `overscan calibrate NULL_INPUT..."),
        (["--baseline", "none.json"], 2, "error: none.json: no such file; `overscan report ... --write-baseline"),
        (["--allow", "none.csv"], 2, "error: none.csv: cannot be read"),
        (["--fail-on", "sometimes"], 2, "error: fail-on 'sometimes': needed new, any, or a number from 1 up"),
        (["--write-baseline", "/proc/none/b.json"], 4, "error: [Errno 2] No such file or directory"),
    ],
)
def test_wrong_requests_are_never_a_violated_policy(night, arguments, code, message):
    folder, _ = night
    arguments = [item.format(cal=folder / "cal.parquet") for item in arguments]
    _, err, found = report(folder, *arguments, out="refused")
    assert (found, message in err) == (code, True), err


def test_a_crash_is_never_a_violated_policy(monkeypatch, capsys):
    def crash(**_):
        raise RuntimeError("boom")

    monkeypatch.setattr(cli.commands["diff"], "callback", crash)
    _, err, code = run("diff", "--from", "a", "--to", "b")
    assert code == 4
    assert "RuntimeError: boom" in err
    assert err.splitlines()[-1].startswith("error: a bug in overscan, or a broken installation")


def test_a_closed_pipe_is_never_a_violated_policy(night):
    folder, _ = night
    report(folder, "--top", "2", out="piped")
    command = [sys.executable, "-c", "from scanner.cli import main; main()", "diff", "--from", "piped", "--to", "piped"]
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write) as closed:
        assert subprocess.run(command, cwd=folder, stdout=closed, stderr=subprocess.DEVNULL).returncode == 4


def test_the_documented_commands_run(tmp_path, monkeypatch):
    (commands,) = re.findall(r"```sh\n(.*?)```", DOCS, re.DOTALL)
    (allow,) = re.findall(r"```csv\n(.*?)```", DOCS, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bundle").symlink_to(BUNDLE)
    (tmp_path / "allow.csv").write_text(allow)
    (tmp_path / "benign.txt").write_text("\n".join(NULL))
    pl.DataFrame({"caption": DATA}).write_parquet("captions.parquet")
    assert [run(*shlex.split(line)[1:])[2] for line in commands.splitlines()] == [0] * 6


def test_the_documentation_names_only_options_that_exist():
    known = {option for command in cli.commands.values() for p in command.params for option in p.opts}
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", DOCS)) <= known


@pytest.mark.parametrize(("share", "n"), re.findall(r"\| ([\d.]+) % \| ([\d,]+) \|", DOCS))
def test_the_documented_numbers_of_null_captions(share, n):
    hits = round(10**6 * float(share) / 100)
    assert f"{calibrate.null_needed(10**6, hits, 0.05):,}" == n
