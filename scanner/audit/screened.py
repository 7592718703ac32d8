"""What a screen loses of the flags, from a random sample of prompts that got all passes whatever the first found."""

import math
from dataclasses import dataclass

import polars as pl

from scanner.dataset.shards import sampled
from scanner.store.ledger import Ledger
from scanner.store.record import Screening
from scanner.store.stored import StoredScan

LEAST = 20  # flagged prompts of a sample, below which it tells nothing
Z = 1.96  # of a 95 % interval


@dataclass(frozen=True)
class Kept:
    """Of `flagged` prompts of a sample the screen alone would have kept `kept`."""

    flagged: int
    kept: int

    @property
    def share(self) -> float | None:
        """Of the full scan's flags, those that the screen keeps; None where too few are known."""
        return self.kept / self.flagged if self.flagged >= LEAST else None

    @property
    def interval(self) -> tuple[float, float]:
        """Of that share, 95 % (Wilson, 1927)."""
        n, p = self.flagged, self.kept / self.flagged
        centre, half = (p + Z**2 / (2 * n)), Z * math.sqrt(p * (1 - p) / n + Z**2 / (4 * n**2))
        return (centre - half) / (1 + Z**2 / n), (centre + half) / (1 + Z**2 / n)


def kept(flagged: pl.DataFrame, first: pl.LazyFrame, screening: Screening) -> Kept:
    """`flagged`: [prompt_id] of the flagged prompts; `first`: [prompt_id, score...] of the first pass.

    A prompt without a finite first score is kept, as the scan keeps it.
    """
    found = flagged.lazy().select("prompt_id").filter(sampled(screening.sample)).join(first, on="prompt_id")
    counted = found.unique("prompt_id").select(pl.len(), lost=screening.below.fill_null(False).sum()).collect()
    n, lost = counted.row(0)
    return Kept(n, n - lost)


def of_the_screen(stored: StoredScan, flagged: pl.DataFrame) -> list[str]:
    """Of a screened scan with a sample, in a sentence; `flagged`: [prompt_id, ...] of its flagged prompts."""
    screening = stored.record.screening
    if screening is None or not screening.sample:
        return []
    ledger = Ledger(stored.store)
    with ledger.refusals():
        found = kept(flagged, ledger.scores(screening.first_scan_id), screening)
    return [in_words(found, screening.sample)]


def in_words(found: Kept, sample: float) -> str:
    """What a report says of it."""
    of = f"a random {100 * sample:.3g} % of the prompts"
    if found.share is None:
        few = f"{found.flagged:,} of {of}, which got all passes, {'is' if found.flagged == 1 else 'are'} flagged"
        return f"what the screen loses of the flags is unknown: {few}; needed {LEAST}: raise --screen-sample"
    low, high = found.interval
    return (
        f"the screen keeps {100 * found.share:.3g} % of what all passes flag (95 % interval {100 * low:.3g} to "
        f"{100 * high:.3g} %): {found.kept:,} of {found.flagged:,} flagged ones among {of}"
    )
