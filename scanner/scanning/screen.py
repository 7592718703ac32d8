"""Screening: all passes only where a first pass of one seed and one step finds a prompt suspicious.

A screened scan is two scans in one store. The first pass is a plain scan under its own scan_id; the second has a
scan_id that covers the full settings, the first pass, the score and the *threshold*, so that each row, `screened_out`
or scored, is a function of (scan_id, prompt) alone. The threshold is chosen once, as a quantile of the first night, and
found again in the records of that night's runs: a dataset that grows does not move it.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import polars as pl

from scanner.config import ScanConfig, Screen
from scanner.dataset.captions import IDENTIFIED
from scanner.dataset.partitions import DIGITS, Split, files, partition, split
from scanner.dataset.shards import sampled
from scanner.diffusion.scores import FIRST_PASS_SCORES, SCORES
from scanner.errors import ScannerError
from scanner.store.ledger import Ledger
from scanner.store.record import RunRecord, Screening


def possible(screen: Screen, config: ScanConfig, reference: bool, base: bool) -> None:
    """Refuse a screen that cannot be, with a reference and a base model or not, or that saves nothing.

    Raises ScannerError.
    """
    score = screen.score
    if score is not None and score not in FIRST_PASS_SCORES:
        able = ", ".join(FIRST_PASS_SCORES)
        raise ScannerError(f"screen by {score!r}: needed a score of one seed and one step: {able}")
    needs = None if score is None else SCORES[score].needs
    if needs == "reference" and not reference:
        raise ScannerError(f"screen by {score}: it needs a reference: name one, or screen by another score")
    if needs == "base" and not base:
        raise ScannerError(f"screen by {score}: it needs a base model: name one, or screen by another score")
    first = screen.first_pass(config).passes_with(needs == "base")
    if not screen.own_engine and first == config.passes_with(base):
        raise ScannerError(
            "screen: a scan of one seed and one step is what a first pass costs: ask for more seeds or first steps, or "
            "name another model or precision for the first pass"
        )


def remembered(screening: Screening, records: Sequence[RunRecord], limit: int | None) -> Screening:
    """With the threshold of the first run of this policy among a store's `records`, newest first, if there is one.

    A threshold that was chosen among a `limit` of rows is a trial's, and serves only runs of the same limit.
    """
    for record in reversed(records):  # the oldest: two first nights at once end up with one threshold
        found = record.screening
        if found and record.limit in (None, limit) and found.asked == screening.asked:
            return replace(screening, threshold=found.threshold)
    return screening


def chosen(screening: Screening, ledger: Ledger, captions: Split, folder: Path) -> Screening:
    """With a threshold: the one it has, else the score from which `share` of the split `captions` lie.

    Prompts of equal score are on one side of it. Raises ScannerError where no prompt has a score.
    """
    if screening.threshold is not None:
        return screening
    score = screening.score
    with ledger.refusals():
        scores = ledger.scores(screening.first_scan_id).select("prompt_id", score)
        split(scores, folder)
    schema, parts, stored = dict(scores.collect_schema()), [], files(folder)
    for digit in DIGITS:
        held = partition(stored, digit, schema).filter(pl.col(score).is_finite()).unique("prompt_id")
        here = partition(captions, digit, IDENTIFIED)
        parts.append(held.join(here, on="prompt_id", how="semi").collect()[score].to_numpy())
    values = np.sort(np.concatenate(parts))  # 4 bytes per prompt
    if not len(values):
        raise ScannerError(f"screen: no caption has {score} after the first pass: scan without a screen")
    kept = math.ceil(Fraction(str(screening.share)) * len(values))
    return replace(screening, threshold=float(values[-kept]))


def screened_out(screening: Screening, ledger: Ledger) -> pl.LazyFrame:
    """[prompt_id] of the prompts below the threshold that are not in the sample. One whose first scores overflowed is
    not among them."""
    found = ledger.scores(screening.first_scan_id).filter(screening.below)
    return (found.filter(~sampled(screening.sample)) if screening.sample else found).select("prompt_id")
