"""A summary survives its file, whichever version of overscan wrote it."""

import json
from dataclasses import replace
from datetime import date

import pytest

from scanner.audit.rank import Rule
from scanner.audit.summary import Findings, Judgement, Summary, as_json, of_json
from scanner.config import MadeWith, Reference, ScanConfig
from scanner.errors import ScannerError

JUDGED = Judgement({"inputs": ["null.txt"]}, 199, 0.005, 3, 0.0, ({"check": "bulk", "distance": 0.1},), least_hits=10)
MADE = MadeWith("/bundle", "cpu", "float32", ScanConfig(seeds=(0, 1, 2)), Reference("ordinary.txt", "f" * 32))
RULE = Rule("s_v1", fdr=0.1)
SUMMARY = Summary(
    date(2030, 1, 2), "scan", "full", MADE, RULE, 9, 8, 3, 4, Findings(2, 1, 0), 0.5, JUDGED, ("a", "b")
)  # fmt: skip


def file_of(summary):
    return json.loads(json.dumps(as_json(summary)))


@pytest.mark.parametrize(
    "summary",
    [SUMMARY, replace(SUMMARY, calibration=None, made_with=None, rule=Rule("s_v1", top=3), lowest_flagged=None)],
)
def test_a_summary_reads_back_as_it_was_written(summary):
    assert of_json(file_of(summary)) == summary
    assert file_of(summary)["kind"] == ("decision" if summary.rule.decides else "ranking")


def test_what_an_older_overscan_did_not_write_has_a_meaning():
    old = {name: value for name, value in file_of(SUMMARY).items() if name not in ("version", "full_scan_id", "scan")}
    old["calibration"].pop("threshold")
    read = of_json(old)
    assert (read.version, read.full_scan_id, read.made_with) == (1, "scan", None)
    assert read.calibration == JUDGED


def test_another_format_is_refused_and_keys_that_nobody_knows_are_passed_over():
    with pytest.raises(
        ScannerError, match="report format 'overscan report 2', this overscan reads 'overscan report 1'"
    ):
        of_json(file_of(SUMMARY) | {"format": "overscan report 2"})
    assert of_json(file_of(SUMMARY) | {"mood": "good"}) == SUMMARY


@pytest.mark.parametrize(
    ("rule", "calibrated", "lowest", "threshold"),
    [
        (Rule("s_v1", threshold=0.4), None, 0.5, 0.4),
        (Rule("s_v1", fpr=0.01), 0.45, 0.5, 0.45),
        (Rule("s_v1", fdr=0.1), None, 0.5, 0.5),
        (Rule("s_v1", top=3), None, None, None),
    ],
)
def test_the_threshold_is_the_rules_or_the_calibrations_or_the_lowest_flagged_score(
    rule, calibrated, lowest, threshold
):
    judged = replace(JUDGED, threshold=calibrated)
    assert replace(SUMMARY, rule=rule, calibration=judged, lowest_flagged=lowest).threshold == threshold
