"""Text files as lines: local ones by Python, plain or gzip; what is on an object store or packed as zstd by Polars.

Bytes that are not UTF-8 become U+FFFD, never an error. Polars' lines come without their ends, so `\\r\\n` inside a
quoted field of such a CSV file reads as `\\n`.
"""

import gzip
import io
from collections.abc import Iterator
from typing import IO, cast

import polars as pl

from scanner.dataset.readers.columns import ROW, refusal, scanned
from scanner.dataset.readers.names import is_url
from scanner.errors import InputError

BLOCK = 1 << 20  # bytes read at a time
LONGEST = 1 << 28  # bytes of one line: more is taken for a broken file
MARK = "\ufeff"  # the byte order mark, which may stand at any beginning where files were joined
FIRST = 2048  # bytes looked at for UTF-16


def lines(source: str) -> Iterator[str]:
    """Every line without its end and without byte order marks before it. Raises InputError, OSError or EOFError."""
    if not by_python(source):
        yield from _by_polars(source)
        return
    with opened(source) as file:
        pieces: list[bytes] = []
        while block := file.read(BLOCK):
            whole, newline, rest = block.rpartition(b"\n")
            if newline:
                yield from _split(b"".join([*pieces, whole]))
                pieces = [rest]
            else:
                pieces.append(rest)
                if sum(map(len, pieces)) > LONGEST:
                    raise _too_long(source)
        if last := b"".join(pieces):
            yield from _split(last)


def _too_long(source: str) -> InputError:
    return refusal(source, f"a line of more than {LONGEST:,} bytes: no text; repair or leave out the file")


def _split(block: bytes) -> list[str]:
    text = block.decode(errors="replace")
    if MARK in text:
        return [line.lstrip(MARK).removesuffix("\r") for line in text.split("\n")]
    return text.replace("\r\n", "\n").removesuffix("\r").split("\n")


def with_ends(source: str) -> Iterator[str]:
    """Every line with its end (`\\n`, `\\r` or `\\r\\n`), as Python's csv module wants it."""
    if by_python(source):
        with opened(source) as file, io.TextIOWrapper(file, "utf-8-sig", errors="replace", newline="") as text:
            while line := text.readline(LONGEST):
                if len(line) == LONGEST:
                    raise _too_long(source)
                yield line
        return
    for line in _by_polars(source):
        yield from io.StringIO(line + "\n", newline="") if "\r" in line else (line + "\n",)


def first(source: str) -> str | None:
    """The file's beginning, None where it is empty. Raises InputError for UTF-16 and UTF-32."""
    if by_python(source):
        with opened(source) as file:
            head = file.read(FIRST).decode(errors="replace")
    else:
        head = next(_by_polars(source), "")
    line = head.partition("\n")[0]
    if (line.startswith("\ufffd\ufffd") and "\x00" in line) or line.count("\x00") * 3 > len(line) > 0:
        raise refusal(source, "UTF-16 text; needed UTF-8: convert it (iconv -f UTF-16 -t UTF-8)")
    return head or None


def by_python(source: str) -> bool:
    """Whether Python reads the file's bytes itself."""
    return not is_url(source) and not source.lower().endswith(".zst")


def opened(source: str) -> IO[bytes]:
    """A local file's bytes, unpacked."""
    if source.lower().endswith(".gz"):
        return cast(IO[bytes], gzip.open(source, "rb"))
    return open(source, "rb")  # noqa: PTH123 (one of very many)


def _by_polars(source: str) -> Iterator[str]:
    """The lines that Polars reads; its scan_lines stops at bytes that are not UTF-8, its CSV reader does not."""
    frame = pl.scan_csv(
        source, has_header=False, separator="\n", quote_char=None, schema={"line": pl.String()}, encoding="utf8-lossy",
        missing_columns="insert", truncate_ragged_lines=True, row_index_name=ROW, glob=False, raise_if_empty=False,
    )  # fmt: skip
    for batch in scanned(frame.select(row=ROW, caption="line"))():
        yield from ((line or "").lstrip(MARK) for line in batch["caption"].to_list())
