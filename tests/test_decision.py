import re
from dataclasses import replace
from datetime import UTC, date, datetime

import numpy as np
import polars as pl
import pytest
from reports import stored_scan

from scanner.audit.calibrate import Calibration
from scanner.audit.decision import Night, decide, detectable
from scanner.audit.policy import Baseline
from scanner.audit.rank import Rule
from scanner.audit.summary import Findings, as_json
from scanner.errors import ScannerError
from scanner.report import contents_of, write
from scanner.report.read import history

TODAY = date(2030, 1, 1)
CANARIES = pl.DataFrame({"canary": ["a dog"], "s_v1": [0.5]}, schema_overrides={"s_v1": pl.Float32})


def prompts(scores, first=0):
    ids = [f"{first + i:032x}" for i in range(len(scores))]
    frame = pl.DataFrame({"prompt_id": ids, "text": ids, "n_rows": [2] * len(ids), "status": ["scored"] * len(ids)})
    return frame.with_columns(pl.Series("s_v1", scores, pl.Float32))


def night(scores, rule, **options):
    rows = pl.LazyFrame({"file": ["x"] * 2 * len(scores), "row": range(2 * len(scores)), "text": [*scores["text"]] * 2})
    return decide(stored_scan(scores, rows, [("a dog", 0.5)]), rule, TODAY, **options)


def calibration(n=199, scan_id="scan", first=10**6):
    return Calibration.of(scan_id, "s_v1", prompts(np.linspace(-1, 1, n), first), CANARIES, {"inputs": ["null.txt"]})


def test_a_ranking_has_no_p_values_and_says_so():
    found = night(prompts([0.1, 0.9, 0.5]), Rule("s_v1", top=1))
    assert as_json(found.summary) == {
        "format": "overscan report 1",
        "version": 2,
        "date": "2030-01-01",
        "scan_id": "scan",
        "full_scan_id": "scan",
        "scan": {
            "model": "m",
            "backend": "cpu",
            "precision": "float32",
            "config": {
                "guidance_scale": 7.5,
                "num_inference_steps": 50,
                "first_steps": 1,
                "seeds": (0, 1),
                "timesteps": None,
                "prior_noises": None,
            },
            "reference": None,
            "base": None,
        },
        "score": "s_v1",
        "rule": {"top": 1},
        "kind": "ranking",
        "prompts": 3,
        "scored": 3,
        "flagged": 1,
        "flagged_rows": 2,
        "findings": {"new": 1, "known": 0, "allowed": 0},
        "lowest_flagged": pytest.approx(0.9),
        "calibration": None,
        "kept": None,
        "evidence": None,
        "headline": "The 1 that stands out most, to be checked (33.3 % of 3 scored)",
        "notes": [],
    }
    assert found.flagged.select("rank", "row", "finding").rows() == [(1, 1, "new"), (1, 4, "new")]
    assert "p_value" not in found.prompts.columns


def test_a_decision_says_what_it_rests_on():
    data = prompts([*np.linspace(-1, 1, 190), *[5.0] * 10])
    found = night(data, Rule("s_v1", fdr=0.1), calibration=calibration())
    assert found.summary.flagged == 10
    judged = found.summary.calibration
    assert (judged.n, judged.smallest_p, judged.above_null, judged.least_hits) == (199, 0.005, 10, 10)
    assert [check["check"] for check in judged.exchangeability] == ["bulk", "length"]
    assert found.summary.notes == (
        "199 null captions: p-values from 0.005 up; at fdr 0.1 they flag 10 or more of 200 prompts, or none "
        "(a single one could be found with 1,999)",
        "were all 200 prompts benign, as small a q-value would come by chance in 10 % of such datasets: no evidence",
    )
    assert detectable(1999, 200, 1, 0.1) == (
        "1,999 null captions: p-values from 0.0005 up; at fdr 0.1 a single one of 200 prompts can be found"
    )


def test_hits_that_this_null_cannot_tell_from_chance_are_said():
    data = prompts([*np.linspace(-1, 1, 197), *[5.0] * 3])
    found = night(data, Rule("s_v1", fdr=0.1), calibration=calibration())
    assert found.summary.flagged == 0
    assert found.summary.lowest_flagged is None
    assert found.summary.notes[-1] == (
        "3 prompts score above every null caption, too few for this null: see the line above, or use --fpr"
    )
    found = night(data, Rule("s_v1", fpr=0.01), calibration=calibration())
    assert found.summary.flagged == 4
    assert found.summary.calibration.expected_false_alarms == pytest.approx(2)  # of 200


def test_the_lowest_flagged_score_is_what_it_took():
    assert night(prompts([0.1, 0.9, 0.5]), Rule("s_v1", top=2)).summary.lowest_flagged == pytest.approx(0.5)


