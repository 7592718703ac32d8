import numpy as np
import pytest

from scanner.errors import ScannerError
from scanner.evidence.metrics import (
    Bootstrap,
    also_flagged,
    auroc,
    bootstrap,
    precision_recall,
    resample,
    roc,
    tpr_at_fpr,
)

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


def test_roc_goes_through_every_threshold():
    fpr, tpr = roc(SCORE, LABEL)
    assert fpr.tolist() == [0, 0, 0.25, 0.25, 0.5, 0.75, 1]
    np.testing.assert_allclose(tpr, [0, 1 / 3, 2 / 3, 1, 1, 1, 1])


def test_labels_of_one_kind_are_refused():
    with pytest.raises(ScannerError, match="labels of one kind only"):
        auroc(SCORE, LABEL | True)


def test_weights_mean_repeated_items():
    """A replicate's metric is that of the items repeated as often as they were drawn."""
    rng = np.random.default_rng(0)
    score, label = rng.integers(0, 8, 40).astype(float), rng.random(40) < 0.4
    weights = resample(np.arange(40), replicates=20)
    area, rate = bootstrap(score, label, weights, (0.2,))
    assert (area.value, rate.value) == (auroc(score, label), tpr_at_fpr(score, label, 0.2))
    for i, weight in enumerate(weights):
        drawn = np.repeat(np.arange(40), weight)
        assert area.replicates[i] == pytest.approx(auroc(score[drawn], label[drawn]))
        assert rate.replicates[i] == pytest.approx(tpr_at_fpr(score[drawn], label[drawn], 0.2))


def test_clusters_are_drawn_whole():
    weights = resample(np.array([5, 5, 5, 2, 9, 9]), replicates=200)
    assert (weights.shape, weights.dtype) == ((200, 6), np.int32)
    assert (weights[:, 0] == weights[:, 1]).all()
    assert (weights[:, 4] == weights[:, 5]).all()
    assert (weights[:, [0, 3, 4]].sum(1) == 3).all()
    np.testing.assert_array_equal(weights, resample(np.array([5, 5, 5, 2, 9, 9]), replicates=200))


def test_interval_holds_the_truth_about_as_often_as_it_says():
    """AUROC of unit-variance normals one apart is Phi(1/sqrt 2) = .7602."""
    held = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        label = np.arange(120) < 60
        (area,) = bootstrap(rng.standard_normal(120) + label, label, resample(np.arange(120), seed, 300), ())
        low, high = area.interval()
        held += low < 0.7602 < high
    assert 88 <= held <= 100


def test_a_paired_difference_is_narrower_than_unpaired_ones():
    rng = np.random.default_rng(1)
    label = np.arange(200) < 80
    score = rng.standard_normal(200) + label
    better = score + 0.1 * rng.standard_normal(200) + 0.2 * label
    weights = resample(np.arange(200))
    (ours,), (theirs,) = (bootstrap(s, label, weights, ()) for s in (better, score))
    low, high = (ours - theirs).interval()
    assert 0 < low < ours.value - theirs.value < high
    unpaired = Bootstrap(0.0, ours.replicates - theirs.replicates[::-1]).interval()
    assert high - low < 0.5 * (unpaired[1] - unpaired[0])


def test_replicates_without_a_positive_do_not_count():
    area, _ = bootstrap(SCORE, LABEL, np.array([[0, 0, 0, 1, 1, 1, 1], [1] * 7], np.int32), (0.01,))
    assert np.isnan(area.replicates).tolist() == [True, False]
    assert area.interval() == pytest.approx((area.value, area.value))


@pytest.mark.parametrize(("fpr", "share"), [(0.0, 0.25), (0.1, 0.5), (0.19, 0.5), (0.2, 0.75), (1.0, 1.0)])
def test_a_third_class_is_flagged_by_the_others_threshold(fpr, share):
    negatives, positives = np.arange(10.0), np.array([20.0, 3.5])
    score, label = np.concatenate([negatives, positives]), np.arange(12) >= 10
    assert also_flagged(np.array([9.5, 8.5, 7.5, 6.0]), score, label, fpr) == share
    assert tpr_at_fpr(score, label, fpr) == (0.5 if fpr < 1 else 1.0)
