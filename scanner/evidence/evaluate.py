"""How well a score separates memorized prompts from others, given labels."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from scanner.errors import ScannerError

Scores = NDArray[np.floating[Any]]
Labels = NDArray[np.bool_]


def auroc(score: Scores, label: Labels) -> float:
    """Area under the ROC curve: the chance that a positive outscores a negative, ties counting half."""
    _both(label)
    ranks = pl.Series(score).rank("average").to_numpy()
    positives, negatives = int(label.sum()), int((~label).sum())
    return float((ranks[label].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def tpr_at_fpr(score: Scores, label: Labels, fpr: float) -> float:
    """Largest true positive rate over thresholds (flag from the threshold up) with a false positive rate <= `fpr`."""
    _both(label)
    negatives = np.sort(score[~label])[::-1]
    allowed = int(np.floor(fpr * len(negatives) + 1e-9))
    if allowed >= len(negatives):
        return 1.0
    return float((score[label] > negatives[allowed]).mean())


def precision_recall(flagged: Labels, label: Labels) -> tuple[float, float]:
    """Share of the flagged that are positive, and share of the positive that are flagged."""
    _both(label)
    hits = float((flagged & label).sum())
    return hits / max(1.0, float(flagged.sum())), hits / float(label.sum())


COLLAPSED: Mapping[str, pl.Expr] = {  # what to do with prompts whose seeds all give one image that is no copy
    "negative": pl.col("label"),
    "left out": pl.when(~pl.col("collapsed")).then(pl.col("label")),
    "positive": pl.col("label") | pl.col("collapsed"),
}


def evaluate(scores: pl.DataFrame, labels: pl.DataFrame, names: list[str]) -> pl.DataFrame:
    """One row per score and treatment of collapsed prompts: [score, collapsed, positives, negatives, auroc, tpr_at_1%].

    `scores`: [text, score columns]; `labels`: [prompt, label, collapsed], a null label being left out.
    """
    joined = labels.join(scores, left_on="prompt", right_on="text", how="inner")
    rows = []
    for name in names:
        for collapsed, expression in COLLAPSED.items():
            kept = joined.with_columns(label=expression).drop_nulls(["label", name])
            score, label = kept[name].to_numpy(), kept["label"].to_numpy()
            rows.append(
                {
                    "score": name,
                    "collapsed": collapsed,
                    "positives": int(label.sum()),
                    "negatives": int((~label).sum()),
                    "auroc": auroc(score, label),
                    "tpr_at_1%_fpr": tpr_at_fpr(score, label, 0.01),
                }
            )
    return pl.DataFrame(rows)


def _both(label: Labels) -> None:
    if label.all() or not label.any():
        raise ScannerError("labels of one kind only: needed memorized and not memorized prompts")
