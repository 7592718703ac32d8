"""What the first edition wrote is read by today's overscan, which goes on from there and computes nothing twice."""

import json
import shutil
from dataclasses import asdict, replace
from datetime import date
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from small import BUNDLE
from test_cli import run

from scanner import Rule, ScanConfig, read_store, scan
from scanner.audit import calibrate
from scanner.audit.baseline import read_baseline
from scanner.audit.choice import possible
from scanner.audit.decision import decide
from scanner.audit.diff import count, diff
from scanner.config import MadeWith, Reference, Screen
from scanner.diffusion.scores import SCORES, Score
from scanner.identity import captions_fingerprint
from scanner.report.read import read_night, read_summary
from scanner.store.ledger import Ledger
from scanner.store.status import status

HERE = Path(__file__).parent / "first_edition"
SCAN_ID, SCREENED = "c9be5ff3b85d7f721e0ab84cfef1e915", "2401a1b54a704b5b568da5efc31fa169"
SCORE = "estimate_ratio_white_v1"
YOUNGER = {name for name, score in SCORES.items() if score.told or score.needs == "base"}  # its scan can have none


@pytest.fixture
def old(tmp_path):
    """The first edition's folder, where its records say that it is."""
    folder = tmp_path / "old"
    shutil.copytree(HERE, folder)
    path = pl.col("record").str.replace_all("/first-edition/bundle", str(BUNDLE), literal=True)
    path = path.str.replace_all("/first-edition", str(folder), literal=True)
    for store in ("store", "screened"):
        runs = str(folder / store / "runs")
        pl.read_delta(runs).with_columns(record=path).write_delta(runs, mode="overwrite")
    return folder


def scan_on(old, **asked):
    given = {"model": BUNDLE, "store": old / "store", "reference": old / "reference.txt", "backend": "cpu"}
    given |= {"config": ScanConfig(timesteps=())}  # its only default
    return scan(old / "captions.csv", **given | asked)


def test_a_scan_goes_on_and_computes_nothing_twice(old):
    before = pl.read_delta(str(old / "store/scores"))
    result = scan_on(old)
    assert (result.scan_id, result.unique, result.already_scored, result.scored) == (SCAN_ID, 7, 7, 0)
    with (old / "captions.csv").open("a") as file:
        file.write("a caption of today,i\n")
    result = scan_on(old)
    assert (result.scan_id, result.already_scored, result.scored) == (SCAN_ID, 7, 1)
    after = pl.read_delta(str(old / "store/scores"))
    assert len(after) == len(before) + 1
    kept = after.join(before, on=["scan_id", "prompt_id"], how="semi").sort("prompt_id")
    assert kept.select(before.columns).equals(before.sort("prompt_id"))
    assert set(after.columns) - set(before.columns) == {"sketch_v1", "q1_low", "q2_low", "q3_low", *YOUNGER}
    assert after["sketch_v1"].count() == 1  # today's
    assert {run.record.version: run.record.purpose for run in Ledger(old / "store").runs()} == {2: "scan", 1: "scan"}


def test_a_screened_scan_keeps_its_threshold(old):
    result = scan_on(old, store=old / "screened", reference=None, screen=Screen(0.5))
    assert (result.scan_id, result.already_scored, result.scored) == (SCREENED, 7, 0)
    assert asdict(result.screening) == {
        "full_scan_id": "e1d464025fca874423142ef671381865",
        "first_scan_id": "f7e38495ccd26a67a967b0defd0792da",
        "model": str(BUNDLE),
        "score": "overestimation_prior_v1",
        "share": 0.5,
        "threshold": pytest.approx(1.2391681671142578),
        "refined": 3,
        "screened_out": 3,
        "passes_per_prompt": 2.0,
        "passes": 1,
        "sample": 0.0,
        "wanted": None,
        "why": "",
    }


def test_its_record_and_its_status(old):
    scan_id, record = Ledger(old / "store").last_run()
    reference = (old / "reference.txt").read_text().splitlines()
    named = Reference(str(old / "reference.txt"), captions_fingerprint(reference))
    assert (scan_id, record.version, record.purpose) == (SCAN_ID, 1, "scan")
    assert record.made_with == MadeWith(str(BUNDLE), "cpu", "float32", ScanConfig(timesteps=(), prior_noises=64), named)
    assert len(record.canaries) == 8
    (held,) = status(Ledger(old / "store"), possible).scans
    assert (held.rows, held.runs, held.lacks) == ({"null": 1, "scored": 10}, 2, ())
    before = sorted((old / "store").rglob("*"))
    out, _, code = run("status", "--store", old / "store", "--json")
    assert (code, json.loads(out)["scans"][0]["reference"]) == (0, asdict(named))
    assert sorted((old / "store").rglob("*")) == before, "who only looks changes nothing"


