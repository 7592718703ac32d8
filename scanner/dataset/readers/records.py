"""One JSON record and its captions: what every JSON format, lines, documents and members of tars, is read by."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, Final

from scanner.dataset.readers.columns import NoColumnError, Path, pick, texts

HEAD = 1000  # records looked at for their keys before a column is guessed
DEPTH = 4  # keys below one another that are looked at for a nested column
BLANKS = " \t\n\r\ufeff"  # JSON's, and byte order marks where files were joined
LONGEST_EXAMPLE = 60


class Unread:
    """A value that is nested too deeply to be read, or a key that is not there."""

    def __init__(self, what: str):
        self.what = what


DEEP: Final = Unread("values nested too deeply")
MISSING: Final = Unread("no such key")
BROKEN: Final = Unread("no JSON")


def _constant(name: str) -> str | None:
    """NaN is how pandas and NumPy write that there is nothing."""
    return None if name == "NaN" else name


# json.loads(text, strict=False) with numbers as they are written
DECODER = json.JSONDecoder(strict=False, parse_float=str, parse_int=str, parse_constant=_constant)


def parse(text: str) -> Any:
    """What `json.loads(text, strict=False)` reads; numbers as text as written, NaN as null, BROKEN where it is none.

    Byte order marks around it are dropped. Values nested more deeply than Python reads are DEEP, the others are there.
    """
    try:
        value, end = DECODER.raw_decode(text)
        if end == len(text):
            return value
    except (ValueError, RecursionError):
        pass
    text = text.strip(BLANKS)
    try:
        value, end = decode(text, 0)
    except ValueError:
        return BROKEN
    return value if end == len(text) else BROKEN


def decode(text: str, at: int) -> tuple[Any, int]:
    """The value that begins at a character, and where it ends. Raises ValueError."""
    try:
        return DECODER.raw_decode(text, at)
    except RecursionError:
        return _shallow(text, at)


def _shallow(text: str, at: int) -> tuple[Any, int]:
    """The same of a value that holds others nested too deeply: an object's others are read, a list is DEEP."""
    if text[at] != "{":
        return DEEP, _skip(text, at)
    record: dict[str, Any] = {}
    end = at
    while text[end] != "}":  # "{" or "," behind us
        key, start = _key(text, end + 1)
        try:
            record[key], end = DECODER.raw_decode(text, start)
        except RecursionError:
            record[key], end = DEEP, _skip(text, start)
        end = _blank(text, end)
        if text[end : end + 1] not in ("}", ","):
            raise ValueError("needed , or }")
    return record, end + 1


def _skip(text: str, at: int) -> int:
    """Where a list or object ends that is nested too deeply to be read. Raises ValueError where it is none."""
    closing: list[str] = []  # of what is open
    while True:
        sign = text[at : at + 1]
        if sign in ("[", "{"):
            closing.append("]" if sign == "[" else "}")
            following = _blank(text, at + 1)
            if text[following : following + 1] != closing[-1]:
                at = following if sign == "[" else _key(text, following)[1]
                continue
            at = following
        else:
            at = DECODER.raw_decode(text, at)[1]
        while text[(at := _blank(text, at)) : at + 1] == closing[-1]:
            closing.pop()
            at += 1
            if not closing:
                return at
        if text[at : at + 1] != ",":
            raise ValueError("needed , or the end of a list or object")
        at = _blank(text, at + 1) if closing[-1] == "]" else _key(text, at + 1)[1]


def _key(text: str, at: int) -> tuple[str, int]:
    """An object's key, and where its value begins. Raises ValueError."""
    key, end = DECODER.raw_decode(text, _blank(text, at))
    end = _blank(text, end)
    if text[_blank(text, at)] != '"' or text[end : end + 1] != ":":
        raise ValueError("needed a key")
    return key, _blank(text, end + 1)


def _blank(text: str, at: int) -> int:
    while text[at : at + 1] and text[at] in " \t\n\r":
        at += 1
    return at


