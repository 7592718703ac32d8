"""Any dataset of captions -> caption rows with their provenance, (file, row): a table of formats, each one function."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from scanner.dataset.readers import arrow, document, find, parquet, tar, text
from scanner.dataset.readers.columns import COLUMN_GUESSES, SCHEMA, Reader, from_frames
from scanner.dataset.readers.find import absolute
from scanner.errors import InputError

__all__ = ["COLUMN_GUESSES", "READERS", "Problem", "Rows", "absolute", "leave_out_damaged", "read", "unreadable"]

READERS: dict[str, Reader] = {
    ".parquet": parquet.read,
    ".csv": text.csv,
    ".tsv": text.csv,
    ".jsonl": text.jsonl,
    ".ndjson": text.jsonl,
    ".txt": text.lines,
    ".arrow": arrow.read,
    ".feather": arrow.read,
    ".json": document.read,
    ".json.gz": document.read,
    ".tar": tar.read,
    ".tgz": tar.read,
    ".tar.gz": tar.read,
}
# what Polars decompresses while it streams
READERS |= {
    suffix + packed: READERS[suffix]
    for suffix in (".csv", ".tsv", ".jsonl", ".ndjson", ".txt")
    for packed in (".gz", ".zst")
}
TOGETHER = 32  # files read at once: Polars 2.1 hangs on a plan of some thousand files
EXAMPLES = 3  # problems that a summary shows


@dataclass(frozen=True)
class Problem:
    """A file that was left out of the rows, and why: what was found, what was needed, what to do."""

    file: str
    message: str


@dataclass(frozen=True)
class Rows:
    """Caption rows of all readable files, and the files that could not be read.

    `frames`: file -> lazy [row, caption]; `limit`: how many rows of them all count.
    """

    frames: Mapping[str, pl.LazyFrame] = field(repr=False)
    problems: tuple[Problem, ...]
    limit: int | None = None

    @property
    def frame(self) -> pl.LazyFrame:
        """[file, row, caption], in the order of the files. Collect it with engine="streaming": memory stays bounded.

        `row` is the record's number in its file from 0, a header not counted; a record with several captions has
        several rows of one number. `caption` is null where there is none.
        """
        rows = from_frames(self._batches, pl.Schema({"file": pl.String, **SCHEMA}), "captions")
        return rows if self.limit is None else rows.head(self.limit)

    def _batches(self) -> Iterator[pl.DataFrame]:
        named = [
            frame.select(pl.lit(file).alias("file"), pl.col("row").cast(pl.Int64), "caption")
            for file, frame in self.frames.items()
        ]
        for first in range(0, len(named), TOGETHER):
            yield from pl.concat(named[first : first + TOGETHER]).collect_batches(maintain_order=True)

    def summary(self) -> str:
        """The problems in words: their number, and the first three. Empty where there is none."""
        if not self.problems:
            return ""
        lines = [f"{len(self.problems):,} of {len(self.problems) + len(self.frames):,} files cannot be read:"]
        lines += [f"  {problem.message}" for problem in self.problems[:EXAMPLES]]
        if len(self.problems) > EXAMPLES:
            lines.append(f"  and {len(self.problems) - EXAMPLES:,} more")
        return "\n".join(lines)


def read(
    inputs: Sequence[str | Path], column: str | None = None, limit: int | None = None, strict: bool = False
) -> Rows:
    """Open every file of `inputs`: paths, globs, folders (searched recursively), s3://, gs:// and hf:// URLs.

    Opening reads a file's schema, so most damage shows here, and such a file becomes a Problem; damage in the
    middle shows when `frame` is collected, see `leave_out_damaged`. `limit`: the first rows only.
    Raises InputError for an input that names nothing, when no file is readable, and, `strict`, for any problem.
    """
    frames, problems = {}, []
    for source in find.sources(inputs, list(READERS)):
        try:
            frames[source] = READERS[find.suffix(source, list(READERS))](source, column)
        except (pl.exceptions.PolarsError, OSError, InputError) as error:
            problems.append(Problem(source, str(unreadable(source, error))))
    return _judge(Rows(frames, tuple(problems), limit), strict)


def leave_out_damaged(rows: Rows, strict: bool = False) -> Rows:
    """The same rows without the files at fault, after `frame` could not be collected.

    Collecting raises PolarsError, OSError or InputError then. Reads each file in full, one after the other, to find
    them. Raises InputError as `read` does, and when no file is at fault.
    """
    problems = []
    for source, frame in rows.frames.items():
        try:
            frame.select(pl.col("caption").str.len_bytes().sum()).collect(engine="streaming")
        except (pl.exceptions.PolarsError, OSError, InputError) as error:
            problems.append(Problem(source, str(unreadable(source, error))))
    if not problems:
        raise InputError("the input cannot be read, though each of its files can: have they changed meanwhile?")
    damaged = {problem.file for problem in problems}
    frames = {source: frame for source, frame in rows.frames.items() if source not in damaged}
    return _judge(Rows(frames, (*rows.problems, *problems), rows.limit), strict)


def _judge(rows: Rows, strict: bool) -> Rows:
    if rows.problems and (strict or not rows.frames):
        alone = len(rows.problems) == 1 and not rows.frames
        raise InputError(rows.problems[0].message if alone else rows.summary())
    return rows


def unreadable(what: str, error: Exception) -> InputError:
    """The error for a file that the reader gave up on; an InputError says it already."""
    if isinstance(error, InputError):
        return error
    reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
    return InputError(f"{what}: cannot be read ({reason}): repair or leave out the file")
