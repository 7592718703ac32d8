"""Which prompts of a report get a closer look, and under which score and threshold."""

import json
from dataclasses import asdict
from pathlib import Path

import polars as pl
import pytest

from scanner.audit.decision import Night
from scanner.config import ScanConfig
from scanner.errors import ScannerError
from scanner.evidence.chosen import check_model, choose, limit
from scanner.identity import prompt_id

TEXTS = ["second", "first", "third", "not scored"]
IDS = [prompt_id(text) for text in TEXTS]
SUMMARY = {"score": "agreement_v1", "rule": {"top": 2}, "calibration": None, "lowest_flagged": 1.25}


@pytest.fixture
def night():
    ranked = pl.DataFrame({"rank": [2, 1, 3, None], "prompt_id": IDS, "text": TEXTS})
    return Night(ranked, ranked.head(0), SUMMARY)


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
    assert limit({**SUMMARY, "rule": {"threshold": 1.5}}, None, None) == ("agreement_v1", 1.5)
    assert limit({**SUMMARY, "calibration": {"threshold": 1.7}}, None, None) == ("agreement_v1", 1.7)
    assert limit(SUMMARY, "estimate_ratio_v1", 0.5) == ("estimate_ratio_v1", 0.5)
    with pytest.raises(ScannerError, match="not by estimate_ratio_v1: name a --threshold for that"):
        limit(SUMMARY, "estimate_ratio_v1", None)
    with pytest.raises(ScannerError, match="flags nothing, so it has no threshold"):
        limit({**SUMMARY, "rule": {"fdr": 0.05}, "lowest_flagged": None}, None, None)


@pytest.mark.parametrize(("reference", "fingerprint"), [(None, None), ({"path": "r.txt", "fingerprint": "f"}, "f")])
def test_the_model_is_the_reports_in_whatever_settings(reference, fingerprint):
    config = ScanConfig(seeds=(0, 1, 2), first_steps=2)
    scan = {"model": "/bundle", "backend": "openvino", "precision": "bfloat16", "config": asdict(config)}
    scan_id = config.scan_id("ours", "openvino", "bfloat16", fingerprint)
    summary = json.loads(json.dumps({"scan": scan | {"reference": reference}, "full_scan_id": scan_id}))
    check_model(summary, Path("elsewhere"), "ours")
    with pytest.raises(ScannerError, match=r"^other: not the model of the report, which is of /bundle: .* --model"):
        check_model(summary, Path("other"), "another")
    with pytest.raises(ScannerError, match="does not say of which model: report again"):
        check_model({"full_scan_id": scan_id}, Path("elsewhere"), "ours")
