"""Which prompts of a report get a closer look, and under which score and threshold."""

import json
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
import reports

from scanner.audit.decision import Night
from scanner.audit.rank import Rule
from scanner.audit.summary import Judgement, as_json, of_json
from scanner.config import Base, MadeWith, Reference, ScanConfig
from scanner.errors import ScannerError
from scanner.evidence.chosen import check_model, choose, limit
from scanner.identity import prompt_id

TEXTS = ["second", "first", "third", "not scored"]
IDS = [prompt_id(text) for text in TEXTS]
SUMMARY = replace(reports.SUMMARY, rule=Rule("agreement_v1", top=2), lowest_flagged=1.25)
JUDGED = Judgement({}, 9, 0.1, 0, 0.0, ())


@pytest.fixture
def night():
    ranked = pl.DataFrame({"rank": [2, 1, 3, None], "prompt_id": IDS, "text": TEXTS})
    return Night(ranked.lazy(), ranked.head(0), SUMMARY)


def test_the_highest_by_rank(night):
    assert choose(night, [], 2) == ["first", "second"]
    assert choose(night, [], 9) == ["first", "second", "third"]


@pytest.mark.parametrize(
    "ids", [[IDS[2][:8], IDS[0]], [f"{IDS[2][:8]},{IDS[0]}"], [f" {IDS[2]}, {IDS[0][:12]} ", IDS[2][:9]]]
)
def test_ids_are_repeated_or_separated_by_commas(night, ids):
    assert choose(night, ids, 1) == ["third", "second"]


@pytest.mark.parametrize("ids", ["ffffffff", IDS[0][:7], IDS[3], "", f"{IDS[0]},"])
def test_ids_that_name_no_scored_prompt(night, ids):
    with pytest.raises(ScannerError, match="scored prompts of the report begin so; needed 8 or more first characters"):
        choose(night, [ids], 1)


@pytest.mark.parametrize("text", ["… [0123abcd]", "second of … [0123abcd]", "second "])
def test_a_text_that_is_not_its_ids_is_redacted(night, text):
    redacted = Night(night.ranked.with_columns(text=pl.lit(text)), night.flagged, SUMMARY)
    with pytest.raises(ScannerError, match="the report is redacted"):
        choose(redacted, [], 1)


def test_a_ranking_of_nothing_chooses_nothing(night):
    assert choose(Night(night.ranked.tail(1), night.flagged, SUMMARY), [], 3) == []


def test_score_and_threshold_are_the_reports_or_those_asked():
    assert limit(SUMMARY, None, None) == ("agreement_v1", 1.25)
    ruled = replace(SUMMARY, rule=Rule("agreement_v1", threshold=1.5))
    assert limit(ruled, None, None) == ("agreement_v1", 1.5)
    calibrated = replace(SUMMARY, rule=Rule("agreement_v1", fpr=0.1), calibration=replace(JUDGED, threshold=1.7))
    assert limit(calibrated, None, None) == ("agreement_v1", 1.7)
    assert limit(SUMMARY, "estimate_ratio_v1", 0.5) == ("estimate_ratio_v1", 0.5)
    with pytest.raises(ScannerError, match="not by estimate_ratio_v1: name a --threshold for that"):
        limit(SUMMARY, "estimate_ratio_v1", None)
    with pytest.raises(ScannerError, match="flags nothing, so it has no threshold"):
        limit(replace(SUMMARY, rule=Rule("agreement_v1", fdr=0.05), lowest_flagged=None), None, None)


@pytest.mark.parametrize("base", [None, Base("/base", "b")])
@pytest.mark.parametrize("reference", [None, Reference("r.txt", "f")])
def test_the_model_is_the_reports_in_whatever_settings(reference, base):
    config = ScanConfig(seeds=(0, 1, 2), first_steps=2)
    compared = [None if item is None else item.fingerprint for item in (reference, base)]
    scan_id = config.scan_id("ours", "openvino", "bfloat16", *compared)
    made = MadeWith("/bundle", "openvino", "bfloat16", config, reference, base)
    summary = of_json(json.loads(json.dumps(as_json(replace(SUMMARY, made_with=made, full_scan_id=scan_id)))))
    check_model(summary, Path("elsewhere"), "ours")
    with pytest.raises(ScannerError, match=r"^other: not the model of the report, which is of /bundle: .* --model"):
        check_model(summary, Path("other"), "another")
    with pytest.raises(ScannerError, match="does not say of which model: report again"):
        check_model(replace(summary, made_with=None), Path("elsewhere"), "ours")
