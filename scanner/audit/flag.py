"""Scores -> flagged prompts -> the dataset rows that bear them.

A rule here ranks; without null captions it says nothing of false alarms. *Flagged* is not *memorized*.
"""

import math
from dataclasses import dataclass

import polars as pl

from scanner.errors import ScannerError


@dataclass(frozen=True)
class Rule:
    """What to flag by one score: exactly one of `top` n prompts, from a `quantile` up, from a `threshold` up."""

    score: str
    top: int | None = None
    quantile: float | None = None
    threshold: float | None = None

    def __post_init__(self) -> None:
        if [self.top, self.quantile, self.threshold].count(None) != 2:
            raise ScannerError("needed exactly one of top, quantile, threshold")
        if self.top is not None and self.top < 1:
            raise ScannerError(f"top {self.top}: needed 1 or more")
        if self.quantile is not None and not 0 <= self.quantile <= 1:
            raise ScannerError(f"quantile {self.quantile}: needed 0 to 1")
        if self.threshold is not None and not math.isfinite(self.threshold):
            raise ScannerError(f"threshold {self.threshold}: needed a finite number")


def rank(scores: pl.DataFrame, rule: Rule) -> pl.DataFrame:
    """All prompts, best score first, with `rank` (1 = highest; null where not scored) and `flagged`.

    Equal scores are ranked by prompt_id, so the order is the same every night.
    """
    if rule.score not in scores.columns:
        held = [name for name, dtype in scores.schema.items() if dtype == pl.Float32]
        raise ScannerError(f"score {rule.score!r} is not in the store; it has {', '.join(held)}")
    value = pl.col(rule.score)
    ordered = scores.sort(value, "prompt_id", descending=[True, False], nulls_last=True)
    ordered = ordered.with_columns(pl.when(value.is_not_null()).then(pl.int_range(1, pl.len() + 1)).alias("rank"))
    if ordered["rank"].null_count() == len(ordered):
        raise ScannerError(f"no prompt has a {rule.score}: scan with two seeds or more, or name another --score")
    return ordered.with_columns(flagged=_flagged(ordered, rule).fill_null(False))


def _flagged(ordered: pl.DataFrame, rule: Rule) -> pl.Expr:
    if rule.top is not None:
        return pl.col("rank") <= rule.top
    if rule.quantile is not None:
        return pl.col(rule.score) >= ordered[rule.score].quantile(rule.quantile, "higher")
    return pl.col(rule.score) >= rule.threshold


def sources(ranked: pl.DataFrame, captions: pl.LazyFrame) -> pl.DataFrame:
    """Flagged prompts joined to every dataset row that bears them: one row per [file, row], best rank first."""
    flagged = ranked.filter("flagged").drop("flagged", "q1", "q2", "q3", strict=False)
    rows = captions.join(flagged.lazy(), on="text", how="inner", maintain_order="left").collect(engine="streaming")
    leading = ["rank", "prompt_id", "text", "file", "row", "n_rows"]
    return rows.select(*leading, pl.exclude(leading)).sort("rank", "file", "row")
