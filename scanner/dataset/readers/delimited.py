"""CSV and TSV, exactly as Python's csv module reads them in the dialect that was found or told."""

import csv
import re
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from itertools import islice

from scanner.dataset.readers import dialect as dialects
from scanner.dataset.readers.columns import (
    EMPTY_LINES,
    RAGGED,
    SHORT,
    NoColumnError,
    Source,
    from_python,
    pick,
    refusal,
)  # fmt: skip
from scanner.dataset.readers.dialect import Dialect
from scanner.dataset.readers.lines import BLOCK, MARK, by_python, first, opened, with_ends

SEP = re.compile(r'"?sep=([^\r\n])"?(?=[\r\n]|\Z)', re.IGNORECASE)  # a first line that tells Excel the delimiter
NOTED = 5  # bad records whose lines a note names
SAMPLED = 1 << 26  # characters that tell the dialect of a file that Python does not read itself


def read(source: str, column: str | None, told: str | None = None) -> Source:
    """A row is a record after the header. One with more fields than the header has, or without the field, is null.

    `told`: parts of the dialect, in words; the others are guessed. A first line `sep=;`, Excel's, is no record.
    Raises InputError.
    """
    given = dialects.told(told or "")
    head = first(source)
    if head is None:
        return Source(tuple)
    excel = SEP.match(head.lstrip(MARK))
    above = 0 if excel is None else 1  # lines before the header
    if excel is not None:
        given = {"delimiter": excel[1]} | given
    dialect = dialects.guess(lambda: islice(_sample(source), above, None), given, lambda sign: _contains(source, sign))

    def lines() -> Iterator[str]:
        return islice(with_ends(source, dialect.delimiter), above, None)

    header = [name.strip() for name in next(filter(None, dialect.reader(lines())), [])]
    try:
        names = pick(header, column, source)
    except NoColumnError as error:
        raise _hinted(error, dialect) from error
    for name in names:
        if header.count(name) > 1:
            raise refusal(source, f"two columns are called {name!r}: rename one")
    missing: Counter[str] = Counter()
    notes: list[str] = []
    places = [header.index(name) for name in names]

    def captions() -> Iterator[list[str | None]]:
        notes.clear()
        return _captions(lines(), dialect, places, len(header), missing, notes, above)

    how = {"column": ",".join(names), "dialect": str(dialect)}
    return Source(from_python(captions), how, header, missing, notes)


def _captions(
    lines: Iterator[str],
    dialect: Dialect,
    places: list[int],
    width: int,
    missing: Counter[str],
    notes: list[str],
    above: int,
) -> Iterator[list[str | None]]:
    """The captions of every record after the header, which `above` other lines precede; what is odd is noted."""
    held, misfits = _Held(lines), list[int]()  # the lines where they begin
    reader = dialect.reader(held)
    next(filter(None, reader), None)
    place = places[0] if len(places) == 1 else None
    record = held.take()
    for fields in reader:
        record = held.take()
        if place is not None and place < len(fields) <= width and fields[place]:
            yield [fields[place]]  # nearly every one
            continue
        if any(fields[width:]) or 0 < len(fields) <= max(places):
            misfits.append(above + reader.line_num - len(record) + 1)
        yield [_caption(fields, at, width, missing) for at in places]
    if misfits:
        more = f" and {len(misfits) - NOTED:,} more" if len(misfits) > NOTED else ""
        listed = ", ".join(f"{line:,}" for line in misfits[:NOTED])
        notes.append(f"records that do not fit the header begin in line {listed}{more}")
    if not _ends(dialect, record):
        line = above + reader.line_num - len(record) + 1
        notes.append(f"a quote opens in line {line:,} that never closes: {len(record):,} lines are one record")


def _caption(fields: Sequence[str], at: int, width: int, missing: Counter[str]) -> str | None:
    """One field of a record; None, and why, where it is not there or cannot be told from the others."""
    if any(fields[width:]):
        missing[RAGGED] += 1
    elif not fields:
        missing[EMPTY_LINES] += 1
    elif at >= len(fields):
        missing[SHORT] += 1
    elif not fields[at]:
        missing["empty fields"] += 1
    else:
        return fields[at]
    return None


class _Held:
    """Lines that are kept until taken."""

    def __init__(self, lines: Iterator[str]):
        self._lines, self._held = lines, list[str]()

    def __iter__(self) -> Iterator[str]:
        for line in self._lines:
            self._held.append(line)
            yield line

    def take(self) -> list[str]:
        """Those of the record that was read last."""
        taken, self._held = self._held, []
        return taken


def _ends(dialect: Dialect, record: list[str]) -> bool:
    """Whether the quotes of a record's lines close."""
    try:
        deque(dialect.reader(record, strict=True), maxlen=0)
    except csv.Error as error:
        return "end of data" not in str(error)
    return True


def _sample(source: str) -> Iterator[str]:
    """What tells the dialect: all of a local file, the beginning of another."""
    left = SAMPLED
    for line in with_ends(source):
        yield line
        left -= len(line)
        if left < 0 and not by_python(source):
            return


def _contains(source: str, signs: str) -> bool:
    """Whether any of some ASCII characters is in the file, or in what tells its dialect."""
    if not by_python(source):
        return any(sign in line for line in _sample(source) for sign in signs)
    with opened(source) as file:
        blocks = iter(lambda: file.read(BLOCK), b"")
        return any(sign in block for block in blocks for sign in map(str.encode, signs))


def _hinted(error: NoColumnError, dialect: Dialect) -> NoColumnError:
    """The same refusal where the header has one name only: perhaps the delimiter is another."""
    divided = len(error.names) > 1 or all(name.isidentifier() for name in error.names)
    hint = "" if divided else f" (read as {dialect}; --dialect tells another)"
    return NoColumnError(f"{error}{hint}", error.names)
