"""What was read of each file: rows, those without a caption and why, the columns and the dialect."""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import PurePath
from typing import Any

import polars as pl

from scanner.dataset.readers.columns import EMPTY_FILES, EMPTY_LINES, RAGGED, Row, Source, refusal

KINDS = 3  # reasons that a message names
BAD_ROWS = {RAGGED, EMPTY_LINES, EMPTY_FILES}  # rows with their status, which no other column would mend
LISTED = 1000  # files that a record names one by one


class FileRead:
    """`rows`: read so far; `missing`: of them, without a caption; `reasons`: why, where the reader knows."""

    def __init__(self, file: str, source: Source):
        self.file, self.rows, self.missing = file, 0, 0
        self._source = source
        source.missing.clear()
        source.notes.clear()

    def count(self, batch: pl.DataFrame | Sequence[Row]) -> None:
        """Add a batch."""
        self.rows += len(batch)
        if isinstance(batch, pl.DataFrame):
            self.missing += batch["caption"].null_count()
        else:
            self.missing += sum(caption is None for _, caption in batch)

    @property
    def reasons(self) -> dict[str, int]:
        """Why rows have no caption -> how many, most first; nothing for formats that only know nulls."""
        # a batch that a limit cuts was counted whole
        return {why: min(count, self.missing) for why, count in self._source.missing.most_common() if self.missing}

    @property
    def notes(self) -> list[str]:
        """What is odd about the file."""
        return list(self._source.notes)

    def facts(self) -> dict[str, Any]:
        """For a record: file, rows, and, where there is something to tell, the rest."""
        how, reasons = dict(self._source.how), self.reasons
        told = {"without_caption": self.missing, "reasons": reasons, "notes": self.notes, **how}
        return {"file": self.file, "rows": self.rows, **{name: value for name, value in told.items() if value}}


def told(read: Iterable[FileRead], each: bool = False) -> dict[str, Any]:
    """What was read of all files, for a record: rows without a caption, why, and the files; very many by their folders.

    `each`: every file, however many.
    """
    every = list(read)
    reasons: Counter[str] = Counter()
    for tally in every:
        reasons.update(tally.reasons)
    return {
        "rows": sum(tally.rows for tally in every),
        "without_caption": sum(tally.missing for tally in every),
        "reasons": dict(reasons.most_common()),
        "files": [tally.facts() for tally in every] if each or len(every) <= LISTED else _by_folder(every),
    }


def _by_folder(read: Sequence[FileRead]) -> list[dict[str, Any]]:
    """Files of one folder and suffix as one."""
    found: dict[str, dict[str, Any]] = {}
    for tally in read:
        path = PurePath(tally.file)
        facts = found.setdefault(f"{path.parent}/*{path.suffix}", {"files": 0, "rows": 0, "without_caption": 0})
        facts["files"] += 1
        facts["rows"] += tally.rows
        facts["without_caption"] += tally.missing
    return [{"file": name, **facts} for name, facts in found.items()]


def judged(tally: FileRead) -> None:
    """Raises InputError for a file that has rows and no caption, naming what was found instead."""
    if tally.rows == 0 or tally.missing < tally.rows or (tally.reasons and tally.reasons.keys() <= BAD_ROWS):
        return
    column = tally._source.how.get("column")
    what = ", ".join(f"{count:,} {kind}" for kind, count in list(tally.reasons.items())[:KINDS]) or "nulls only"
    where = f"column {column!r} holds " if column else "it holds "
    needed = "needed text: name another with --column, or a key inside it as in --column a.b"
    raise refusal(tally.file, f"no caption in {tally.rows:,} rows: {where}{what}; {needed}")
