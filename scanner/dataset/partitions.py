"""Frames with a prompt_id as files on disk, one per first digit of it, so that a sixteenth is in memory at a time.

Two frames that are split alike are compared or joined partition by partition. Nothing here knows formats or
Delta tables.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

import polars as pl

from scanner.dataset.captions import IDENTIFIED, identify, merge
from scanner.dataset.readers import unreadable
from scanner.disk import work_files

DIGITS = "0123456789abcdef"
ROW_GROUP = 20_000  # rows that a file holds back in memory while it is written


def split(frame: pl.LazyFrame, folder: Path) -> None:
    """Stream a frame into the partitions of a folder. Raises DiskError where they find no room."""
    by_digit = pl.PartitionBy(folder, key={"digit": pl.col("prompt_id").str.head(1)}, include_key=False)
    with work_files(folder.parent):
        frame.sink_parquet(by_digit, mkdir=True, compression="lz4", statistics=False, row_group_size=ROW_GROUP,
                           maintain_order=False, engine="streaming")  # fmt: skip


def split_captions(captions: pl.LazyFrame, folder: Path, stop: Callable[[], None] = lambda: None) -> None:
    """Captions [file, row, text] with their ids into partitions; `stop`, called with every batch, may raise to end it.

    Raises InputError where captions cannot be read.
    """

    def watched(batch: pl.DataFrame) -> pl.DataFrame:
        stop()
        return batch

    try:
        split(identify(captions).map_batches(watched, schema=IDENTIFIED, streamable=True), folder)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        raise unreadable("the input", error) from error


def partition(folder: Path, digit: str, schema: Mapping[str, pl.DataType]) -> pl.LazyFrame:
    """One partition of a folder; empty, with this schema, where no prompt_id begins with the digit."""
    files = sorted((folder / f"digit={digit}").glob("*.parquet"))
    return pl.scan_parquet(files, hive_partitioning=False, glob=False) if files else pl.LazyFrame(schema=schema)


def join(captions: pl.LazyFrame, scores: pl.LazyFrame, folder: Path) -> pl.DataFrame:
    """Unique prompts of captions [file, row, text] with their scores, in order of first appearance.

    `scores`: [prompt_id, status, ...]; a prompt_id may come twice. A prompt without scores has nulls.
    Raises InputError where captions cannot be read.
    """
    split_captions(captions, folder / "captions")
    split(scores, folder / "scores")
    schema = dict(scores.collect_schema())
    parts = []
    for digit in DIGITS:
        prompts = merge(partition(folder / "captions", digit, IDENTIFIED)).drop("status")
        held = partition(folder / "scores", digit, schema).unique("prompt_id", keep="any")
        parts.append(prompts.join(held, on="prompt_id", how="left").collect())
    return pl.concat(parts).sort("first_row").drop("first_row")
