"""JSON documents: lists of records, COCO captions, pandas' orients, records by image; read a record at a time."""

import contextlib
import io
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from scanner.dataset.readers import text
from scanner.dataset.readers.columns import Source, from_python, pick, refusal
from scanner.dataset.readers.lines import first, opened
from scanner.dataset.readers.records import Captions, captions_of, parse
from scanner.dataset.readers.shape import Shape, shape_of
from scanner.dataset.readers.stream import CHUNK, Document


def read(source: str, column: str | None) -> Source:
    """A row is a record, however the document holds them. JSON lines are read as lines."""
    first(source)
    if _is_lines(source):
        return text.jsonl(source, column)
    with _document(source) as document:
        shape = shape_of(document, column, source)
    missing: Counter[str] = Counter()
    if shape is not None and shape.kind == "columns":
        of, names = Captions([(name,) for name in pick(shape.keys, column, source)], missing), list(shape.keys)
        wanted = tuple(path[0] for path in of.paths)
    else:
        of, names = captions_of(lambda: _records(source, shape, ()), column, source, missing)
        wanted = ()
    how = {"column": ",".join(".".join(path) for path in of.paths)} if of.paths else {}
    return Source(from_python(lambda: map(of, _records(source, shape, wanted))), how, names, missing)


@contextlib.contextmanager
def _document(source: str) -> Iterator[Document]:
    """A file's text. Raises InputError for one that is broken."""
    try:
        with opened(source) as file, io.TextIOWrapper(file, "utf-8-sig", errors="replace") as decoded:
            yield Document(decoded)
    except (ValueError, EOFError, OSError, zlib.error) as error:
        raise refusal(source, f"broken or truncated JSON ({error}): repair or leave out the file") from error


def _is_lines(source: str) -> bool:
    """Whether the first line is a value of its own, and not all of the file."""
    with _document(source), opened(source) as file, io.TextIOWrapper(file, "utf-8-sig", errors="replace") as lines:
        head, rest = lines.readline(CHUNK), lines.read(CHUNK)
    return bool(rest.strip()) and isinstance(parse(head), dict | str)


def _records(source: str, shape: Shape | None, wanted: tuple[str, ...]) -> Iterator[Any]:
    """The records of a document. Raises InputError where it is broken."""
    if wanted:  # a column at a time is in the file, so each is read by itself
        columns = [_column(source, name) for name in wanted]
        yield from (dict(zip(wanted, values, strict=True)) for values in zip(*columns, strict=True))
        return
    with _document(source) as document:
        yield from READ["concatenated" if shape is None else shape.kind](document, shape)


def _column(source: str, name: str) -> Iterator[Any]:
    with _document(source) as document:
        for key in document.names():
            if key != name:
                document.value()
            elif document.peek() == "[":
                yield from document.elements()
            else:
                yield from (document.value() for _ in document.names())


def _lists(document: Document, shape: Shape | None) -> Iterator[Any]:
    while document.peek():  # files that were joined hold more than one
        yield from document.elements()


def _values(document: Document, shape: Shape | None) -> Iterator[Any]:
    while document.peek():
        yield document.value()


def _wrapped(document: Document, shape: Shape | None) -> Iterator[Any]:
    for key in document.names():
        if shape is not None and key in shape.keys:
            yield from document.elements()
        else:
            document.value()


def _by_key(document: Document, shape: Shape | None) -> Iterator[Any]:
    yield from (document.value() for _ in document.names())


def _split(document: Document, shape: Shape | None) -> Iterator[Any]:
    columns = () if shape is None else shape.keys
    for key in document.names():
        if key != "data":
            document.value()
            continue
        for row in document.elements():
            yield dict(zip(columns, row, strict=False)) if isinstance(row, list) else row


READ: dict[str, Callable[[Document, Shape | None], Iterator[Any]]] = {
    "list": _lists,
    "wrapped": _wrapped,
    "index": _by_key,
    "split": _split,
    "record": _values,
    "concatenated": _values,
}
