"""Any dataset of captions -> caption rows with their provenance, (file, row): a table of formats, each one function."""

from collections import deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import polars as pl

from scanner.dataset.readers import arrow, document, find, parquet, tar, text
from scanner.dataset.readers.columns import COLUMN_GUESSES, SCHEMA, Batches, Reader, lazy
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
EXAMPLES = 3  # problems that a summary shows


@dataclass(frozen=True)
class Problem:
    """A file that was left out of the rows, and why: what was found, what was needed, what to do."""

    file: str
    message: str


@dataclass(frozen=True)
class Rows:
    """Caption rows of all readable files, and the files that could not be read.

    `files`: file -> its rows; `limit`: how many rows of them all count.
    """

    files: Mapping[str, Batches] = field(repr=False)
    problems: tuple[Problem, ...]
    limit: int | None = None

    @property
    def frame(self) -> pl.LazyFrame:
        """[file, row, caption], in the order of the files. Collect it with engine="streaming": memory stays bounded.

        Collecting raises InputError, naming the file, for damage that opening did not show. `row` is the
        record's number in its file from 0, a header not counted; a record with several captions has several rows of
        one number. `caption` is null where there is none.
        """
        rows = lazy(self._batches, pl.Schema([("file", pl.String), *SCHEMA.items()]))
        return rows if self.limit is None else rows.head(self.limit)

    def _batches(self) -> Iterator[pl.DataFrame]:
        # one file after the other: Polars 2.1 hangs on one plan of some thousand scans
        for file, batches in self.files.items():
            try:
                for frame in batches():
                    yield frame.select(pl.lit(file).alias("file"), "row", "caption")
            except (pl.exceptions.PolarsError, OSError) as error:
                raise unreadable(file, error) from error

    def without(self, files: Collection[str]) -> "Rows":
        """The same rows without those of `files`."""
        return replace(self, files={file: batches for file, batches in self.files.items() if file not in files})

    def summary(self) -> str:
        """The problems in words: their number, and the first three. Empty where there is none."""
        if not self.problems:
            return ""
        lines = [f"{len(self.problems):,} of {len(self.problems) + len(self.files):,} files cannot be read:"]
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
    files: dict[str, Batches] = {}
    problems = []
    for source in find.sources(inputs, list(READERS)):
        try:
            files[source] = READERS[find.suffix(source, list(READERS))](source, column)
        except (pl.exceptions.PolarsError, OSError, InputError) as error:
            problems.append(Problem(source, str(unreadable(source, error))))
    return _judge(Rows(files, tuple(problems), limit), strict)


def leave_out_damaged(rows: Rows, strict: bool = False) -> Rows:
    """The same rows without the files at fault, after `frame` could not be collected.

    Reads each file in full, one after the other, to find them. Raises InputError as `read` does, and when
    no file is at fault.
    """
    problems = []
    for source, batches in rows.files.items():
        try:
            deque(batches(), maxlen=0)
        except (pl.exceptions.PolarsError, OSError, InputError) as error:
            problems.append(Problem(source, str(unreadable(source, error))))
    if not problems:
        raise InputError("the input cannot be read, though each of its files can: have they changed meanwhile?")
    kept = rows.without({problem.file for problem in problems})
    return _judge(replace(kept, problems=(*rows.problems, *problems)), strict)


def _judge(rows: Rows, strict: bool) -> Rows:
    if rows.problems and (strict or not rows.files):
        alone = len(rows.problems) == 1 and not rows.files
        raise InputError(rows.problems[0].message if alone else rows.summary())
    return rows


def unreadable(what: str, error: Exception) -> InputError:
    """The error for a file that the reader gave up on; an InputError says it already."""
    if isinstance(error, InputError):
        return error
    reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
    return InputError(f"{what}: cannot be read ({reason}): repair or leave out the file")
