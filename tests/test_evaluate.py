import numpy as np
import polars as pl
import pytest

from scanner.errors import ScannerError
from scanner.evidence.evaluate import auroc, evaluate, precision_recall, tpr_at_fpr

LABEL = np.array([True, True, True, False, False, False, False])
SCORE = np.array([0.9, 0.8, 0.3, 0.8, 0.2, 0.1, 0.0])


def test_auroc_counts_won_pairs_and_half_the_ties():
    assert auroc(SCORE, LABEL) == pytest.approx((4 + 3.5 + 3) / 12)
    assert auroc(-SCORE, LABEL) == pytest.approx(1 - (4 + 3.5 + 3) / 12)


@pytest.mark.parametrize(("fpr", "tpr"), [(0.0, 1 / 3), (0.24, 1 / 3), (0.25, 1.0), (1.0, 1.0)])
def test_tpr_at_fpr(fpr, tpr):
    assert tpr_at_fpr(SCORE, LABEL, fpr) == pytest.approx(tpr)


def test_precision_recall():
    assert precision_recall(SCORE >= 0.8, LABEL) == (2 / 3, 2 / 3)


def test_labels_of_one_kind_are_refused():
    with pytest.raises(ScannerError, match="labels of one kind only"):
        auroc(SCORE, LABEL | True)


def test_collapsed_prompts_are_counted_three_ways():
    labels = pl.DataFrame(
        {"prompt": list("abcd"), "label": [True, False, False, None], "collapsed": [False, True, False, True]}
    )
    scores = pl.DataFrame({"text": list("abcd"), "s": [0.7, 0.9, 0.1, 0.8]})
    table = evaluate(scores, labels, ["s"])
    assert table.select("collapsed", "positives", "negatives", "auroc").rows() == [
        ("negative", 1, 2, 0.5),
        ("left out", 1, 1, 1.0),
        ("positive", 3, 1, 1.0),
    ]
