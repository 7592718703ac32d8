"""A JSON document's text, decoded a value at a time."""

from collections.abc import Iterator
from typing import IO, Any

from scanner.dataset.readers.records import BLANKS, decode

CHUNK = 1 << 20  # characters read at a time
LARGEST = 1 << 26  # characters of one record: more is taken for a broken file


class Document:
    """The text of a file, from its start. Every method raises ValueError for what is no JSON."""

    def __init__(self, file: IO[str]):
        self._file = file
        self._text, self._at = "", 0

    def peek(self) -> str:
        """The next character that is no blank, or "" at the end."""
        while True:
            while self._at < len(self._text):
                if self._text[self._at] not in BLANKS:
                    return self._text[self._at]
                self._at += 1
            if not self._more():
                return ""

    def take(self, expected: str) -> str:
        """The next character that is no blank. Raises ValueError for one that is not expected."""
        found = self.peek()
        if not found or found not in expected:
            raise ValueError(f"expected one of {expected!r}, found {found or 'the end'!r}")
        self._at += 1
        return found

    def value(self) -> Any:
        """The next value, whole."""
        self.peek()
        while True:
            try:
                value, end = decode(self._text, self._at)
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
            self.take("}")
            return
        while True:
            key = self.value()
            if not isinstance(key, str):
                raise ValueError(f"needed a key, found {key!r:.60}")
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
