"""How well a score tells positives from negatives, with bootstrap intervals. Numpy only."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from scanner.errors import ScannerError

Scores = NDArray[np.floating[Any]]
Labels = NDArray[np.bool_]
Floats = NDArray[np.float64]
REPLICATES = 1000
CONFIDENCE = 0.95
PART = 100  # replicates at once: bounds memory


def auroc(score: Scores, label: Labels) -> float:
    """Area under the ROC curve: the chance that a positive outscores a negative, ties counting half."""
    return float(_curve(score, label).auroc()[0])


def tpr_at_fpr(score: Scores, label: Labels, fpr: float) -> float:
    """Largest true positive rate over thresholds (flag from the threshold up) with a false positive rate <= `fpr`."""
    return float(_curve(score, label).tpr(fpr)[0])


def also_flagged(others: Scores, score: Scores, label: Labels, fpr: float) -> float:
    """The share of `others`, neither positive nor negative, that the threshold of `tpr_at_fpr` flags."""
    return float((others > flagged_above(score[~label], fpr)).mean())


def flagged_above(negatives: Scores, fpr: float) -> float:
    """The value above which the share `fpr` of `negatives` lies, or the largest share below it."""
    allowed = int(fpr * len(negatives) + 1e-9)
    return float(-np.sort(-negatives)[allowed]) if allowed < len(negatives) else -np.inf


def precision_recall(flagged: Labels, label: Labels) -> tuple[float, float]:
    """Share of the flagged that are positive, and share of the positive that are flagged."""
    _both(label)
    hits = float((flagged & label).sum())
    return hits / max(1.0, float(flagged.sum())), hits / float(label.sum())


class Curve(NamedTuple):
    """ROC curves [R, G] of R weightings: positives and negatives flagged from each of G distinct thresholds up."""

    true_positives: Floats
    false_positives: Floats

    def auroc(self) -> Floats:
        """[R]; NaN where a weighting has one kind only."""
        tp, fp = (np.pad(counts, ((0, 0), (1, 0))) for counts in self)
        area = ((tp[:, 1:] + tp[:, :-1]) / 2 * np.diff(fp)).sum(1)
        return _share(area, tp[:, -1] * fp[:, -1])

    def tpr(self, fpr: float) -> Floats:
        """[R]; NaN where a weighting has one kind only."""
        tp, fp = self
        within = (fp <= fpr * fp[:, -1:] + 1e-9).sum(1)  # thresholds within the false positives allowed
        reached = np.where(within > 0, np.take_along_axis(tp, np.maximum(within - 1, 0)[:, None], 1)[:, 0], 0)
        return _share(reached, np.where(fp[:, -1] > 0, tp[:, -1], 0))


def roc(score: Scores, label: Labels) -> tuple[Floats, Floats]:
    """False and true positive rates of every threshold, from (0, 0) to (1, 1)."""
    curve = _curve(score, label)
    fpr, tpr = (np.pad(c[0] / c[0, -1], (1, 0)) for c in (curve.false_positives, curve.true_positives))
    return fpr, tpr


def resample(cluster: NDArray[np.integer[Any]], seed: int = 0, replicates: int = REPLICATES) -> NDArray[np.int32]:
    """Bootstrap weights [R, n]: how often each item is drawn when whole clusters are drawn with replacement."""
    _, of_item = np.unique(cluster, return_inverse=True)
    n = int(of_item.max()) + 1
    drawn = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=replicates)
    return np.asarray(drawn[:, of_item], np.int32)


class Bootstrap(NamedTuple):
    """A metric and its value in every replicate; two scores of the same items and weights are paired."""

    value: float
    replicates: Floats

    def __sub__(self, other: "Bootstrap") -> "Bootstrap":
        return Bootstrap(self.value - other.value, self.replicates - other.replicates)

    def interval(self) -> tuple[float, float]:
        """Percentile interval."""
        tail = (1 - CONFIDENCE) / 2
        low, high = np.nanquantile(self.replicates, (tail, 1 - tail))
        return float(low), float(high)


def bootstrap(
    score: Scores, label: Labels, weights: NDArray[np.int32], fprs: tuple[float, ...]
) -> tuple[Bootstrap, ...]:
    """AUROC, then TPR at each of `fprs`, under the bootstrap `weights` [R, n]."""
    whole = _curve(score, label)
    parts = [_weighted(score, label, weights[i : i + PART]) for i in range(0, len(weights), PART)]
    area = Bootstrap(float(whole.auroc()[0]), np.concatenate([part.auroc() for part in parts]))
    rates = (Bootstrap(float(whole.tpr(fpr)[0]), np.concatenate([part.tpr(fpr) for part in parts])) for fpr in fprs)
    return (area, *rates)


def _curve(score: Scores, label: Labels) -> Curve:
    _both(label)
    return _weighted(score, label, np.ones((1, len(label)), np.int32))


def _weighted(score: Scores, label: Labels, weights: NDArray[np.int32]) -> Curve:
    order = np.argsort(-score, kind="stable")
    last = np.flatnonzero(np.append(np.diff(score[order]) != 0, True))  # the last of each group of equal scores
    ordered, positive = weights[:, order].astype(np.float64), label[order]
    return Curve(*(np.cumsum(ordered * kind, axis=1)[:, last] for kind in (positive, ~positive)))


def _share(part: Floats, whole: Floats) -> Floats:
    return np.divide(part, whole, out=np.full_like(part, np.nan), where=whole > 0)


def _both(label: Labels) -> None:
    if label.all() or not label.any():
        raise ScannerError("labels of one kind only: needed memorized and not memorized prompts")
