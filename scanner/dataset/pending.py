"""What is left to score: the unique prompts of a dataset that the ledger does not hold, in bounded memory.

Captions and scored ids are streamed into files by the first digit of the prompt_id; a sixteenth at a time is made
unique and compared. Nothing here knows formats or Delta tables.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from scanner.dataset.captions import IDENTIFIED, identify, merge
from scanner.dataset.readers import unreadable
from scanner.errors import disk_error

SHARDS = "0123456789abcdef"
ROW_GROUP = 20_000  # rows that a file holds back in memory while it is written
BLOCK = 100_000  # about how many pending prompts are in memory at once
SCORED: dict[str, pl.DataType] = {"prompt_id": pl.String(), "status": pl.String()}


@dataclass(frozen=True)
class Pending:
    """Prompts left to score, on disk. `statuses`: unique prompts that have a row already, by its status."""

    rows: int
    unique: int
    left: int
    statuses: Counter[str]
    files: tuple[Path, ...]

    @property
    def already_scored(self) -> int:
        """Unique prompts that the ledger holds."""
        return self.unique - self.left

    def chunks(self, size: int) -> Iterator[pl.DataFrame]:
        """[prompt_id, text, status] in chunks of `size`, in the order of the ids: a random order of captions."""
        block = size * max(1, BLOCK // size)
        prompts = pl.scan_parquet(list(self.files)) if self.left else None
        for offset in range(0, self.left, block):
            assert prompts is not None
            yield from prompts.slice(offset, block).collect().iter_slices(size)


def find(
    captions: pl.LazyFrame, scored: pl.LazyFrame, folder: Path, stop: Callable[[], None] = lambda: None
) -> Pending:
    """Compare captions [file, row, text] with `scored` [prompt_id, status]; work files go to `folder`.

    `stop` is called now and then, to raise where the work shall end. Raises InputError where captions cannot be read.
    """

    def watched(batch: pl.DataFrame) -> pl.DataFrame:
        stop()
        return batch

    try:
        _split(identify(captions).map_batches(watched, schema=IDENTIFIED, streamable=True), folder / "captions")
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        raise disk_error(f"{folder} (work files: TMPDIR says where)", error) or unreadable(
            "the input", error
        ) from error
    stop()
    _split(scored, folder / "scored")
    rows, unique, left, statuses, files = 0, 0, 0, Counter[str](), []
    for shard in SHARDS:
        stop()
        prompts = merge(_shard(folder / "captions", shard, IDENTIFIED)).collect()
        known = _shard(folder / "scored", shard, SCORED).unique("prompt_id").collect()
        pending = prompts.join(known, on="prompt_id", how="anti").sort("prompt_id")
        held = known.join(prompts, on="prompt_id", how="semi").group_by("status").len()
        rows, unique, left = rows + int(prompts["n_rows"].sum()), unique + len(prompts), left + len(pending)
        statuses.update(dict(held.iter_rows()))
        if len(pending):
            files.append(folder / f"{shard}.parquet")
            pending.select("prompt_id", "text", "status").write_parquet(files[-1], compression="lz4")
    return Pending(rows, unique, left, statuses, tuple(files))


def _split(frame: pl.LazyFrame, folder: Path) -> None:
    by_digit = pl.PartitionBy(folder, key={"shard": pl.col("prompt_id").str.head(1)}, include_key=False)
    frame.sink_parquet(by_digit, mkdir=True, compression="lz4", statistics=False, row_group_size=ROW_GROUP,
                       maintain_order=False, engine="streaming")  # fmt: skip


def _shard(folder: Path, shard: str, schema: dict[str, pl.DataType]) -> pl.LazyFrame:
    files = sorted((folder / f"shard={shard}").glob("*.parquet"))
    return pl.scan_parquet(files, hive_partitioning=False) if files else pl.LazyFrame(schema=schema)
