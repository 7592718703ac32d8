"""Any dataset of captions -> caption rows with their provenance, (file, row): a table of formats, each one function."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import polars as pl

from scanner.dataset.readers import arrow, delimited, document, find, own, parquet, tar, text
from scanner.dataset.readers.columns import (
    BATCH,
    COLUMN_GUESSES,
    SCHEMA,
    NoColumnError,
    Reader,
    Row,
    Source,
    frame_of,
    lazy,
    text_series,
)  # fmt: skip
from scanner.dataset.readers.dialect import told as told_dialect
from scanner.dataset.readers.find import absolute
from scanner.dataset.readers.names import BESIDE, DELTA, shown, unreadable
from scanner.dataset.readers.tally import FileRead, judged, together
from scanner.dataset.reading import FileReading, Problem, Reading
from scanner.errors import InputError, printable

__all__ = [
    "COLUMN_GUESSES", "READERS", "FileRead", "Problem", "Rows", "absolute", "damaged", "leave_out_damaged", "read",
    "unreadable", "values",
]  # fmt: skip

FORMATS: dict[str, Reader] = {
    ".parquet": parquet.read,
    ".csv": delimited.read,
    ".tsv": delimited.read,
    ".jsonl": text.jsonl,
    ".ndjson": text.jsonl,
    ".txt": text.plain,
    BESIDE: text.one,
    ".arrow": arrow.read,
    ".feather": arrow.read,
    ".json": document.read,
    ".json.gz": document.read,
    ".tar": tar.read,
    ".tgz": tar.read,
    ".tar.gz": tar.read,
}
FORMATS |= {  # what is unpacked while it streams
    suffix + packed: FORMATS[suffix]
    for suffix in (".csv", ".tsv", ".jsonl", ".ndjson", ".txt")
    for packed in (".gz", ".zst")
}
READERS: dict[str, Reader] = FORMATS | {DELTA: parquet.delta}
EXAMPLES = 3  # problems that a summary shows
FAILURES = (Exception, pl.exceptions.PanicException)  # whatever one file raises is that file's problem


@dataclass(frozen=True)
class Rows:
    """Caption rows of all readable files, and the files that could not be read.

    `files`: file -> its rows; `passed_over`: what folders hold that is no dataset; `limit`: how many rows of them all
    count; `read`: what was read of each file, once `frame` has been collected.
    """

    files: Mapping[str, Source] = field(repr=False)
    problems: tuple[Problem, ...]
    limit: int | None = None
    passed_over: tuple[Problem, ...] = ()
    read: dict[str, FileRead] = field(default_factory=dict, repr=False)

    @property
    def frame(self) -> pl.LazyFrame:
        """[file, row, caption], in the order of the files. Collect it with engine="streaming": memory stays bounded.

        Collecting raises InputError, naming the file, for damage that opening did not show, and for a file that has
        rows and no caption. `row` is the record's number in its file from 0, a header not counted; a record with
        several captions has several rows of one number. `caption` is null where there is none.
        """
        return lazy(self._frames, pl.Schema([("file", pl.String), *SCHEMA.items()]))

    def _frames(self) -> Iterator[pl.DataFrame]:
        """Frames of all files, small ones of many files together."""
        # one file after the other: Polars 2.1 hangs on one plan of some thousand scans
        self.read.clear()
        small: list[tuple[str, Sequence[Row]]] = []
        held, left = 0, self.limit
        for file, source in self.files.items():
            for batch in self.batches(file, source, left):
                left = None if left is None else left - len(batch)
                if isinstance(batch, pl.DataFrame) or held + len(batch) > BATCH:
                    yield from _joined(small)
                    small, held = [], 0
                if isinstance(batch, pl.DataFrame):
                    yield batch.select(pl.lit(shown(file)).alias("file"), "row", "caption")
                else:
                    small.append((file, batch))
                    held += len(batch)
            if left == 0:
                break
        yield from _joined(small)

    def batches(self, file: str, source: Source, limit: int | None = None) -> Iterator[pl.DataFrame | Sequence[Row]]:
        """One file's batches, no more rows than `limit`; what was read is noted in `read`. Raises InputError."""
        tally = self.read[shown(file)] = FileRead(shown(file), source)
        try:
            for batch in source.batches():
                kept = batch if limit is None else batch[: limit - tally.rows]
                tally.count(kept)
                yield kept
                if tally.rows == limit:
                    return
            judged(tally)
        except FAILURES as error:
            raise unreadable(file, error) from error

    def reading(self, each: bool = False) -> Reading:
        """What was read, of files and of folders; `each`: every one, however many, where a record shortens."""
        return self.reading_of((tally.reading() for tally in self.read.values()), each)

    def reading_of(self, files: Iterable[FileReading], each: bool = False) -> Reading:
        """The same, of files that may have been read elsewhere."""
        return together(files, [problem.message for problem in self.passed_over], each)

    def without(self, files: Collection[str]) -> "Rows":
        """The same rows without those of `files`."""
        return replace(self, files={file: source for file, source in self.files.items() if file not in files})

    def summary(self) -> str:
        """The problems in words: their number, and the first three. Empty where there is none."""
        if not self.problems:
            return ""
        lines = [f"{len(self.problems):,} of {len(self.problems) + len(self.files):,} files cannot be read:"]
        lines += [f"  {problem.message}" for problem in self.problems[:EXAMPLES]]
        if len(self.problems) > EXAMPLES:
            lines.append(f"  and {len(self.problems) - EXAMPLES:,} more")
        return "\n".join(lines)


