"""Text files as lines: local ones by Python, plain or packed; those on an object store by Polars.

Bytes that are not UTF-8 become U+FFFD, never an error.
"""

import gzip
import io
import sys
from collections.abc import Iterator
from typing import IO, cast

import polars as pl

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

from scanner import objects
from scanner.dataset.readers.columns import ROW, refusal, scanned
from scanner.errors import InputError
from scanner.places import SCHEMES, is_url

BLOCK = 1 << 20  # bytes read at a time
LONGEST = 1 << 28  # bytes of one line: more is taken for a broken file
MARK = "\ufeff"  # the byte order mark, which may stand at any beginning where files were joined
FIRST = 2048  # bytes that tell what is no text
SIGNS = {  # what a file of another kind begins with
    b"\x1f\x8b": "gzip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"PK\x03\x04": "a zip archive or a spreadsheet",
    b"PAR1": "Parquet",
    b"ARROW1": "Arrow",
    b"%PDF-": "PDF",
    b"\x89PNG": "an image",
    b"\xff\xd8\xff": "an image",
    b"GIF8": "an image",
    b"SQLite format 3": "a database",
    b"\x7fELF": "a program",
}


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


def with_ends(source: str, sign: str = " ") -> Iterator[str]:
    """Every line with its end (`\\n`, `\\r` or `\\r\\n`), as Python's csv module wants it.

    `sign`: an ASCII character that is frequent in the text, such as a CSV file's delimiter.
    """
    if by_python(source):
        with opened(source) as file, io.TextIOWrapper(file, "utf-8-sig", errors="replace", newline="") as text:
            while line := text.readline(LONGEST):
                if len(line) == LONGEST:
                    raise _too_long(source)
                yield line
        return
    held = ""
    for part in _texts(source, sign):
        *whole, held = list(io.StringIO(held + part, newline="")) or [""]  # the last may go on
        yield from whole
        if len(held) > LONGEST:
            raise _too_long(source)
    if held:
        yield held


def first(source: str) -> str | None:
    """The file's beginning, None where it is empty. Raises InputError for UTF-16 and UTF-32, and what is no text."""
    if by_python(source):
        with opened(source) as file:
            content = file.read(FIRST)
        if what := sign_of(content):
            raise refusal(source, f"{what} under the name of a text; needed the name of what it is, or text in it")
        head = content.decode(errors="replace")
    else:
        head = next(_by_polars(source), "")
    line = head.partition("\n")[0]
    if (line.startswith("\ufffd\ufffd") and "\x00" in line) or line.count("\x00") * 3 > len(line) > 0:
        raise refusal(source, "UTF-16 text; needed UTF-8: convert it (iconv -f UTF-16 -t UTF-8)")
    return head or None


def sign_of(content: bytes) -> str | None:
    """What a file with this beginning is, by its signature; None for text, which may begin so by chance."""
    whole = content[:-3] if len(content) == FIRST else content  # a character may be cut
    if b"\x00" not in whole and "\ufffd" not in whole.decode(errors="replace"):
        return None
    return next((what for sign, what in SIGNS.items() if content.startswith(sign)), None)


def by_python(source: str) -> bool:
    """Whether Python reads the file's bytes itself."""
    return not is_url(source)


def opened(source: str) -> IO[bytes]:
    """The bytes of a file or object, unpacked."""
    if source.lower().endswith(".gz"):
        return cast(IO[bytes], gzip.open(raw(source) if is_url(source) else source, "rb"))
    if source.lower().endswith(".zst"):
        return cast(IO[bytes], zstd.open(raw(source) if is_url(source) else source, "rb"))
    return raw(source)


def raw(source: str) -> IO[bytes]:
    """The bytes of a file or object, as they are, to be read in any order. Raises InputError and OSError."""
    if not is_url(source):
        return open(source, "rb")  # noqa: PTH123 (one of very many)
    if not source.startswith(SCHEMES):
        raise refusal(source, f"this format is not read from there; needed a file, or one of {', '.join(SCHEMES)}")
    return objects.opened(source)


def _by_polars(source: str) -> Iterator[str]:
    """An object's lines, without their ends."""
    for batch in _pieces(source, "\n"):
        yield from (line.lstrip(MARK) for line in batch)


def _texts(source: str, sign: str) -> Iterator[str]:
    """An object's text in parts, to the character, but for a `\\r` before a `sign` and a `sign` at its very end.

    Polars drops `\\r` before what ends a line. So another character than `\\n` is said to end them here.
    """
    before = ""
    for batch in _pieces(source, sign):
        yield before + sign.join(batch)
        before = sign


def _pieces(source: str, end: str) -> Iterator[list[str]]:
    """What lies between the characters `end` of an object.

    Polars' scan_lines stops at bytes that are not UTF-8, its CSV reader does not.
    """
    frame = pl.scan_csv(
        source, has_header=False, separator=end, eol_char=end, quote_char=None, schema={"line": pl.String()},
        encoding="utf8-lossy", missing_columns="insert", truncate_ragged_lines=True, row_index_name=ROW, glob=False,
        raise_if_empty=False,
    )  # fmt: skip
    for batch in scanned(frame.select(row=ROW, caption="line"))():
        if len(batch):
            yield [piece or "" for piece in batch["caption"].to_list()]