def at(value: Any, path: Path) -> Any:
    """What lies under these keys; of a list, what lies under them in each of its elements."""
    for n, key in enumerate(path):
        if isinstance(value, list):
            inner = [at(item, path[n:]) for item in value]
            return [one for found in inner for one in (found if isinstance(found, list) else [found])] or None
        if not isinstance(value, dict):
            return value if isinstance(value, Unread) else MISSING
        value = value.get(key, MISSING)
    return value


class Captions:
    """What a record's captions are. `paths`: keys that lead to them, none where the record itself is one."""

    def __init__(self, paths: list[Path], missing: Counter[str]):
        self.paths, self.missing = paths, missing
        self._key = paths[0][0] if len(paths) == 1 and len(paths[0]) == 1 else None

    def __call__(self, record: Any) -> list[str | None]:
        """The captions, null where there is none; why, is counted."""
        if self._key is not None and type(record) is dict and type(value := record.get(self._key)) is str:
            return [value]  # nearly every one
        if not self.paths:
            return self._texts(MISSING if isinstance(record, dict) else record)
        return [caption for path in self.paths for caption in self._texts(at(record, path))]

    def _texts(self, value: Any) -> list[str | None]:
        found = texts(value)
        for n, caption in enumerate(found):
            if caption is None:
                self.missing[kind(value[n] if isinstance(value, list) and value else value)] += 1
        return found


def kind(value: Any) -> str:
    """What a value that is no caption is, in words that count alike for alike ones."""
    if isinstance(value, Unread):
        return value.what
    if isinstance(value, dict):
        return "objects with the keys " + ", ".join(list(value)[:3])[:LONGEST_EXAMPLE] if value else "empty objects"
    if isinstance(value, list):
        return "lists in lists" if value else "empty lists"
    return "null"


def captions_of(
    records: Callable[[], Iterable[Any]], column: str | None, source: str, missing: Counter[str]
) -> tuple[Captions, list[str]]:
    """How to get the captions of these records, and the names of their keys; all are read where the first do not tell.

    Where the first are text and none is an object, they are captions themselves. Raises NoColumnError.
    """
    rest = iter(records())
    keys: dict[str, tuple[Path, bool]] = {}  # name -> its path, and whether it holds anything
    while head := list(islice(rest, HEAD)):
        for record in head:
            for name, path, filled in _keys(record, column):
                keys[name] = (path, filled or (name in keys and keys[name][1]))
        if column is None and not keys and any(isinstance(record, str) for record in head):
            return Captions([], missing), []
        try:
            names = _known(keys, column, source)
            break
        except NoColumnError:
            continue
    else:
        names = pick(list(keys), column, source)
    top = [name for name, (path, _) in keys.items() if len(path) == 1]
    return Captions([keys[name][0] for name in names], missing), top


def _known(keys: dict[str, tuple[Path, bool]], column: str | None, source: str) -> list[str]:
    """The columns as far as these keys tell: a guess without any value yet is none. Raises NoColumnError."""
    if column is None:
        return pick([name for name, (_, filled) in keys.items() if filled], None, source)
    return pick(list(keys), column, source)


def _keys(record: Any, column: str | None) -> Iterator[tuple[str, Path, bool]]:
    """Name, path and whether it holds anything, of a record's keys; of those inside others if the column has a dot."""
    if isinstance(record, dict):
        yield from ((key, (key,), value is not None) for key, value in record.items())
        if column is not None and "." in column:
            for key, value in record.items():
                yield from _inner((key,), value)


def _inner(path: Path, value: Any) -> Iterator[tuple[str, Path, bool]]:
    for item in value[:3] if isinstance(value, list) else (value,):
        if isinstance(item, dict) and len(path) < DEPTH:
            for key, inner in item.items():
                yield ".".join([*path, key]), (*path, key), inner is not None
                yield from _inner((*path, key), inner)
