"""The one line that a night is opened with, and its sentences: no more than the rule and the numbers can say."""

import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from decisions import data, night, null
from reports import SUMMARY
from rich.console import Console

from scanner.audit.evidence import Prior
from scanner.audit.headline import amount, headline, of_the_evidence, percent
from scanner.audit.kept import Kept
from scanner.audit.rank import Rule
from scanner.audit.summary import Evidence, as_json, of_json
from scanner.report import contents_of, table, write
from scanner.report.wording import RANKING, RATED, of_the_numbers


@pytest.mark.parametrize(
    ("m", "limit", "said"),
    [
        (1000, {"top": 10}, "The 10 that stand out most, to be checked (1 % of 1,000 scored)"),
        (1000, {"top": 1}, "The 1 that stands out most, to be checked (0.1 % of 1,000 scored)"),
        (3, {"top": 1}, "The 1 that stands out most, to be checked (33.3 % of 3 scored)"),
        (1000, {"quantile": 0.99}, "The 10 that stand out most, to be checked (1 % of 1,000 scored)"),
        (1000, {"top": 300}, "The 300 that rank highest, to be checked (30 % of 1,000 scored): too many to stand out"),
        (2454, {"top": 2200}, "2,200 of 2,454 captions (89.6 %): most of the dataset, which cannot all stand out"),
        (1000, {"threshold": 1.5}, "3 captions from the threshold 1.5 up, to be checked (0.3 % of 1,000 scored)"),
        (1000, {"threshold": 2.5}, "No caption reaches the threshold 2.5"),
        (1000, {"threshold": 0}, "1,000 of 1,000 captions (100 %): most of the dataset, which cannot all stand out"),
    ],
)
def test_a_ranking_is_said_to_be_one(m, limit, said):
    found = night(data(m, 3), Rule("s_v1", **limit)).summary
    assert (found.headline, found.evidence, found.notes) == (said, None, ())


def fpr_night(m, high, fpr=0.01, **options):
    return night(data(m, high), Rule("s_v1", fpr=fpr), calibration=null(), **options).summary


def test_fewer_flags_than_chance_makes_are_no_evidence():
    found = fpr_night(2500, 22)
    assert found.headline == "22 captions flagged, 25 expected by chance: no evidence of memorization"
    assert found.notes[-1] == (
        "of 2,500 prompts up to 25 would be flagged at fpr 0.01 were all of them benign, and 22 are; as many or more "
        "come by chance in 61.2 % of such datasets: no evidence"
    )
    assert (found.evidence.rate, found.evidence.expected) == (0.01, 25)


def test_more_flags_than_chance_explains_are_evidence():
    found = fpr_night(2500, 60)
    assert found.headline == "60 captions flagged, 25 expected by chance: more than chance explains, to be checked"
    assert found.notes[-1] == (
        "of 2,500 prompts up to 25 would be flagged at fpr 0.01 were all of them benign, and 60 are; as many or more "
        "come by chance in 0.175 % of such datasets: evidence"
    )
    assert fpr_night(2500, 0).headline == "No caption flagged, 25 expected by chance"
    assert fpr_night(2500, 35).headline == "35 captions flagged, 25 expected by chance: no evidence of memorization"
    assert fpr_night(100, 1, 0.001).headline == (
        "1 caption flagged, 0.1 expected by chance: no evidence of memorization"
    )
    assert fpr_night(40, 1, 0.001).headline.endswith("1 caption flagged, 0.04 expected by chance: more than chance "
                                                      "explains, to be checked")  # fmt: skip


def test_a_false_discovery_rate_says_how_many_are_expected_to_be_false():
    found = night(data(1000, 40), Rule("s_v1", fdr=0.05), calibration=null()).summary
    assert found.headline == "40 captions flagged, up to 2 of them expected to be false alarms"
    assert found.notes[-1] == (
        "were all 1,000 prompts benign, as small a q-value would come by chance in 2.5 % of such datasets: evidence"
    )
    found = night(data(1000, 4), Rule("s_v1", fdr=0.5), calibration=null()).summary
    assert found.headline == (
        "4 captions flagged, up to 2 of them expected to be false alarms: no evidence beyond chance"
    )
    assert found.notes[-1].endswith("would come by chance in 25 % of such datasets: no evidence")
    none = night(data(1000, 1), Rule("s_v1", fdr=0.05), calibration=null()).summary
    assert none.headline == "No caption is flagged at a false discovery rate of 0.05"


def test_a_ranking_with_a_calibration_stays_a_ranking():
    found = night(data(1000, 4), Rule("s_v1", top=100), calibration=null()).summary
    assert found.headline == "The 100 that stand out most, to be checked (10 % of 1,000 scored)"
    assert found.notes[-1] == (
        "of 1,000 prompts 548 would score as high as the lowest flagged one were all of them benign"
    )


