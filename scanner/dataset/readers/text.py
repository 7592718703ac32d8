"""Plain lines, JSON lines, and files that are one caption each; plain or compressed."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

from scanner.dataset.readers.columns import EMPTY_FILES, EMPTY_LINES, NoColumnError, Row, Source, from_python, refusal
from scanner.dataset.readers.lines import MARK, by_python, first, lines, opened
from scanner.dataset.readers.records import captions_of, parse

LARGEST = 1 << 24  # bytes of a file that is one caption


def plain(source: str, column: str | None) -> Source:
    """A row is a line. An empty one has a null caption. Raises InputError for a column, which lines do not have."""
    _no_column(source, column)
    if first(source) is None:
        return Source(tuple)
    missing: Counter[str] = Counter()

    def captions() -> Iterator[list[str | None]]:
        for line in lines(source):
            if not line:
                missing[EMPTY_LINES] += 1
            yield [line or None]

    return Source(from_python(captions), missing=missing)


def jsonl(source: str, column: str | None) -> Source:
    """A row is a line. One that is no JSON, or has no text for a caption, has a null caption."""
    if first(source) is None:
        return Source(tuple)
    missing: Counter[str] = Counter()

    def records() -> Iterator[Any]:
        return map(parse, lines(source))

    try:
        of, names = captions_of(records, column, source, missing)
    except NoColumnError as error:
        if error.names:
            raise
        raise refusal(
            source, "no line of it is a JSON object; one document, indented or not, is a .json file"
        ) from error
    how = {"column": ",".join(".".join(path) for path in of.paths)} if of.paths else {}
    return Source(from_python(lambda: map(of, records())), how, names, missing)


def one(source: str, column: str | None) -> Source:
    """The file is one caption, whatever lines it has, as trainers read a text beside an image."""
    _no_column(source, column)
    if not by_python(source):
        raise refusal(source, "one caption a file on an object store; needed a local file: copy it, or name a table")
    opened(source).close()  # whether it may be read, shows here
    missing: Counter[str] = Counter()

    def batches() -> Iterator[list[Row]]:
        with opened(source) as file:
            content = file.read(LARGEST + 1)
        if len(content) > LARGEST:
            raise refusal(source, f"more than {LARGEST:,} bytes for one caption; needed a caption: leave out the file")
        text = content.decode(errors="replace").lstrip(MARK).rstrip("\r\n")
        if not text:
            missing[EMPTY_FILES] += 1
        yield [(0, text or None)]

    return Source(batches, missing=missing)


def _no_column(source: str, column: str | None) -> None:
    if column is not None:
        raise refusal(source, f"plain text has no columns, and --column {column} was asked: leave out one of the two")