def test_its_report_is_made_again_and_nothing_changed(old):
    asked = ["--calibration", old / "calibration.parquet", "--fpr", "0.4", "--baseline", old / "baseline.json"]
    out, err, code = run("report", "--store", old / "store", "--out", old / "again", *asked, "--json")
    assert code == 0, err
    before, after = read_night(old / "report"), read_night(old / "again")
    assert count(diff(before, after)) == "0 new, 0 flagged, 0 unflagged, 0 gone, 0 moved"
    assert before.summary.full_scan_id == after.summary.full_scan_id == SCAN_ID
    assert before.summary.calibration == after.summary.calibration
    assert (before.summary.version, after.summary.version) == (1, 2)
    assert (before.summary.findings.new, after.summary.findings.known) == (5, 5)
    summary, old_summary = json.loads(out), json.loads((old / "report/summary.json").read_text())
    assert old_summary.keys() - summary.keys() == set(), "keys are added, none is taken away"
    assert old_summary["calibration"].keys() - summary["calibration"].keys() == set()
    assert read_summary(old / "report-screened").scan_id == SCREENED
    assert read_night(old / "report-screened").ranked.collect()["flagged"].sum() == 2


def test_its_calibration_and_baseline_are_read(old):
    made = calibrate.read(old / "calibration.parquet", SCORE)
    assert (made.scan_id, len(made.null), made.source["captions"]) == (SCAN_ID, 4, 4)
    assert made.threshold(0.4) == pytest.approx(1.0006210803985596)
    baseline = read_baseline(old / "baseline.json")
    assert (baseline.scan_id, baseline.score, len(baseline.prompt_ids)) == (SCAN_ID, SCORE, 5)


def test_a_score_of_today_joins_the_rows_of_then(old, monkeypatch):
    """An old store with a new score: nothing is refused or computed again, and every lack of the score is told."""
    norm = SCORES["text_noise_norm_v1"]
    monkeypatch.setitem(SCORES, "fresh_v1", Score(lambda trace: np.float32(2) * norm.compute(trace)))
    (held,) = status(Ledger(old / "store"), possible).scans
    assert held.lacks == ("fresh_v1",)
    assert "fresh_v1: younger than its rows" in run("status", "--store", old / "store")[0]
    asked = ["report", "--store", old / "store", "--out", old / "fresh", "--top", "1"]
    _, err, code = run(*asked, "--score", "agreement_v1")
    assert code == 0, err
    with pytest.raises(calibrate.ScannerError, match="score 'fresh_v1' is not in the store; it has text_noise_norm_v1"):
        decide(read_store(old / "store"), Rule("fresh_v1", top=1), date(2030, 1, 1))
    scan_on(old)
    with pytest.raises(calibrate.ScannerError, match="no prompt has fresh_v1: scan with what it needs"):
        decide(read_store(old / "store"), Rule("fresh_v1", top=1), date(2030, 1, 1))
    with (old / "captions.csv").open("a") as file:
        file.write("a caption of today,i\n")
    assert scan_on(old).scored == 1
    assert status(Ledger(old / "store"), possible).scans[0].lacks == ()
    night = decide(read_store(old / "store"), Rule("fresh_v1", top=1), date(2030, 1, 1))
    assert night.prompts["text"].to_list() == ["a caption of today"]
    assert night.summary.notes[0].startswith("6 scored prompts have no fresh_v1 and are never flagged by it: ")
    scored = night.ranked.filter(pl.col("fresh_v1").is_not_null()).collect()
    assert (scored["fresh_v1"] == 2 * scored["text_noise_norm_v1"]).all()


def test_a_calibration_of_a_score_of_today_holds_for_a_scan_begun_before(old, monkeypatch):
    """Runs that did not know the score have no canaries of it: those that did are compared."""
    norm = SCORES["text_noise_norm_v1"]
    monkeypatch.setitem(SCORES, "fresh_v1", Score(lambda trace: np.float32(2) * norm.compute(trace)))
    with (old / "captions.csv").open("a") as file:
        file.write("a caption of today,i\n")
    scan_on(old)
    stored = read_store(old / "store")
    assert (len(stored.canaries("fresh_v1")), len(stored.canaries("agreement_v1"))) == (2, 18)
    null = stored.scores.filter(pl.col("fresh_v1").is_not_null())
    made = calibrate.Calibration.of(SCAN_ID, "fresh_v1", null, stored.canaries("fresh_v1"), {})
    judged = decide(stored, Rule("fresh_v1", fpr=0.5), date(2030, 1, 1), calibration=replace(made))
    assert judged.summary.calibration.canary_difference == 0
