"""Scores -> flagged prompts -> the dataset rows that bear them.

Without null captions a rule only ranks: it says nothing of false alarms. *Flagged* is not *memorized*.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import polars.selectors as cs

from scanner.audit import order
from scanner.audit.calibrate import Calibration
from scanner.config import SCREENED_OUT
from scanner.disk import work_files
from scanner.errors import ScannerError

ROUNDING = 1 + 1e-12  # p*m/rank may lie a last digit above the limit that it equals


@dataclass(frozen=True)
class Rule:
    """What to flag by one score, exactly one of these.

    A ranking: the `top` n prompts, from a `quantile` up, from a `threshold` up. A decision, which needs a calibration:
    q-value up to `fdr` (false discovery rate), p-value up to `fpr` (false positive rate).

    >>> Rule("low_noise_norm_v1", top=10).limit, Rule("low_noise_norm_v1", fdr=0.05).decides
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

    >>> ranked = rank(read_store("store").scores, Rule("low_noise_norm_v1", top=3))
    >>> ranked.filter("flagged")["rank"].to_list()
    [1, 2, 3]
    """
    judge, _ = _judge(scores.lazy(), rule, calibration)
    return judge(order.ordered(scores, rule.score), 0)


def ranked_in(
    work: Path | None, prompts: pl.LazyFrame, rule: Rule, calibration: Calibration | None = None
) -> pl.LazyFrame:
    """What `rank` gives, in the same order, to be streamed from files in the folder `work`; None: from memory.

    Raises ScannerError.
    """
    if work is None:
        return rank(prompts.collect(), rule, calibration).lazy()
    judge, places = _judge(prompts, rule, calibration)
    files, before = list[Path](), 0
    for part in order.in_intervals(prompts, rule.score, places, work):
        files.append(work / f"ranked-{len(files):05d}.parquet")
        with work_files(work):
            judge(part, before).write_parquet(files[-1], compression="lz4")
        before += len(part)
    return pl.scan_parquet(files, glob=False)


Judge = Callable[[pl.DataFrame, int], pl.DataFrame]


def _judge(prompts: pl.LazyFrame, rule: Rule, calibration: Calibration | None) -> tuple[Judge, pl.Series]:
    """What adds ranks, p- and q-values and flags to a part of all prompts in order, given how many come before it.

    Also the places of all. Raises ScannerError for prompts that cannot be ranked, and for what a null cannot tell.
    """
    schema = prompts.collect_schema()
    if rule.score not in schema:
        held = [name for name, dtype in schema.items() if dtype == pl.Float32]
        raise ScannerError(f"score {rule.score!r} is not in the store; it has {', '.join(held)}")
    place = order.place(prompts, rule.score)
    places = prompts.select(place).collect(engine="streaming").to_series()
    if not places.is_finite().any() and not _nothing_left(prompts):
        raise ScannerError(
            f"no prompt has {rule.score}: scan with what it needs (two seeds or more, --reference, --base-model, "
            "--timesteps, or more --first-steps; see docs/scores.md), or name another --score"
        )
    if calibration is None and rule.decides:
        raise ScannerError("fdr and fpr need a calibration: make one with `overscan calibrate`, or use top or quantile")
    null = None if calibration is None else _null(places, rule, calibration)
    flagged = _flagged(places, rule) & pl.col(rule.score).is_not_null()

    def judge(part: pl.DataFrame, before: int) -> pl.DataFrame:
        rank = pl.int_range(before + 1, before + 1 + pl.len())
        found = part.with_columns(rank=pl.when(place.is_not_null()).then(rank))
        if null is not None:
            found = found.with_columns(null(found.select(place).to_series()))
        return found.with_columns(flagged=flagged.fill_null(False))

    return judge, places


def _nothing_left(prompts: pl.LazyFrame) -> bool:
    """Whether the first pass screened out every prompt that it scored."""
    if "status" not in prompts.collect_schema():
        return False
    held = prompts.select(pl.col("status").unique()).collect(engine="streaming")["status"]
    return SCREENED_OUT in held and "scored" not in held


def _null(places: pl.Series, rule: Rule, calibration: Calibration) -> Callable[[pl.Series], list[pl.Series]]:
    """p- and q-values of some places among all. Raises ScannerError for what this null cannot tell."""
    if calibration.score != rule.score:
        raise ScannerError(f"a calibration of {calibration.score} cannot judge {rule.score}")
    if rule.fpr is not None:
        calibration.threshold(rule.fpr)  # refuses what this null cannot tell
    if rule.fdr is not None:
        calibration.least_hits(places.count(), rule.fdr)
    q_of = calibration.q_values(places)
    return lambda some: [calibration.p_values(some), q_of(some)]


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
    >>> sources(rank(stored.scores, Rule("low_noise_norm_v1", top=3)), stored.captions).columns[:5]
    ['rank', 'prompt_id', 'text', 'file', 'row']
    """
    flagged = ranked.filter("flagged").drop("flagged", cs.by_dtype(pl.List(pl.Float32)))  # and the raw numbers
    # texts of the left: those of the captions would keep all of a batch in memory
    rows = flagged.lazy().join(captions, on="text", how="inner").collect(engine="streaming")
    leading = ["rank", "prompt_id", "text", "file", "row", "n_rows"]
    return rows.select(*leading, pl.exclude(leading)).sort("rank", "file", "row")
