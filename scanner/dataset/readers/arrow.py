"""Arrow IPC: files (Feather V2), scanned, and streams (Hugging Face datasets), read a record batch at a time."""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

import polars as pl

from scanner.dataset.readers.columns import ROW, Batches, captions, scanned
from scanner.dataset.readers.columns import SCHEMA as COLUMNS
from scanner.dataset.readers.find import is_url
from scanner.errors import InputError

CONTINUATION = b"\xff\xff\xff\xff"
END = CONTINUATION + bytes(4)
SCHEMA, DICTIONARY, BATCH = 1, 2, 3  # MessageHeader of Arrow's Message.fbs


class Message(NamedTuple):
    """Where a message of a stream lies in its file, in bytes."""

    kind: int
    start: int
    length: int


def read(source: str, column: str | None) -> Batches:
    """A row is a row. A truncated file shows on opening."""
    if is_url(source) or _magic(source).startswith(b"ARROW1"):
        return scanned(captions(pl.scan_ipc(source, row_index_name=ROW, glob=False), column, source))
    if _magic(source).startswith(b"FEA1"):
        raise InputError(f"{source}: Feather V1; needed Arrow IPC (Feather V2): write it again with a current library")
    messages = _messages(source)
    captions(_load(source, messages, []).lazy(), column, source)  # raises where the column is not there

    def batches() -> Iterator[pl.DataFrame]:
        offset = 0
        for message in messages:
            if message.kind == BATCH:
                frame = _load(source, messages, [message], offset)
                offset += len(frame)
                yield captions(frame.lazy(), column, source).cast(COLUMNS).collect()

    return batches


def _magic(source: str) -> bytes:
    with Path(source).open("rb") as file:
        return file.read(8)


def _load(source: str, messages: list[Message], batches: list[Message], offset: int = 0) -> pl.DataFrame:
    """[__row__, columns...] of these record batches: the stream again, with no others."""
    wanted = [message for message in messages if message.kind in (SCHEMA, DICTIONARY)] + batches
    with Path(source).open("rb") as file:
        content = b"".join(_bytes(file, message) for message in wanted)
    return pl.read_ipc_stream(content + END, row_index_name=ROW, row_index_offset=offset)


def _bytes(file: IO[bytes], message: Message) -> bytes:
    file.seek(message.start)
    return file.read(message.length)


def _messages(source: str) -> list[Message]:
    """The messages of an IPC stream, bodies skipped. Raises InputError for what is none, or is truncated."""
    messages = []
    size = Path(source).stat().st_size
    with Path(source).open("rb") as file:
        while prefix := file.read(8):
            if len(prefix) == 8 and prefix == END:
                break
            start = file.tell() - len(prefix)
            if not prefix.startswith(CONTINUATION) and not CONTINUATION.startswith(prefix):
                raise InputError(f"{source}: neither an Arrow IPC file nor a stream: repair or leave out the file")
            metadata = file.read(struct.unpack("<i", prefix[4:])[0]) if len(prefix) == 8 else b""
            kind, body = _header(metadata) if len(metadata) >= 16 else (0, size)
            length = len(prefix) + len(metadata) + body
            if start + length > size:
                raise InputError(f"{source}: a truncated Arrow IPC stream: repair or leave out the file")
            messages.append(Message(kind, start, length))
            file.seek(start + length)
    if not messages or messages[0].kind != SCHEMA:
        raise InputError(f"{source}: an Arrow IPC stream without a schema: repair or leave out the file")
    return messages


def _header(metadata: bytes) -> tuple[int, int]:
    """(header type, body length in bytes) of a flatbuffer Message: its fields 1 and 3."""
    (table,) = struct.unpack_from("<I", metadata)
    (back,) = struct.unpack_from("<i", metadata, table)
    (size,) = struct.unpack_from("<H", metadata, table - back)
    offsets = struct.unpack_from(f"<{size // 2 - 2}H", metadata, table - back + 4)
    kind = metadata[table + offsets[1]] if len(offsets) > 1 and offsets[1] else 0
    body = struct.unpack_from("<q", metadata, table + offsets[3])[0] if len(offsets) > 3 and offsets[3] else 0
    return kind, body
