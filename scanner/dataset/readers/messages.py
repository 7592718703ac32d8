"""The messages of Arrow IPC: where they lie in a stream or file, and whether what they declare can be.

Polars believes it: a negative length of a body made it loop, an absurd one of a packed buffer ends the process. So both
are looked at first. The numbers are those of Arrow's Message.fbs.
"""

import struct
from collections.abc import Iterator
from typing import IO, NamedTuple

from scanner.dataset.readers.columns import refusal
from scanner.dataset.readers.lines import raw
from scanner.objects import size_of

CONTINUATION = b"\xff\xff\xff\xff"
END = CONTINUATION + bytes(4)
MAGIC = b"ARROW1\0\0"  # a file; a stream has none
SCHEMA, DICTIONARY, BATCH = 1, 2, 3  # MessageHeader
PACKING = 40_000  # no zstd or LZ4 buffer holds more times its size, but for small ones
SMALL = 1 << 20
BROKEN = "a broken message in Arrow IPC: repair or leave out the file"
NEITHER = "neither an Arrow IPC file nor a stream: repair or leave out the file"
TRUNCATED = "a truncated Arrow IPC stream: repair or leave out the file"


class Message(NamedTuple):
    """Where a message lies in its file, in bytes. `dictionary`: the id of one; `delta`: it adds to the one before."""

    kind: int
    start: int
    length: int
    dictionary: int = 0
    delta: bool = False


def messages(source: str) -> list[Message]:
    """The messages of a stream, bodies skipped. Raises InputError for what is none, or declares what cannot be."""
    size = size_of(source)
    with raw(source) as file:
        found = list(_walk(source, file, size))
        rest = file.read(8)
    if rest and rest != END:
        whole = rest.startswith(CONTINUATION) or CONTINUATION.startswith(rest)
        raise refusal(source, TRUNCATED if whole else NEITHER)
    if not found or found[0].kind != SCHEMA:
        raise refusal(source, "an Arrow IPC stream without a schema: repair or leave out the file")
    return found


def messages_of_file(source: str) -> list[Message]:
    """The dictionaries and batches of a file by its footer. Raises InputError for a broken one, and likewise."""
    size = size_of(source)
    found: list[Message] = []
    with raw(source) as file:
        try:
            for offset in _blocks(file, size):
                file.seek(offset)
                prefix = file.read(8)
                (length,) = struct.unpack("<i", prefix[4:])
                if not prefix.startswith(CONTINUATION):
                    continue  # of before 2019: nothing is packed there
                if not 0 < length <= size - file.tell():
                    raise refusal(source, BROKEN)
                found.append(_message(source, file, offset, file.read(length)))
        except (struct.error, IndexError, OSError) as error:
            raise refusal(source, BROKEN) from error
    return found


def _blocks(file: IO[bytes], size: int) -> Iterator[int]:
    """Where the messages of dictionaries and record batches begin, as the footer at a file's end says."""
    file.seek(size - 10)
    (length,) = struct.unpack("<i", file.read(4))
    file.seek(max(0, size - 10 - length))
    footer = file.read(length)
    for vector in _fields(footer, *struct.unpack_from("<I", footer))[2:]:
        start = _target(footer, vector) if vector else 0
        for n in range(struct.unpack_from("<I", footer, start)[0] if vector else 0):
            yield struct.unpack_from("<q", footer, start + 4 + 24 * n)[0]


def _walk(source: str, file: IO[bytes], size: int) -> Iterator[Message]:
    """Messages from here on; ends before what is none, or is not whole, with the file there."""
    while True:
        start = file.tell()
        prefix = file.read(8)
        if len(prefix) == 8 and prefix.startswith(CONTINUATION) and prefix != END:
            (length,) = struct.unpack("<i", prefix[4:])
            if 0 < length <= size - file.tell():
                found = _message(source, file, start, file.read(length))
                if start + found.length <= size:
                    file.seek(start + found.length)
                    yield found
                    continue
        file.seek(start)
        return


def _message(source: str, file: IO[bytes], start: int, metadata: bytes) -> Message:
    """A message by its flatbuffer. Raises InputError for a broken one."""
    try:
        fields = _fields(metadata, *struct.unpack_from("<I", metadata))
        kind = metadata[fields[1]] if fields[1] else 0
        body = _number(metadata, fields[3])
        if body < 0:
            raise refusal(source, f"an Arrow message of {body:,} bytes: repair or leave out the file")
        dictionary, delta = 0, False
        if kind in (DICTIONARY, BATCH):
            batch = _fields(metadata, _target(metadata, fields[2]))
            if kind == DICTIONARY:
                dictionary, delta = _number(metadata, batch[0]), bool(batch[2] and metadata[batch[2]])
                batch = _fields(metadata, _target(metadata, batch[1]))
            if not all(_possible(metadata, batch, body, file, start + 8 + len(metadata))):
                raise refusal(source, BROKEN)
    except (struct.error, IndexError) as error:
        raise refusal(source, BROKEN) from error
    return Message(kind, start, 8 + len(metadata) + body, dictionary, delta)


def _possible(metadata: bytes, batch: list[int], body: int, file: IO[bytes], at: int) -> Iterator[bool]:
    """For every buffer of a record batch whether it lies in the body, and may unpack to what it declares."""
    yield _number(metadata, batch[0]) >= 0
    vector = _target(metadata, batch[2]) if batch[2] else 0
    count = struct.unpack_from("<I", metadata, vector)[0] if vector else 0
    for n in range(count):
        offset, length = struct.unpack_from("<qq", metadata, vector + 4 + 16 * n)
        yield 0 <= offset <= offset + length <= body
        if batch[3] and length >= 8:  # packed: its first 8 bytes are the length of what it holds, -1: it is not packed
            file.seek(at + offset)
            (unpacked,) = struct.unpack("<q", file.read(8))
            yield -1 <= unpacked <= max(SMALL, length * PACKING)


def _fields(metadata: bytes, table: int) -> list[int]:
    """Where the first four fields of a flatbuffer's table are; 0 for one that is not there."""
    (back,) = struct.unpack_from("<i", metadata, table)
    (size,) = struct.unpack_from("<H", metadata, table - back)
    offsets = struct.unpack_from(f"<{max(0, size // 2 - 2)}H", metadata, table - back + 4)
    return [table + offset if offset else 0 for offset in (*offsets, 0, 0, 0, 0)[:4]]


def _number(metadata: bytes, field: int) -> int:
    return int(struct.unpack_from("<q", metadata, field)[0]) if field else 0


def _target(metadata: bytes, field: int) -> int:
    """Where a field points."""
    return field + int(struct.unpack_from("<I", metadata, field)[0])
