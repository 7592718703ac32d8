"""Plain lines, JSON lines, and files that are one caption each; plain or compressed."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from scanner.dataset.readers.columns import (
    EMPTY_FILES,
    EMPTY_LINES,
    NoColumnError,
    Row,
    Source,
    from_python,
    guessed,
    listed,
    refusal,
)
from scanner.dataset.readers.dialect import DELIMITERS
from scanner.dataset.readers.lines import MARK, first, lines, opened
from scanner.dataset.readers.records import BLANKS, BROKEN, Unread, captions_of, parse

LOOKED_AT = 20  # lines that tell a table
NAME = re.compile(r"[\w.-]+")  # of a column
TABS = "every line has a tab: if that divides columns, give them names in a first line and rename it to .tsv"
EMPTY = Unread(EMPTY_LINES)
LARGEST = 1 << 24  # bytes of a file that is one caption


def plain(source: str, column: str | None) -> Source:
    """A row is a line. An empty one has a null caption.

    Raises InputError for a column, which lines do not have, and for a table with a header.
    """
    _no_column(source, column)
    head = first(source)
    if head is None:
        return Source(tuple)
    looked_at = [line for line in head.splitlines()[:LOOKED_AT] if line]
    _no_table(source, looked_at)
    missing: Counter[str] = Counter()
    notes: list[str] = []

    def captions() -> Iterator[list[str | None]]:
        notes[:] = [TABS] if len(looked_at) > 1 and all("\t" in line.strip() for line in looked_at[:-1]) else []
        for line in lines(source):
            if not line:
                missing[EMPTY_LINES] += 1
            yield [line or None]

    return Source(from_python(captions), missing=missing, notes=notes)


def _no_table(source: str, looked_at: Sequence[str]) -> None:
    """Raises InputError where the first line names columns, a caption's among them, that the next lines have too."""
    header, *rest = looked_at or [""]
    for sign in DELIMITERS:
        names = [name.strip(' "') for name in header.split(sign)]
        fits = rest and len(names) > 1 and all(line.count(sign) >= len(names) - 1 for line in rest[:-1] or rest)
        if fits and guessed(names) and all(NAME.fullmatch(name) for name in names):
            raise refusal(source, f"a table with the columns {listed(names)}; needed lines: rename it to .csv or .tsv")


def jsonl(source: str, column: str | None) -> Source:
    """A row is a line. One that is no JSON, or has no text for a caption, has a null caption."""
    head = first(source)
    if head is None:
        return Source(tuple)
    _no_document(source, head)
    missing: Counter[str] = Counter()

    def records() -> Iterator[Any]:
        return (parse(line) if line else EMPTY for line in lines(source))

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


def _no_document(source: str, head: str) -> None:
    """Raises InputError where the first line is no record but the beginning of a document, of which some may be."""
    line = head.lstrip(BLANKS).partition("\n")[0].rstrip(BLANKS)
    if line.endswith(("[", "{", ",")) and "\n" in head and parse(line) is BROKEN:
        raise refusal(
            source, f"its first line ends in {line[-1]!r}: one document over several lines, or commas between records; "
            "needed an object a line, and nothing between them (a whole document is a .json file)"
        )  # fmt: skip


def one(source: str, column: str | None) -> Source:
    """The file is one caption, whatever lines it has, as trainers read a text beside an image."""
    _no_column(source, column)
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