def test_a_night_is_compared_where_a_list_tells_findings_apart():
    data, rule = prompts([0.1, 0.9]), Rule("s_v1", top=1)
    nobody = pl.DataFrame(schema={"prompt_id": pl.String, "reason": pl.String, "expires": pl.Date})
    assert not night(data, rule).compared
    assert night(data, rule, baseline=Baseline((), "scan", "s_v1", "2029-12-31")).compared
    assert night(data, rule, allow=nobody).compared
    assert not Night(data, data, night(data, rule).summary).compared  # as one is read back


def test_screened_out_prompts_are_counted():
    data = prompts([0.9, 0.8, None, None, None])
    data = data.with_columns(status=pl.Series(["scored"] * 2 + ["screened_out"] * 3))
    (note,) = night(data, Rule("s_v1", top=1)).summary.notes
    assert note.startswith("screened: 3 prompts were found ordinary by a first pass")


def test_what_a_reader_must_know_is_noted():
    data = prompts([*np.linspace(-1, 1, 100)]).with_columns(
        status=pl.when(pl.col("s_v1") < -0.97).then(None).otherwise(pl.col("status"))
    )
    data = data.with_columns(pl.when(pl.col("status").is_not_null()).then(pl.col("s_v1")))
    baseline = Baseline((), "other", "s_v1", "2029-12-31")
    null = calibration(first=90)  # ten captions of the data are in it
    found = night(data, Rule("s_v1", fpr=0.01), calibration=null, baseline=baseline)
    assert found.summary.scored == 98
    assert found.summary.notes == (
        "the baseline of 2029-12-31 was written for another model, setting or score",
        "2 prompts of the inputs are newer than the scan and have no score: scan again",
        "10 prompts of the dataset are null captions themselves, taken to be benign",
        "of 98 prompts up to 0.98 would be flagged at fpr 0.01 were all of them benign, and 1 is; as many or more come "
        "by chance in 55.2 % of such datasets: no evidence",
    )


def test_a_calibration_of_another_scan_is_refused():
    with pytest.raises(
        ScannerError, match=r"the calibration is of scan_id other, the scan has scan: .* do not compare"
    ):
        night(prompts([1.0]), Rule("s_v1", fdr=0.1), calibration=calibration(scan_id="other"))


def test_scored_prompts_without_the_score_are_told():
    """A score that is younger than some of a scan's rows: they are not flagged by it, and never silently."""
    data = prompts([0.1, 0.9, 0.5]).with_columns(s_v1=pl.Series([None, 0.9, 0.5], dtype=pl.Float32))
    found = night(data, Rule("s_v1", quantile=0.0))
    assert found.summary.notes == (
        "1 scored prompts have no s_v1 and are never flagged by it: an overscan scored them that did not know it, or "
        "it is undefined for them; scan into a new --store to have it for all",
    )
    assert (found.summary.scored, found.summary.flagged) == (2, 2)


def test_history_holds_the_nights_that_decided_alike(tmp_path):
    decided = night(prompts([0.1, 0.9, 0.5]), Rule("s_v1", threshold=0.4))
    tonight, page = decided.summary, contents_of(decided, {}, datetime(2030, 1, 1, tzinfo=UTC))
    for name, changes in {
        "a": {"date": date(2029, 12, 30), "flagged": 7, "findings": Findings(new=5, known=2)},
        "b": {"date": date(2029, 12, 29), "flagged": 4, "findings": Findings(new=4)},
        "other rule": {"date": date(2029, 12, 31), "rule": Rule("s_v1", top=1)},
        "tonight, written before": {"flagged": 9},
        "a later one": {"date": date(2030, 1, 2)},
    }.items():
        write(tmp_path / name, page, replace(tonight, **changes))
    assert history(tmp_path, tonight).rows() == [
        (date(2029, 12, 29), 4, 4),
        (date(2029, 12, 30), 7, 5),
        (date(2030, 1, 1), 2, 2),
    ]
    assert history(tmp_path / "none yet", tonight)["n_flagged"].to_list() == [2]
    (tmp_path / "a" / "summary.json").write_text("{")
    with pytest.raises(ScannerError, match="a: not a whole report"):
        history(tmp_path, tonight)


def test_what_a_night_adds_to_its_prompts_holds_none_of_them_back(tmp_path):
    """An expression that Polars cannot stream is computed beside the others, which all wait for it in memory."""
    prompts([0.1, 0.9, 0.5]).write_parquet(tmp_path / "prompts.parquet")
    stored = stored_scan(None, pl.LazyFrame({"file": ["x"], "row": [0], "text": ["y"]}))
    stored = replace(stored, work=tmp_path)
    vars(stored)["prompts"] = pl.scan_parquet(tmp_path / "prompts.parquet")
    baseline = Baseline((f"{1:032x}",), "scan", "s_v1", "2029-12-31")
    ranked = decide(stored, Rule("s_v1", top=2), TODAY, baseline=baseline).ranked
    plan = ranked.show_graph(engine="streaming", plan_stage="physical", raw_output=True)
    assert plan is not None
    assert "multi-scan[parquet]" in plan
    assert not re.findall(r"multiplexer|columnar-function|in-memory-map", plan)
