"""Scores -> flagged prompts -> the dataset rows that bear them.

Without null captions a rule only ranks: it says nothing of false alarms. *Flagged* is not *memorized*.
"""

import math
from dataclasses import dataclass

import polars as pl
import polars.selectors as cs

from scanner.audit.calibrate import Calibration, q_values
from scanner.config import SCREENED_OUT
from scanner.errors import ScannerError

ROUNDING = 1 + 1e-12  # p*m/rank may lie a last digit above the limit that it equals


@dataclass(frozen=True)
class Rule:
    """What to flag by one score, exactly one of these.

    A ranking: the `top` n prompts, from a `quantile` up, from a `threshold` up. A decision, which needs a calibration:
    q-value up to `fdr` (false discovery rate), p-value up to `fpr` (false positive rate).

    >>> Rule("agreement_v1", top=10).limit, Rule("agreement_v1", fdr=0.05).decides
    ({'top': 10}, True)
    """

    score: str
    top: int | None = None
    quantile: float | None = None
    threshold: float | None = None
    fdr: float | None = None
    fpr: float | None = None

    def __post_init__(self) -> None:
        if len(self.limit) != 1:
            raise ScannerError("needed exactly one of top, quantile, threshold, fdr, fpr")
        if self.top is not None and self.top < 1:
            raise ScannerError(f"top {self.top}: needed 1 or more")
        if self.quantile is not None and not 0 <= self.quantile <= 1:
            raise ScannerError(f"quantile {self.quantile}: needed 0 to 1")
        if self.threshold is not None and not math.isfinite(self.threshold):
            raise ScannerError(f"threshold {self.threshold}: needed a finite number")
        for name, rate in (("fdr", self.fdr), ("fpr", self.fpr)):
            if rate is not None and not 0 < rate < 1:
                raise ScannerError(f"{name} {rate}: needed more than 0 and less than 1")

    @property
    def limit(self) -> dict[str, float]:
        """The one limit that is set, by name."""
        limits = {name: getattr(self, name) for name in ("top", "quantile", "threshold", "fdr", "fpr")}
        return {name: value for name, value in limits.items() if value is not None}

    @property
    def decides(self) -> bool:
        """Whether the rule bounds false alarms, rather than ranks."""
        return self.fdr is not None or self.fpr is not None


def rank(scores: pl.DataFrame, rule: Rule, calibration: Calibration | None = None) -> pl.DataFrame:
    """All prompts, best score first, with `rank` (1 = highest; null where not scored) and `flagged`.

    With a calibration also `p_value` and `q_value`. Equal scores are ranked by prompt_id, so the order is the same
    every night. A score that is not finite is null, and never flagged. Prompts with the status `screened_out` rank
    below all others, as if their score were -inf: they are never flagged, and their p-value is 1. Raises ScannerError.

    >>> ranked = rank(read_store("store").scores, Rule("agreement_v1", top=3))
    >>> ranked.filter("flagged")["rank"].to_list()
    [1, 2, 3]
    """
    if rule.score not in scores.columns:
        held = [name for name, dtype in scores.schema.items() if dtype == pl.Float32]
        raise ScannerError(f"score {rule.score!r} is not in the store; it has {', '.join(held)}")
    value = pl.col(rule.score)
    finite = scores.with_columns(pl.when(value.is_finite()).then(value))
    placed = value.fill_null(pl.when(_screened_out(scores)).then(-math.inf))
    ordered = finite.sort(placed, "prompt_id", descending=[True, False], nulls_last=True)
    ordered = ordered.with_columns(pl.when(placed.is_not_null()).then(pl.int_range(1, pl.len() + 1)).alias("rank"))
    places = ordered.select(placed).to_series()  # the score by which each prompt is judged
    if not places.is_finite().any() and not _nothing_left(scores):
        raise ScannerError(
            f"no prompt has {rule.score}: scan with what it needs (two seeds or more, --reference, --base-model, "
            "--timesteps, or more --first-steps; see docs/scores.md), or name another --score"
        )
    if calibration is not None:
        ordered = _judge(ordered, places, rule, calibration)
    elif rule.decides:
        raise ScannerError("fdr and fpr need a calibration: make one with `overscan calibrate`, or use top or quantile")
    flagged = _flagged(places, rule) & value.is_not_null()
    return ordered.with_columns(flagged=flagged.fill_null(False))


def _screened_out(scores: pl.DataFrame) -> pl.Expr:
    return pl.col("status").eq_missing(SCREENED_OUT) if "status" in scores.columns else pl.lit(False)


def _nothing_left(scores: pl.DataFrame) -> bool:
    """Whether the first pass screened out every prompt that it scored."""
    return "status" in scores.columns and SCREENED_OUT in scores["status"] and "scored" not in scores["status"]


def _judge(ordered: pl.DataFrame, places: pl.Series, rule: Rule, calibration: Calibration) -> pl.DataFrame:
    if calibration.score != rule.score:
        raise ScannerError(f"a calibration of {calibration.score} cannot judge {rule.score}")
    if rule.fpr is not None:
        calibration.threshold(rule.fpr)  # refuses what this null cannot tell
    if rule.fdr is not None:
        calibration.least_hits(ordered["rank"].count(), rule.fdr)
    judged = ordered.with_columns(calibration.p_values(places))
    return judged.with_columns(q_value=q_values(pl.col("p_value")))


def _flagged(places: pl.Series, rule: Rule) -> pl.Expr:
    if rule.top is not None:
        return pl.col("rank") <= rule.top
    if rule.quantile is not None:
        return pl.col(rule.score) >= places.quantile(rule.quantile, "higher")
    if rule.fdr is not None:
        return pl.col("q_value") <= rule.fdr * ROUNDING
    if rule.fpr is not None:
        return pl.col("p_value") <= rule.fpr * ROUNDING
    return pl.col(rule.score) >= rule.threshold


def sources(ranked: pl.DataFrame, captions: pl.LazyFrame) -> pl.DataFrame:
    """Flagged prompts joined to every dataset row that bears them: one row per [file, row], best rank first.

    >>> stored = read_store("store")
    >>> sources(rank(stored.scores, Rule("agreement_v1", top=3)), stored.captions).columns[:5]
    ['rank', 'prompt_id', 'text', 'file', 'row']
    """
    flagged = ranked.filter("flagged").drop("flagged", cs.by_dtype(pl.List(pl.Float32)))  # and the raw numbers
    rows = captions.join(flagged.lazy(), on="text", how="inner", maintain_order="left").collect(engine="streaming")
    leading = ["rank", "prompt_id", "text", "file", "row", "n_rows"]
    return rows.select(*leading, pl.exclude(leading)).sort("rank", "file", "row")
