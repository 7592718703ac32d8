"""Frames with a prompt_id as files on disk, one per first digit of it, so that a sixteenth is in memory at a time.

Two frames that are split alike are compared or joined partition by partition. Nothing here knows formats or
Delta tables.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import polars as pl

from scanner.dataset.captions import IDENTIFIED, identify, merge
from scanner.dataset.readers import unreadable
from scanner.disk import work_files
from scanner.places import Place, is_url

DIGITS = "0123456789abcdef"
Split = Mapping[str, Sequence[Place]]  # digit -> parquet files of the partition
ROW_GROUP = 20_000  # rows that a file holds back in memory while it is written


def split(frame: pl.LazyFrame, folder: Place) -> None:
    """Stream a frame into the partitions of a folder. Raises DiskError where they find no room."""
    by_digit = pl.PartitionBy(folder, key={"digit": pl.col("prompt_id").str.head(1)}, include_key=False)
    with nullcontext() if is_url(folder) else work_files(Path(folder).parent):
        frame.sink_parquet(by_digit, mkdir=True, compression="lz4", statistics=False, row_group_size=ROW_GROUP,
                           maintain_order=False, engine="streaming")  # fmt: skip


def split_captions(captions: pl.LazyFrame, folder: Place, heard: Callable[[int], None] = lambda rows: None) -> None:
    """Captions [file, row, text] with their ids into partitions.

    `heard` is told how many rows each batch has, and may raise to end it. Raises InputError where captions cannot be
    read.
    """

    def watched(batch: pl.DataFrame) -> pl.DataFrame:
        heard(len(batch))
        return batch

    try:
        split(identify(captions).map_batches(watched, schema=IDENTIFIED, streamable=True), folder)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        raise unreadable("the input", error) from error


def files(folder: Path) -> Split:
    """The files of a folder that `split` has filled."""
    return {digit: sorted((folder / f"digit={digit}").glob("*.parquet")) for digit in DIGITS}


def partition(split: Split, digit: str, schema: Mapping[str, pl.DataType]) -> pl.LazyFrame:
    """One partition; empty, with this schema, where no prompt_id begins with the digit."""
    found: Sequence[Any] = split[digit]
    return pl.scan_parquet(list(found), hive_partitioning=False, glob=False) if found else pl.LazyFrame(schema=schema)


def join(captions: pl.LazyFrame, scores: pl.LazyFrame, folder: Path) -> pl.DataFrame:
    """Unique prompts of captions [file, row, text] with their scores, in order of first appearance.

    `scores`: [prompt_id, status, ...]; a prompt_id may come twice. A prompt without scores has nulls.
    Raises InputError where captions cannot be read.
    """
    split_captions(captions, folder / "captions")
    split(scores, folder / "scores")
    schema, parts = dict(scores.collect_schema()), []
    here, stored = files(folder / "captions"), files(folder / "scores")
    for digit in DIGITS:
        prompts = merge(partition(here, digit, IDENTIFIED)).drop("status")
        held = partition(stored, digit, schema).unique("prompt_id", keep="any")
        parts.append(prompts.join(held, on="prompt_id", how="left").collect())
    return pl.concat(parts).sort("first_row").drop("first_row")
