"""Frames with a prompt_id as files on disk, by a digit of it, so that a part is in memory at a time.

Two frames that are split alike are compared or joined partition by partition. Nothing here knows formats or
Delta tables.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from shutil import rmtree
from typing import Any

import polars as pl

from scanner.dataset.captions import IDENTIFIED, identify, merge
from scanner.dataset.readers import unreadable
from scanner.disk import work_files
from scanner.places import Place, is_url

DIGITS = "0123456789abcdef"
Split = Mapping[str, Sequence[Place]]  # digits -> parquet files of the partition
HELD = 320_000  # rows that the files of a split together hold back in memory while they are written
LARGE = 1_000_000  # scores from which a partition is joined in sixteen parts


def split(frame: pl.LazyFrame, folder: Place, place: int = 0) -> None:
    """Stream a frame into the partitions of a folder, by the digit at a place of the ids, the first being 0.

    Raises DiskError where they find no room.
    """
    split_by(pl.col("prompt_id").str.slice(place, 1).alias("digit"), frame, folder, len(DIGITS))


def split_by(key: pl.Expr, frame: pl.LazyFrame, folder: Place, parts: int) -> None:
    """Stream a frame into files of a folder, by a named key with about so many values. Raises DiskError."""
    by_key = pl.PartitionBy(folder, key=key, include_key=False)
    with nullcontext() if is_url(folder) else work_files(Path(folder).parent):
        frame.sink_parquet(by_key, mkdir=True, compression="lz4", statistics=False, row_group_size=HELD // parts,
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
    """One partition; empty, with this schema, where no prompt_id has the digit."""
    found: Sequence[Any] = split[digit]
    return pl.scan_parquet(list(found), hive_partitioning=False, glob=False) if found else pl.LazyFrame(schema=schema)


def join(captions: pl.LazyFrame, scores: pl.LazyFrame, folder: Path) -> pl.LazyFrame:
    """Unique prompts of captions [file, row, text] with their scores and `first_row`, in files of the folder.

    `scores`: [prompt_id, status, ...]; a prompt_id may come twice. A prompt without scores has nulls.
    Raises InputError where captions cannot be read.
    """
    places = 1 if scores.select(pl.len()).collect(engine="streaming").item() < LARGE else 2
    split_captions(captions, folder / "captions")
    split(scores, folder / "scores")
    joined = list(_joined(folder, dict(scores.collect_schema()), range(places)))
    return pl.scan_parquet(joined, glob=False)


def _joined(folder: Path, schema: Mapping[str, pl.DataType], places: Sequence[int]) -> Iterator[Path]:
    """The splits `captions` and `scores` of a folder, joined: a file per partition, the partitions being split at the
    further places of the ids first. One place after the other, as a split holds rows back for each of its files.
    """
    here, stored = files(folder / "captions"), files(folder / "scores")
    for digit in DIGITS:
        prompts, held = partition(here, digit, IDENTIFIED), partition(stored, digit, schema)
        if places[1:]:
            split(prompts, folder / digit / "captions", places[1])
            split(held, folder / digit / "scores", places[1])
            yield from _joined(folder / digit, schema, places[1:])
        else:
            file, held = folder / f"joined-{digit}.parquet", held.unique("prompt_id", keep="any")
            with work_files(folder):
                both = merge(prompts).drop("status").join(held, on="prompt_id", how="left")
                both.collect().write_parquet(file, compression="lz4")
            yield file
        for name in ("captions", "scores"):
            rmtree(folder / name / f"digit={digit}", ignore_errors=True)
