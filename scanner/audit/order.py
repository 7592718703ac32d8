"""Prompts in the order of a score, best first: in memory, or by intervals of the score that lie in files.

However many prompts there are, an interval is in memory at a time, and of all of them the score alone (4 bytes each).
"""

import math
from collections.abc import Iterator
from pathlib import Path
from shutil import rmtree

import numpy as np
import polars as pl
from numpy.typing import NDArray

from scanner.config import SCREENED_OUT
from scanner.dataset.partitions import DIGITS, split_by

ROWS = 50_000  # about how many of an interval
MOST = 64  # intervals, of each of which a file is open: half and thrice as many took more memory at ten million prompts
DEEPEST = 2  # digits of a prompt_id that part an interval further
BLOCK = 1_000_000  # places that are counted at once
Floats = NDArray[np.float32]


def place(prompts: pl.DataFrame | pl.LazyFrame, score: str) -> pl.Expr:
    """The score by which each prompt is placed: null where it is not finite, -inf where a screen left it out."""
    schema = prompts.collect_schema()
    out = pl.col("status").eq_missing(SCREENED_OUT) if "status" in schema else pl.lit(False)
    below = pl.when(out).then(pl.lit(-math.inf, schema[score]))
    return _finite(score).fill_null(below)


def ordered(prompts: pl.DataFrame, score: str) -> pl.DataFrame:
    """Best first, those of one place by prompt_id, so that the order is the same every night; without a place last.

    A score that is not finite is null.
    """
    return prompts.sort(place(prompts, score), "prompt_id", descending=[True, False], nulls_last=True).with_columns(
        _finite(score)
    )


def in_intervals(prompts: pl.LazyFrame, score: str, places: pl.Series, folder: Path) -> Iterator[pl.DataFrame]:
    """The same, in parts. `places`: of all prompts, in any order; work files lie in a new folder of `folder`.

    Raises DiskError.
    """
    work, bounds = folder / "intervals", _bounds(places)
    depths = _depths(bounds, places)

    def names(batch: pl.Series) -> pl.Series:
        """Of the file that each prompt goes to: in the order of their names they hold the prompts best first."""
        interval = _intervals(bounds, batch.struct.field("place"))
        frame = pl.DataFrame({"id": batch.struct.field("prompt_id"), "interval": interval})
        digits = pl.col("id").str.head(pl.Series(np.array(depths)[interval]))
        return frame.select(pl.format("{}{}", pl.col("interval").cast(pl.String).str.zfill(4), digits)).to_series()

    key = pl.struct("prompt_id", place=place(prompts, score)).map_batches(names, pl.String(), is_elementwise=True)
    split_by(key.alias("interval"), prompts, work, sum(len(DIGITS) ** depth for depth in depths))
    for part in sorted(work.iterdir()):
        yield ordered(pl.read_parquet(list(part.iterdir()), hive_partitioning=False, glob=False), score)
        rmtree(part)


def _finite(score: str) -> pl.Expr:
    return pl.when(pl.col(score).is_finite()).then(pl.col(score)).alias(score)


def _bounds(places: pl.Series) -> Floats:
    """Places, ascending, between which about equal numbers of prompts lie."""
    held = np.sort(places.drop_nulls().to_numpy())
    parts = min(len(held) // ROWS, MOST // 2) + 1
    return np.unique(held[[len(held) * i // parts for i in range(1, parts)]])


def _intervals(bounds: Floats, places: pl.Series) -> NDArray[np.int64]:
    """Of each place its interval: 0 above all bounds, 1 on the highest, 2 below that, ...; the last has no place."""
    values = places.fill_null(math.nan).to_numpy()
    below = np.searchsorted(bounds, values, side="left") + np.searchsorted(bounds, values, side="right")
    return np.where(np.isnan(values), 2 * len(bounds) + 1, 2 * len(bounds) - below)


def _depths(bounds: Floats, places: pl.Series) -> list[int]:
    """By how many first digits of the prompt_id each interval is parted: those of one place may be any number."""
    counts = np.zeros(2 * len(bounds) + 2, np.int64)
    for part in places.to_frame().iter_slices(BLOCK):
        counts += np.bincount(_intervals(bounds, part.to_series()), minlength=len(counts))
    too_many = [max(1.0, count / ROWS) if i % 2 else 1.0 for i, count in enumerate(counts)]  # odd: on a bound, or none
    return [min(DEEPEST, math.ceil(math.log(times, len(DIGITS)))) for times in too_many]
