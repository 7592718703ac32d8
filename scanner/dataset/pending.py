"""What is left to score: the unique prompts of a dataset that the ledger does not hold, in bounded memory."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from scanner.dataset.captions import IDENTIFIED, merge
from scanner.dataset.shards import SHARDS, room, shard, split, split_captions

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
    split_captions(captions, folder / "captions", stop)
    stop()
    split(scored, folder / "scored")
    rows, unique, left, statuses, files = 0, 0, 0, Counter[str](), []
    for digit in SHARDS:
        stop()
        prompts = merge(shard(folder / "captions", digit, IDENTIFIED)).collect()
        known = shard(folder / "scored", digit, SCORED).unique("prompt_id").collect()
        pending = prompts.join(known, on="prompt_id", how="anti").sort("prompt_id")
        held = known.join(prompts, on="prompt_id", how="semi").group_by("status").len()
        rows, unique, left = rows + int(prompts["n_rows"].sum()), unique + len(prompts), left + len(pending)
        statuses.update(dict(held.iter_rows()))
        if len(pending):
            files.append(folder / f"{digit}.parquet")
            with room(files[-1]):
                pending.select("prompt_id", "text", "status").write_parquet(files[-1], compression="lz4")
    return Pending(rows, unique, left, statuses, tuple(files))
