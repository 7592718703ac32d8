"""Which scores a scan can have, and which of those that it has to rank by."""

import polars as pl

from scanner.diffusion.scores import best_scores, possible_scores
from scanner.store.record import RunRecord
from scanner.store.stored import StoredScan


def possible(record: RunRecord) -> tuple[str, ...]:
    """The scores that a run with such a record computes today.

    None that no canary of the run has: the model's path starts without signal, and the score is of the noise.
    """
    able = possible_scores(record.config, record.reference is not None, record.base is not None)
    return tuple(name for name in able if not record.canaries or _had(record, name))


def _had(record: RunRecord, name: str) -> bool:
    """Whether a canary has a score, or the run was of an overscan that did not know it."""
    return any(canary.get(name, 0.0) is not None for canary in record.canaries)


def best(stored: StoredScan) -> str:
    """What to rank by where no score is named: of the scores that most prompts have, the one that measured best.

    A score that is younger than some rows of a scan is thus no better than none.
    """
    able = best_scores(stored.record.config, stored.record.reference is not None)
    held = [name for name in able if name in stored.prompts.collect_schema()]
    counts = stored.prompts.select(pl.col(held).count()).collect(engine="streaming").row(0, named=True) if held else {}
    return max(able, key=lambda name: counts.get(name, 0))
