"""What is left to score: the unique prompts of a dataset that the ledger does not hold, in bounded memory."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from scanner.config import SCREENED_OUT
from scanner.dataset.captions import IDENTIFIED, merge
from scanner.dataset.partitions import Split, files, partition, split
from scanner.dataset.shards import WHOLE, Shard
from scanner.disk import work_files

BLOCK = 100_000  # about how many pending prompts are in memory at once
SCORED: dict[str, pl.DataType] = {"prompt_id": pl.String(), "status": pl.String()}
ID: dict[str, pl.DataType] = {"prompt_id": pl.String()}


@dataclass(frozen=True)
class Pending:
    """Prompts left, on disk. `statuses`: unique prompts that have a row already, by its status; `held`: rows that the
    store has, of other captions and repeated ones too.

    Of those `left`, `to_score` go to the engine, from `files`; the others, from `settled`, get a row that says why not.
    """

    rows: int
    unique: int
    left: int
    to_score: int
    statuses: Counter[str]
    files: tuple[Path, ...]
    settled: tuple[Path, ...]
    held: int = 0

    @property
    def already_scored(self) -> int:
        """Unique prompts that the ledger holds."""
        return self.unique - self.left

    def chunks(self, size: int) -> Iterator[pl.DataFrame]:
        """[prompt_id, text, status] to score in chunks of `size`, in order of the ids: a random order of captions."""
        block = size * max(1, BLOCK // size)
        for part in _blocks(self.files, block):
            yield from part.iter_slices(size)

    def others(self) -> Iterator[pl.DataFrame]:
        """[prompt_id, status] of those that need no engine, in large chunks."""
        return (part.select("prompt_id", "status") for part in _blocks(self.settled, BLOCK))


def compare(
    captions: Split,
    scored: pl.LazyFrame,
    folder: Path,
    stop: Callable[[], None] = lambda: None,
    screened_out: pl.LazyFrame | None = None,
    shard: Shard = WHOLE,
) -> Pending:
    """Compare split `captions` with `scored` [prompt_id, status]; work files go to `folder`.

    `stop` is called now and then, to raise where the work shall end. `screened_out`: [prompt_id] that need no engine.
    `shard`: the part of all prompts that counts.
    """
    split(shard.of(scored), folder / "scored")
    if screened_out is not None:
        split(shard.of(screened_out), folder / "out")
    stored_files, out_files = files(folder / "scored"), files(folder / "out")
    rows, unique, stored, statuses = 0, 0, 0, Counter[str]()
    to_score, settled = _Parts(folder, "to_score"), _Parts(folder, "settled")
    for digit in shard.digits:
        stop()
        prompts = merge(shard.of(partition(captions, digit, IDENTIFIED))).collect()
        found = partition(stored_files, digit, SCORED).collect()
        stored, known = stored + len(found), found.unique("prompt_id")
        out = partition(out_files, digit, ID).collect()["prompt_id"]
        pending = prompts.join(known, on="prompt_id", how="anti").sort("prompt_id")
        held = known.join(prompts, on="prompt_id", how="semi").group_by("status").len()
        rows, unique = rows + int(prompts["n_rows"].sum()), unique + len(prompts)
        statuses.update(dict(held.iter_rows()))
        status = pl.when(pl.col("prompt_id").is_in(out.implode())).then(pl.lit(SCREENED_OUT)).otherwise("status")
        pending = pending.select("prompt_id", "text", status=status)
        to_score.write(digit, pending.filter(status="to_score"))
        settled.write(digit, pending.filter(pl.col("status") != "to_score"))
    left = to_score.length + settled.length
    return Pending(rows, unique, left, to_score.length, statuses, tuple(to_score.files), tuple(settled.files), stored)


class _Parts:
    """A frame in files of a folder, one per partition that is not empty."""

    def __init__(self, folder: Path, name: str):
        self.files: list[Path] = []
        self.length = 0
        self._folder, self._name = folder, name

    def write(self, digit: str, frame: pl.DataFrame) -> None:
        if frame.is_empty():
            return
        file = self._folder / f"{self._name}-{digit}.parquet"
        with work_files(self._folder):
            frame.write_parquet(file, compression="lz4")
        self.files.append(file)
        self.length += len(frame)


def _blocks(files: Sequence[Path], size: int) -> Iterator[pl.DataFrame]:
    offset = 0
    while files and len(part := pl.scan_parquet(list(files), glob=False).slice(offset, size).collect()):
        yield part
        offset += size
