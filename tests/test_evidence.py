"""What a night's flags are evidence of."""

from datetime import UTC, datetime
from itertools import permutations
from math import comb

import pytest
from decisions import data, night, null

from scanner.audit.evidence import Prior, exceeded
from scanner.audit.kept import Kept
from scanner.audit.rank import Rule
from scanner.errors import ScannerError
from scanner.report import contents_of


@pytest.mark.parametrize(("m", "n", "above"), [(1, 9, 1), (3, 4, 1), (4, 3, 2), (2, 5, 5), (3, 3, 4)])
def test_the_chance_of_so_many_flags_is_that_of_all_orders(m, n, above):
    """By enumeration: of all orders of m + n exchangeable scores, those with so many of the m above that null score."""
    counts = []
    for order in set(permutations("d" * m + "n" * n)):  # from the highest score down
        nulls = [i for i, kind in enumerate(order) if kind == "n"]
        counts.append(sum(kind == "d" for kind in order[: nulls[above - 1] if above <= n else None]))
    assert len(counts) == comb(m + n, n)
    for count in range(m + 2):
        expected = sum(found >= count for found in counts) / len(counts)
        assert exceeded(m, n, above, count) == pytest.approx(expected, abs=1e-12), count


def test_a_base_rate_needs_a_rate_of_false_alarms():
    with pytest.raises(ScannerError, match="a base rate says nothing of a ranking, whose false alarms are not known"):
        night(data(100, 1), Rule("s_v1", top=1), prior=Prior(0.01))
    for base_rate, tpr in ((0.0, None), (1.0, None), (float("nan"), None), (0.1, 0.0), (0.1, 1.1), (0.1, float("nan"))):
        with pytest.raises(ScannerError, match="needed more than 0"):
            Prior(base_rate, tpr)


@pytest.mark.parametrize(
    ("base_rate", "tpr", "rate", "share"),
    [(0.5, 1.0, 0.5, 2 / 3), (0.2, 0.5, 0.1, 0.1 / 0.18), (0.2, None, 0.1, 0.2 / 0.28), (0.0003, 0.95, 0.01, 0.0277)],
)
def test_the_share_of_true_flags_is_bayes(base_rate, tpr, rate, share):
    assert Prior(base_rate, tpr).true_share(rate) == pytest.approx(share, rel=2e-3)


@pytest.mark.parametrize(("null_captions", "above"), [(6, 1), (7, 2)])  # 0.25 * 7 and 0.25 * 8, rounded down
def test_a_rate_is_weighed_by_its_null_captions(null_captions, above):
    kept = Kept("scan", "s_v1", 1.5, "2029-12-31", 900, fpr=0.25, null_captions=null_captions)
    by_file = night(data(4, 3), kept.rule, kept=kept).summary.evidence
    by_calibration = night(data(4, 3), Rule("s_v1", fpr=0.25), calibration=null(null_captions)).summary.evidence
    for weighed in (by_file, by_calibration):
        assert (weighed.rate, weighed.expected) == (0.25, 1.0)
        assert weighed.chance == exceeded(4, null_captions, above, 3)


def test_a_false_discovery_rate_is_weighed_by_its_least_q_value():
    decided = night([*data(97, 2), 1.5], Rule("s_v1", fdr=0.2), calibration=null())
    weighed, flagged = decided.summary.evidence, decided.prompts
    assert weighed.expected == pytest.approx(0.2 * len(flagged))
    assert weighed.rate == flagged["p_value"].max()
    assert weighed.chance == flagged["q_value"].min()
    none = night(data(97, 0), Rule("s_v1", fdr=0.2), calibration=null()).summary.evidence
    assert (none.rate, none.expected, none.chance) == (0.0, 0.0, 1.0)


def test_a_threshold_counts_the_null_scores_that_reach_it():
    made = null(4)  # 0, 1/3, 2/3, 1
    weighed = night([0.1, 0.2, 1.0, 1.5], Rule("s_v1", threshold=1.0), calibration=made).summary.evidence
    assert (weighed.rate, weighed.expected) == (0.4, 1.6)  # the one that equals it among them, and one more
    assert weighed.chance == exceeded(4, 4, 2, 2)


def test_a_ranking_is_weighed_by_its_lowest_flag():
    ranked = night([0.1, 0.2, 0.5, 1.5], Rule("s_v1", top=2), calibration=null(4))
    weighed = ranked.summary.evidence
    assert weighed.rate == ranked.prompts["p_value"].max() == 0.6  # two null scores above, and one more
    assert (weighed.expected, weighed.chance) == (pytest.approx(2.4), None)


def test_a_threshold_with_a_calibration_is_weighed():
    found = night(data(1000, 20), Rule("s_v1", threshold=0.995), calibration=null()).summary
    assert found.evidence.rate == 0.006  # five null scores of 999 reach it
    assert found.headline == "20 captions flagged, 6 expected by chance: more than chance explains, to be checked"
    kept = Kept("scan", "s_v1", 1.5, "2029-12-31", 900, fpr=0.01, null_captions=999)
    found = night(data(1000, 3), kept.rule, kept=kept).summary
    assert found.headline == "3 captions flagged, 10 expected by chance: no evidence of memorization"
    first = Kept("scan", "s_v1", 1.5, "2029-12-31", 900, quantile=0.999)
    found = night(data(1000, 3), first.rule, kept=first)
    assert found.summary.headline == "3 captions from the threshold 1.5 up, to be checked (0.3 % of 1,000 scored)"
    page = contents_of(found, {}, datetime(2030, 1, 1, tzinfo=UTC))
    assert page.rule == "s_v1 from 1.5 up, kept: the quantile 0.999 of 900 prompts on 2029-12-31"
