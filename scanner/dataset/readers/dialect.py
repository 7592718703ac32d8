"""How a CSV file is written: guessed from it, or told. What is found is what Python's csv module is given."""

import csv
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from typing import Any

from scanner.errors import InputError

DELIMITERS = (",", "\t", ";", "|")
NO_DELIMITER = "\x1f"
QUOTE, ESCAPE = '"', "\\"
SIGNS = QUOTE + ESCAPE + "'"
HEADER = 5  # lines of a header at most
SAMPLE = 100  # records that tell the delimiter, and whether blanks follow it
WORDS = {"tab": "\t", "comma": ",", "semicolon": ";", "pipe": "|", "space": " ", "backslash": ESCAPE, "quote": QUOTE}
SWITCHES = {"yes": True, "no": False, "true": True, "false": False}
LIMIT = 2**31 - 1  # characters of a field; Python's own limit is 131,072


@dataclass(frozen=True)
class Dialect:
    """The names and the meaning are those of Python's csv module; no `quotechar`: quotes are characters like others."""

    delimiter: str
    quotechar: str | None = QUOTE
    escapechar: str | None = None
    doublequote: bool = True
    skipinitialspace: bool = False

    def reader(self, lines: Iterable[str], strict: bool = False) -> Any:
        """Python's csv.reader of this dialect."""
        csv.field_size_limit(LIMIT)
        quoting = csv.QUOTE_NONE if self.quotechar is None else csv.QUOTE_MINIMAL
        options: dict[str, Any] = {"quoting": quoting, "strict": strict} | asdict(self)
        return csv.reader(lines, **options)

    def __str__(self) -> str:
        names = {sign: word for word, sign in WORDS.items()} | {
            None: "none",
            NO_DELIMITER: "none",
            True: "yes",
            False: "no",
        }
        return " ".join(f"{name}={names.get(value, value)}" for name, value in asdict(self).items())


def told(words: str) -> dict[str, Any]:
    """The parts of a dialect in an option's words, `delimiter=tab quotechar=none`. Raises InputError."""
    parts: dict[str, Any] = {}
    for word in words.split():
        name, _, value = word.partition("=")
        known: Any = WORDS.get(value.lower(), value)
        if name in ("doublequote", "skipinitialspace"):
            known = SWITCHES.get(value.lower())
        elif value.lower() == "none":
            known = NO_DELIMITER if name == "delimiter" else None
        if name not in Dialect.__dataclass_fields__ or (known is None and value.lower() != "none") or known == "":
            raise InputError(f"csv dialect {word!r}: needed words such as {Dialect(',')}")
        if isinstance(known, str) and len(known) != 1:
            raise InputError(f"csv dialect {word!r}: needed one character, or one of {', '.join(WORDS)}, none")
        parts[name] = known
    return parts


def guess(lines: Callable[[], Iterator[str]], given: dict[str, Any], quotes: Callable[[str], bool]) -> Dialect:
    """The dialect of a file: what is `given`, and of the rest what fits its records best.

    `lines()`: the file's lines with their ends, from the start; `quotes(signs)`: whether any of these is in it.
    """
    head = _whole_header(list(islice(_filled(lines()), SAMPLE + 1)))
    delimiter = given.get("delimiter") or _delimiter(head)
    if "quotechar" in given or "escapechar" in given or "doublequote" in given:
        candidates = [Dialect(delimiter)]
    else:
        candidates = _candidates(delimiter) if quotes(SIGNS) else [Dialect(delimiter)]
        if not any(re.search(rf"(^|{re.escape(delimiter)})'[^']+'({re.escape(delimiter)}|$)", line) for line in head):
            candidates = [one for one in candidates if one.quotechar != "'"]
    blanks = _blanks(head, delimiter)
    if "skipinitialspace" not in given and not blanks and len(candidates) > 1:
        candidates += [replace(candidate, skipinitialspace=True) for candidate in candidates if candidate.quotechar]
    candidates = list(
        dict.fromkeys(replace(one, **({"skipinitialspace": True} if blanks else {}) | given) for one in candidates)
    )
    return candidates[0] if len(candidates) == 1 else _fitting(lines, candidates)


def _candidates(delimiter: str) -> list[Dialect]:
    """What is tried, the likeliest first."""
    plain = Dialect(delimiter)
    return [
        plain,
        Dialect(delimiter, escapechar=ESCAPE),
        Dialect(delimiter, None),
        Dialect(delimiter, None, ESCAPE),
        Dialect(delimiter, "'"),
    ]


def _fitting(lines: Callable[[], Iterator[str]], candidates: Sequence[Dialect]) -> Dialect:
    """The first candidate that every record fits, or that most do."""
    if candidates[0].delimiter == "\t":  # unquoted, unless every quoted field closes on its own line
        candidates = [one for one in candidates if one.quotechar is None or _closes(lines(), one)]
    fewest: tuple[int, Dialect] | None = None
    for candidate in candidates:
        misfits = _misfits(lines(), candidate, None if fewest is None else fewest[0])
        if fewest is None or misfits < fewest[0]:
            fewest = misfits, candidate
        if not misfits:
            break
    assert fewest is not None
    return fewest[1]


def _closes(lines: Iterator[str], dialect: Dialect) -> bool:
    """Whether every quoted field ends on the line it begins on, with nothing behind its quote."""
    for line in lines:
        if QUOTE in line:
            try:
                next(dialect.reader([line], strict=True))
            except csv.Error:
                return False
    return True


def _misfits(lines: Iterator[str], dialect: Dialect, enough: int | None) -> int:
    """Records that break the dialect's rules or have other fields than the header; no more than `enough`."""
    reader = dialect.reader(lines, strict=True)
    width, found = None, 0
    while enough is None or found < enough:
        try:
            fields = next(reader)
        except StopIteration:
            break
        except csv.Error:
            found += 1
            continue
        if not fields:
            continue
        width = len(fields) if width is None else width
        quoted = dialect.quotechar != QUOTE and any(len(f) > 1 and f[0] == f[-1] == QUOTE for f in fields)
        found += quoted or len(fields) != width
    return found


def _whole_header(head: list[str]) -> list[str]:
    """The lines with the first few as one where a quote opens in the first and closes in another."""
    for n in range(1, min(HEADER, len(head)) + 1):
        if "".join(head[:n]).count(QUOTE) % 2 == 0:
            return ["".join(head[:n]), *head[n:]]
    return head


def _delimiter(head: Sequence[str]) -> str:
    """The one of the header's delimiters that divides most records as it does the header."""
    if not head:
        return NO_DELIMITER
    unquoted = [re.sub(r'"[^"]*"', "", line) for line in head]
    there = [sign for sign in DELIMITERS if sign in unquoted[0]]
    if not there:
        return NO_DELIMITER

    def fit(sign: str) -> tuple[float, int]:
        count = unquoted[0].count(sign)
        alike = sum(line.count(sign) == count for line in unquoted[1:])
        return alike / max(1, len(unquoted) - 1), count

    return max(there, key=fit)


def _blanks(head: Sequence[str], delimiter: str) -> bool:
    """Whether a blank follows every delimiter of the header and of the first records."""
    parts = [part for line in head for part in line.rstrip("\r\n").split(delimiter)[1:]]
    return bool(parts) and all(part.startswith(" ") for part in parts if part)


def _filled(lines: Iterator[str]) -> Iterator[str]:
    return (line for line in lines if line.strip())
