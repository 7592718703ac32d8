"""Arrow IPC: files (Feather V2), scanned, and streams (Hugging Face datasets), read a record batch at a time."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import IO

import polars as pl

from scanner.dataset.readers.columns import ROW, Batch, Source, captions, refusal
from scanner.dataset.readers.lines import raw
from scanner.dataset.readers.messages import BATCH, DICTIONARY, END, MAGIC, Message, messages, messages_of_file


def read(source: str, column: str | None) -> Source:
    """A row is a row. A truncated file shows on opening."""
    if source.startswith("hf://"):
        return _file(source, column)  # which Polars alone knows how to read
    with raw(source) as file:
        magic = file.read(len(MAGIC))
    if magic.startswith(b"FEA1"):
        raise refusal(source, "Feather V1; needed Arrow IPC (Feather V2): write it again with a current library")
    if magic.startswith(b"ARROW1"):
        opened = _file(source, column)  # a broken footer shows here, in words of Polars
        _whole(source, messages_of_file(source))
        return opened
    parts = messages(source)
    _whole(source, parts)
    opened = captions(_load(source, parts[:1]).lazy(), column, source)  # raises where the column is not there

    def batches() -> Iterator[Batch]:
        offset = 0
        for part in _with_dictionaries(parts):
            frame = _load(source, part, offset)
            offset += len(frame)
            yield from captions(frame.lazy(), column, source).batches()

    return replace(opened, batches=batches)


def _file(source: str, column: str | None) -> Source:
    return captions(pl.scan_ipc(source, row_index_name=ROW, glob=False), column, source)


def _whole(source: str, parts: Sequence[Message]) -> None:
    """Raises InputError for dictionaries that add to those before them, which Polars cannot read."""
    if any(part.delta for part in parts):
        raise refusal(source, "Arrow with delta dictionaries; needed whole ones: write it again without them")


def _with_dictionaries(parts: Sequence[Message]) -> Iterator[list[Message]]:
    """For each record batch the messages that make it a stream: the schema, the dictionaries that hold then, itself.

    A stream may replace its dictionaries between batches; those after a batch say nothing of it.
    """
    schema, dictionaries = parts[0], dict[int, Message]()
    for part in parts:
        if part.kind == DICTIONARY:
            dictionaries.pop(part.dictionary, None)  # one that others are made of comes before them
            dictionaries[part.dictionary] = part
        elif part.kind == BATCH:
            yield [schema, *dictionaries.values(), part]


def _load(source: str, parts: Sequence[Message], offset: int = 0) -> pl.DataFrame:
    """[__row__, columns...] of a stream of these messages alone."""
    with raw(source) as file:
        content = b"".join(_bytes(file, part) for part in parts)
    return pl.read_ipc_stream(content + END).with_row_index(ROW, offset)


def _bytes(file: IO[bytes], part: Message) -> bytes:
    file.seek(part.start)
    return file.read(part.length)
