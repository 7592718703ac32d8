"""How a JSON document holds its records: a list, COCO's object, pandas' orients, an object of records by image.

pandas' `to_json` writes six orients. Five are read; "values", lists without names, is refused by name.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, Literal, NamedTuple

from scanner.dataset.readers.columns import NoColumnError, guessed, listed, pick, refusal
from scanner.dataset.readers.names import IMAGES
from scanner.dataset.readers.stream import Document

COCO = "annotations"
KEPT = 20  # elements of a list or object that are looked at
ENOUGH = 100  # keys that tell what the others are
INSTEAD = f"needed a list of records, COCO's {COCO!r}, JSON lines or one of pandas' orients"

Kind = Literal["list", "wrapped", "index", "columns", "split", "record", "values"]


class Member(NamedTuple):
    """What a key of a document holds: its first elements, their keys if it is an object, and how many there are."""

    kind: Literal["list", "object", "text", "other"]
    head: list[Any] = []  # noqa: RUF012 (never changed)
    keys: tuple[str, ...] = ()
    size: int = 0


class Shape(NamedTuple):
    """`keys`: of the lists that hold records (wrapped), or all columns (columns, split)."""

    kind: Kind
    keys: tuple[str, ...] = ()


def shape_of(document: Document, column: str | None, source: str) -> Shape | None:
    """How a document holds its records; None where it is several values. Raises InputError and ValueError."""
    if document.peek() == "[":
        document.take("[")
        if document.peek() == "[":
            raise refusal(source, 'lists without names (pandas\' orient "values"): write it with orient="records"')
        return Shape("list")
    members: dict[str, Member] = {}
    for key in document.names():
        if key == COCO and document.peek() == "[":
            return Shape("wrapped", (key,))
        members[key] = _columns(document) if key == "columns" else _member(document)
        if len(members) == ENOUGH and (early := _by_image(members, column)):
            return early
    return None if document.peek() else _decide(members, column, source)


def _member(document: Document) -> Member:
    sign = document.peek()
    if sign not in ("[", "{"):
        document.value()
        return Member("text" if sign == '"' else "other")
    head: list[Any] = []
    keys: list[str] = []
    size = 0
    for key, value in _inner(document, sign):
        size += 1
        if size <= KEPT:
            head.append(value)
            keys.append(key)
    return Member("list" if sign == "[" else "object", head, () if sign == "[" else tuple(keys), size)


def _inner(document: Document, sign: str) -> Iterator[tuple[str, Any]]:
    if sign == "[":
        yield from (("", value) for value in document.elements())
    else:
        for key in document.names():
            yield key, document.value()


def _columns(document: Document) -> Member:
    """The names of pandas' orient "split", all of them."""
    value = document.value()
    names = tuple(map(str, value)) if isinstance(value, list) else ()
    return Member("list" if isinstance(value, list) else "other", list(names), names, len(names))


def _decide(members: Mapping[str, Member], column: str | None, source: str) -> Shape:
    """The shape by the document's keys. Raises NoColumnError."""
    if {"columns", "data"} <= members.keys() and members["columns"].keys and _all(members["data"].head, list):
        return Shape("split", members["columns"].keys)
    records = {key: member for key, member in members.items() if member.kind == "list" and _all(member.head, dict)}
    fitting = [key for key, member in records.items() if _has(member.head, column)]
    if fitting:
        return Shape("wrapped", tuple(fitting))
    if shape := _table(members, column) or _by_image(members, column):
        return shape
    if _fits(list(members), column) or (column is not None and "." in column):
        return Shape("record")
    inner = [key for member in records.values() for record in member.head for key in record]
    inner += [key for member in members.values() for key in member.keys if member.kind == "object"]
    found = listed(members) + (f" with records of {listed(dict.fromkeys(inner))}" if inner else "")
    raise NoColumnError(str(refusal(source, f"{INSTEAD}; it has {found}")), list(members))


def _table(members: Mapping[str, Member], column: str | None) -> Shape | None:
    """pandas' orient "columns", or its lists by column: as many elements in each, an index that all share."""
    first = next(iter(members.values()), Member("other"))
    if first.kind not in ("list", "object") or not _fits(list(members), column):
        return None
    alike = all((m.kind, m.keys, m.size) == (first.kind, first.keys, first.size) for m in members.values())
    counted = all(key.isdecimal() for key in first.keys)  # what a single column of objects might be else, nobody knows
    return Shape("columns", tuple(members)) if alike and (counted or len(members) > 1) else None


def _by_image(members: Mapping[str, Member], column: str | None) -> Shape | None:
    """Records by a key (pandas' orient "index", kohya's metadata), or captions by the name of their image."""
    if not members:
        return None
    objects = [
        dict(zip(member.keys, member.head, strict=True)) for member in members.values() if member.kind == "object"
    ]
    if len(objects) == len(members) and _has(objects, column):
        return Shape("index")
    plain = all(
        member.kind == "text" or (member.kind == "list" and _all(member.head, str)) for member in members.values()
    )
    named = sum(PurePosixPath(key).suffix.lower() in IMAGES for key in members)
    return Shape("index") if plain and column is None and named * 2 > len(members) else None


def _all(values: Sequence[Any], kind: type) -> bool:
    return bool(values) and all(isinstance(value, kind) for value in values)


def _has(records: Sequence[dict[str, Any]], column: str | None) -> bool:
    """Whether these records have a column of captions."""
    return _fits(list(dict.fromkeys(key for record in records for key in record)), column)


def _fits(names: list[str], column: str | None) -> bool:
    if column is None:
        return guessed(names) is not None
    try:
        return bool(pick(names, column.partition(".")[0] if "." in column and column not in names else column, ""))
    except NoColumnError:
        return False