def test_a_base_rate_says_how_many_flags_are_true():
    """At 3 memorized in 10,000, a rule that finds 95 % of them at 1 % false positives is right in 3 % of its flags."""
    assert Prior(0.0003, 0.95).true_share(0.01) == pytest.approx(0.000285 / (0.000285 + 0.009997))
    found = fpr_night(2500, 60, prior=Prior(0.0003, 0.95))
    assert found.headline == (
        "60 captions flagged, 25 expected by chance: more than chance explains, to be checked; about 2.77 % of them "
        "true at a base rate of 0.0003"
    )
    assert found.notes[-1] == (
        "at a base rate of 0.0003, a false positive rate of 0.01 and a true positive rate of 0.95 about 2.77 % of the "
        "flags are true"
    )
    found = fpr_night(2500, 22, prior=Prior(0.0003))
    assert found.headline == (
        "22 captions flagged, 25 expected by chance: no evidence of memorization; at most 2.91 % of them true at a "
        "base rate of 0.0003"
    )
    assert found.notes[-1] == (
        "at a base rate of 0.0003 and a false positive rate of 0.01 at most 2.91 % of the flags are true: as if the "
        "rule found all that is memorized, which no score does (--tpr says how much it finds)"
    )
    assert fpr_night(2500, 0, prior=Prior(0.0003)).headline == "No caption flagged, 25 expected by chance"


def test_the_same_line_stands_everywhere(tmp_path):
    found = night(data(2500, 22), Rule("s_v1", fpr=0.01), calibration=null())
    said = "22 captions flagged, 25 expected by chance: no evidence of memorization"
    page = contents_of(found, {}, datetime(2030, 1, 1, tzinfo=UTC))
    write(tmp_path, page, found.summary)
    assert f"<h1>{said}</h1>" in (tmp_path / "report.html").read_text()
    assert f"<title>{said} - Overscan report</title>" in (tmp_path / "report.html").read_text()
    assert (tmp_path / "summary.md").read_text().startswith(f"## {said}\n")
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["headline"] == said
    console = Console(width=100, record=True, quiet=False)
    with console.capture() as printed:
        console.print(table(page))
    assert printed.get().startswith(f"{said}")
    assert "by s_v1, of 2,500 scored" in printed.get()
    for name in ("report.html", "summary.md", "summary.json"):
        assert "likely memorized" not in (tmp_path / name).read_text()
    assert of_json(summary).evidence == found.summary.evidence
    older = {key: value for key, value in as_json(found.summary).items() if key not in ("evidence", "headline", "kept")}
    assert of_json(older) == replace(of_json(summary), evidence=None, headline="", kept=None)


def test_what_may_be_concluded_from_the_numbers():
    made = datetime(2030, 1, 1, tzinfo=UTC)
    rated = Kept("scan", "s_v1", 1.5, "2029-12-31", 900, fpr=0.01, null_captions=999)
    ranked = Kept("scan", "s_v1", 1.5, "2029-12-31", 900, quantile=0.999)
    said = [
        of_the_numbers(contents_of(night(data(100, 3), kept.rule, kept=kept), {}, made)) for kept in (rated, ranked)
    ]
    assert said == [RATED, RANKING]


def test_numbers_in_words():
    assert [percent(x) for x in (0, 1e-9, 0.00123, 0.5, 1)] == ["less than 0.001 %"] * 2 + ["0.123 %", "50 %", "100 %"]
    assert [amount(x) for x in (0.04, 2.5, 24.6, 1234.5)] == ["0.04", "2.5", "25", "1,234"]


@pytest.mark.parametrize(
    ("flagged", "scored", "said"),
    [
        (1, 1, "1 of 1 captions (100 %): most of the dataset"),
        (50, 100, "The 50 that rank highest, to be checked (50 % of 100 scored): too many to stand out"),
        (51, 100, "51 of 100 captions (51 %): most of the dataset"),
        (10, 95, "The 10 that stand out most, to be checked (10.5 % of 95 scored)"),
        (11, 105, "The 11 that rank highest, to be checked (10.5 % of 105 scored): too many to stand out"),
        (11, 110, "The 11 that stand out most, to be checked (10 % of 110 scored)"),
        (1, 50, "The 1 that stands out most, to be checked (2 % of 50 scored)"),
    ],
)
def test_where_a_ranking_stops_standing_out(flagged, scored, said):
    assert headline(replace(SUMMARY, rule=Rule("s_v1", top=flagged), flagged=flagged, scored=scored)).startswith(said)


def test_one_flag_and_none_in_sentences():
    weighed = Evidence(rate=0.01, expected=2.5, chance=0.05)
    one = replace(SUMMARY, rule=Rule("s_v1", fpr=0.01), scored=250, flagged=1, evidence=weighed)
    assert of_the_evidence(one) == [
        "of 250 prompts up to 2.5 would be flagged at fpr 0.01 were all of them benign, and 1 is; as many or more come "
        "by chance in 5 % of such datasets: evidence"
    ]
    (none,) = of_the_evidence(replace(one, flagged=0))
    assert none.endswith("and 0 are")
    unlikely = replace(one, evidence=replace(weighed, chance=0.051))
    assert of_the_evidence(unlikely)[0].endswith("in 5.1 % of such datasets: no evidence")
    assert of_the_evidence(replace(one, rule=Rule("s_v1", fdr=0.1), flagged=0)) == []


def test_what_rounds_to_nothing_is_said_to_be_less():
    assert [percent(x) for x in (0.999e-5, 1e-5, 1.05e-5)] == ["less than 0.001 %", "0.001 %", "0.00105 %"]