def _joined(small: Sequence[tuple[str, Sequence[Row]]]) -> Iterator[pl.DataFrame]:
    if small:
        files = text_series("file", [shown(file) for file, rows in small for _ in rows])
        yield frame_of([row for _, rows in small for row in rows]).select(files, "row", "caption")


def read(
    inputs: Sequence[str | Path],
    column: str | None = None,
    limit: int | None = None,
    strict: bool = False,
    dialect: str | None = None,
) -> Rows:
    """Open every file of `inputs`: paths, globs, folders (searched recursively), s3://, gs:// and hf:// URLs.

    Opening reads a file's schema, so most damage shows here, and such a file becomes a Problem; damage in the
    middle shows when `frame` is collected, see `leave_out_damaged`. `limit`: the first rows only. `dialect`: of CSV
    files, see `scanner.dataset.readers.dialect.told`; None: guessed.
    Raises InputError for an input that names nothing, when no file is readable, and, `strict`, for any problem.
    """
    found = find.sources(inputs, list(FORMATS))
    if told_dialect(dialect or "") and not any(READERS[kind] is delimited.read for kind in found.files.values()):
        raise InputError(f"csv dialect {dialect!r}: none of the inputs is a CSV file")
    files: dict[str, Source] = {}
    problems = [Problem(file, f"{printable(file)}: {why}") for file, why in found.refused.items()]
    passed_over = [Problem(file, f"{printable(file)}: {why}") for file, why in found.passed_over.items()]
    for source, kind in found.files.items():
        reader = READERS[kind] if READERS[kind] is not delimited.read else partial(delimited.read, told=dialect)
        try:
            opened = reader(source, column)
        except FAILURES as error:
            if not isinstance(why_not := unreadable(source, error), InputError):
                raise why_not from error
            if source in found.walked and (why := _no_dataset(source, kind, error)):
                passed_over.append(Problem(source, why))
            else:
                problems.append(Problem(source, str(why_not)))
            continue
        if source in found.walked and own.is_table(source, READERS[kind], opened.names):
            passed_over.append(Problem(source, f"{printable(source)}: {own.WRITTEN}"))
        else:
            files[source] = opened
    return _judge(Rows(files, tuple(problems), limit, tuple(passed_over)), strict)


def _no_dataset(source: str, kind: str, error: Exception) -> str | None:
    """Why a file without captions in a folder is none of a dataset: it is ours, or a JSON document of other things."""
    if not isinstance(error, NoColumnError):
        return None
    if own.is_table(source, READERS[kind], error.names):
        return f"{printable(source)}: {own.WRITTEN}"
    return str(error) if READERS[kind] is document.read else None


def values(file: str, column: str) -> Iterator[Row]:
    """(row, text) of a column of one file. Raises InputError for a column that is not there, and for damage."""
    source = READERS[find.suffix(file, list(FORMATS))](file, column)
    try:
        for batch in source.batches():
            yield from batch.iter_rows() if isinstance(batch, pl.DataFrame) else batch
    except FAILURES as error:
        raise unreadable(file, error) from error


def leave_out_damaged(rows: Rows, strict: bool = False) -> Rows:
    """The same rows without the files at fault, after `frame` could not be collected.

    Raises InputError as `read` does, and when no file is at fault.
    """
    problems = damaged(rows)
    kept = rows.without({problem.file for problem in problems})
    return _judge(replace(kept, problems=(*rows.problems, *problems), read={}), strict)


def damaged(rows: Rows) -> list[Problem]:
    """The files at fault, after `frame` could not be collected: reads each in full, one after the other.

    Raises InputError when none is.
    """
    problems = []
    for file, source in rows.files.items():
        try:
            for _ in rows.batches(file, source):
                pass
        except InputError as error:
            problems.append(Problem(file, str(error)))
    if not problems:
        raise InputError("the input cannot be read, though each of its files can: have they changed meanwhile?")
    return problems


def _judge(rows: Rows, strict: bool) -> Rows:
    if not rows.files and not rows.problems:
        raise InputError(
            "no file of captions: " + "; ".join(problem.message for problem in rows.passed_over[:EXAMPLES])
        )
    if rows.problems and (strict or not rows.files):
        alone = len(rows.problems) == 1 and not rows.files
        raise InputError(rows.problems[0].message if alone else rows.summary())
    return rows
