"""What was read of each file: rows, those without a caption and why, the columns and the dialect."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import PurePath

import polars as pl

from scanner.dataset.readers.columns import EMPTY_FILES, EMPTY_LINES, RAGGED, Row, Source, refusal
from scanner.dataset.reading import FileReading, Reading

KINDS = 3  # reasons that a message names
BAD_ROWS = {RAGGED, EMPTY_LINES, EMPTY_FILES}  # rows with their status, which no other column would mend
LISTED = 1000  # files, or things passed over, that a record names one by one


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

    def reading(self) -> FileReading:
        """For a record."""
        return FileReading(
            self.file,
            self.rows,
            without_caption=self.missing,
            reasons=self.reasons or None,
            notes=tuple(self._source.notes),
            **self._source.how,
        )


def together(read: Iterable[FileReading], passed_over: Sequence[str], each: bool = False) -> Reading:
    """What was read of all files, for a record: more than LISTED files, or things passed over, are shortened.

    `each`: every one, however many.
    """
    every = list(read)
    reasons: Counter[str] = Counter()
    for file in every:
        reasons.update(file.reasons or {})
    more = len(passed_over) - LISTED
    return Reading(
        rows=sum(file.rows for file in every),
        without_caption=sum(file.without_caption for file in every),
        reasons=dict(reasons.most_common()),
        files=tuple(every if each or len(every) <= LISTED else _by_folder(every)),
        passed_over=tuple(passed_over if each or more <= 0 else [*passed_over[:LISTED], f"{more:,} more"]),
    )


def _by_folder(read: Sequence[FileReading]) -> Iterator[FileReading]:
    """Files of one folder and suffix as one."""
    found: dict[str, list[FileReading]] = {}
    for file in read:
        path = PurePath(file.file)
        found.setdefault(f"{path.parent}/*{path.suffix}", []).append(file)
    for name, files in found.items():
        rows, missing = (sum(getattr(file, what) for file in files) for what in ("rows", "without_caption"))
        notes = [f"{PurePath(file.file).name}: {note}" for file in files for note in file.notes]
        yield FileReading(name, rows, len(files), missing, notes=tuple(notes[:LISTED]))


def judged(tally: FileRead) -> None:
    """Raises InputError for a file that has rows and no caption, naming what was found instead."""
    if tally.rows == 0 or tally.missing < tally.rows or (tally.reasons and tally.reasons.keys() <= BAD_ROWS):
        return
    column = tally._source.how.get("column")
    what = ", ".join(f"{count:,} {kind}" for kind, count in list(tally.reasons.items())[:KINDS]) or "nulls only"
    where = f"column {column!r} holds " if column else "it holds "
    needed = "needed text: name another with --column, or a key inside it as in --column a.b"
    raise refusal(tally.file, f"no caption in {tally.rows:,} rows: {where}{what}; {needed}")
