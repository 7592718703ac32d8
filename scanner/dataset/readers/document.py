"""JSON documents: COCO captions, and lists of records; read a record at a time."""

import gzip
import json
from collections.abc import Iterator
from itertools import islice
from typing import IO, Any

from scanner.dataset.readers import text
from scanner.dataset.readers.columns import Batches, from_python, pick, texts
from scanner.dataset.readers.find import is_url
from scanner.errors import InputError

RECORDS = "annotations"  # COCO's key
HEAD = 100  # records looked at for their keys
CHUNK = 1 << 20  # characters read at a time
LARGEST = 1 << 26  # characters of one record: more is taken for a broken file
DECODER = json.JSONDecoder(strict=False)


def read(source: str, column: str | None) -> Batches:
    """A row is an element of `annotations`, or of a document that is a list. JSON lines are read as lines."""
    if is_url(source):
        raise InputError(f"{source}: a JSON document on an object store; needed a local file: copy it")
    if _is_lines(source):
        return text.jsonl(source, column)
    head = list(islice(_records(source), HEAD))
    name = None
    if not all(isinstance(record, str) for record in head):
        found = {key: None for record in head if isinstance(record, dict) for key in record}
        name = pick(list(found), column, source)

    def captions() -> Iterator[list[str | None]]:
        for record in _records(source):
            yield texts(record.get(name) if isinstance(record, dict) else record if name is None else None)

    return from_python(captions)


def _open(source: str) -> IO[str]:
    opener: Any = gzip.open if source.lower().endswith(".gz") else open
    file: IO[str] = opener(source, "rt", encoding="utf-8-sig", errors="replace")
    return file


def _is_lines(source: str) -> bool:
    with _open(source) as file:
        line = file.readline(CHUNK)
    if "\x00" in line:
        raise InputError(f"{source}: UTF-16 text; needed UTF-8: convert it (iconv -f UTF-16 -t UTF-8)")
    try:
        record = json.loads(line)
    except ValueError:
        return False
    return isinstance(record, dict) and RECORDS not in record


def _records(source: str) -> Iterator[Any]:
    """The elements of the document's list. Raises InputError where there is none, or the document is broken."""
    with _open(source) as file:
        document = _Document(file)
        keys = []
        try:
            if document.peek() == "[":
                yield from document.elements()
                return
            for key in document.names():
                keys.append(key)
                if document.peek() != "[":
                    document.value()
                    continue
                for element in document.elements():
                    if key == RECORDS:
                        yield element
        except (ValueError, EOFError, OSError) as error:
            raise InputError(f"{source}: broken or truncated JSON ({error}): repair or leave out the file") from error
    if RECORDS not in keys:
        found = ", ".join(map(repr, keys)) or "no key"
        raise InputError(f"{source}: needed COCO's {RECORDS!r}, a list of records, or JSON lines; it has {found}")


class _Document:
    """A JSON document's text, decoded a value at a time."""

    def __init__(self, file: IO[str]):
        self._file = file
        self._text, self._at = "", 0

    def peek(self) -> str:
        """The next character that is no space, or "" at the end."""
        while True:
            rest = self._text[self._at : self._at + 64].lstrip()
            if rest:
                self._at = self._text.index(rest[0], self._at)
                return rest[0]
            self._at = min(self._at + 64, len(self._text))
            if self._at == len(self._text) and not self._more():
                return ""

    def take(self, expected: str) -> str:
        """The next character that is no space. Raises ValueError for one that is not expected."""
        found = self.peek()
        if not found or found not in expected:
            raise ValueError(f"expected one of {expected!r}, found {found or 'the end'!r}")
        self._at += 1
        return found

    def value(self) -> Any:
        """The next value, whole. Raises ValueError."""
        self.peek()
        while True:
            try:
                value, end = DECODER.raw_decode(self._text, self._at)
            except ValueError:
                if not self._more():
                    raise
                continue
            if end < len(self._text) or not self._more():  # a number may go on in the next chunk
                self._at = end
                return value

    def elements(self) -> Iterator[Any]:
        """The elements of the list that comes next."""
        self.take("[")
        if self.peek() == "]":
            self.take("]")
            return
        yield self.value()
        while self.take(",]") == ",":
            yield self.value()

    def names(self) -> Iterator[str]:
        """The keys of the object that comes next; each time the caller reads what belongs to it."""
        self.take("{")
        if self.peek() == "}":
            return
        while True:
            key = self.value()
            self.take(":")
            yield key
            if self.take(",}") == "}":
                return

    def _more(self) -> bool:
        """Read on; what is decoded is dropped. Raises ValueError for a record that does not end."""
        rest = self._text[self._at :]
        if len(rest) > LARGEST:
            raise ValueError(f"no end of a record within {LARGEST:,} characters")
        chunk = self._file.read(max(CHUNK, len(rest)))
        self._text, self._at = rest + chunk, 0
        return bool(chunk)
