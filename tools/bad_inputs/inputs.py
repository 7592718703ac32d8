"""Bad inputs of a scan, each as the bytes of a file."""

import gzip
import json
import tarfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import polars as pl

from tools.bad_inputs.case import Case

FRAME = pl.DataFrame({"url": ["u", "v"], "caption": ["a cat", "a dog"]})
TITLES = FRAME.rename({"caption": "title"})
LINES = "\n".join(f"{n} cats" for n in range(20_000)).encode()


def tar(*members: tuple[str, bytes]) -> bytes:
    """A tar's bytes."""
    out = BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, BytesIO(content))
    return out.getvalue()


def written(write: Callable[[BytesIO], object]) -> bytes:
    """The bytes that a Polars writer makes."""
    out = BytesIO()
    write(out)
    return out.getvalue()


def half(content: bytes) -> bytes:
    return content[: len(content) // 2]


FILES: list[tuple[str, str, bytes | None]] = [  # what is wrong, file name, content (None: not made)
    ("no such file", "none.csv", None),
    ("unknown format", "notes.md", b"# notes"),
    ("packing that cannot be streamed", "a.tsv.bz2", b"BZh9"),
    ("other scheme", "ftp://host/a.csv", None),
    ("no caption column, Parquet", "a.parquet", written(TITLES.write_parquet)),
    ("no caption column, CSV", "a.csv", written(TITLES.write_csv)),
    ("no caption key, JSON lines", "a.jsonl", written(TITLES.write_ndjson)),
    ("no caption column, Arrow stream", "a.arrow", written(TITLES.write_ipc_stream)),
    ("no caption member, tar", "images.tar", tar(("0.jpg", b"..."), ("0.cls", b"1"))),
    ("no annotations, JSON", "a.json", b'{"images": [], "categories": []}'),
    ("annotations without captions", "boxes.json", b'{"annotations": [{"id": 1, "bbox": [0, 0, 1, 1]}]}'),
    ("column of structs", "struct.parquet", written(pl.DataFrame({"caption": [{"raw": "a"}]}).write_parquet)),
    ("column name twice", "twice.csv", b"caption,caption\na,b\n"),
    ("UTF-16 text", "utf16.csv", "caption,x\na,1\n".encode("utf-16")),
    ("empty Parquet", "empty.parquet", b""),
    ("empty Arrow", "empty.arrow", b""),
    ("empty JSON", "empty.json", b""),
    ("empty tar", "empty.tar", b""),
    ("empty text", "empty.txt", b""),
    ("junk named Parquet", "junk.parquet", b"junk" * 100),
    ("Parquet cut in half", "cut.parquet", half(written(FRAME.write_parquet))),
    ("Feather cut in half", "cut.feather", half(written(FRAME.write_ipc))),
    ("Arrow stream cut in half", "cut.arrow", half(written(FRAME.write_ipc_stream))),
    ("Feather V1", "v1.feather", b"FEA1" + bytes(100)),
    ("tar cut in half", "cut.tar", half(tar(*((f"{n}.txt", b"a cat") for n in range(99))))),
    ("JSON cut in half", "cut.json", half(json.dumps([{"caption": "a cat"}] * 9).encode())),
    ("gzip cut in half", "cut.txt.gz", half(gzip.compress(LINES))),
    ("gzip with a wrong checksum", "sum.txt.gz", gzip.compress(LINES)[:-8] + bytes(8)),
    ("CSV quote that never closes", "open.csv", b'caption,x\na,1\n"never closed,2\n'),
    ("CSV text after a closing quote", "quote.csv", b'caption,x\n"a" cat,1\n'),
    ("CSV record with too many fields", "ragged.csv", b"caption,x\na,b,c\n"),
    ("bytes that are not UTF-8", "latin.txt", b"caf\xe9\n"),
    ("empty lines", "blank.txt", b"\n\n"),
    ("spaces only", "spaces.txt", b"  \n"),
    ("broken JSON line", "broken.jsonl", b'{"caption": "a cat"}\n{"capt\n'),
    ("object for a caption, JSON lines", "object.jsonl", b'{"caption": {"en": "a cat"}}\n'),
    ("NUL byte in a caption", "nul.txt", b"a\x00cat\n"),
    ("tar sample without caption", "some.tar", tar(("0.txt", b"a cat"), ("1.jpg", b"..."))),
]


def written_as(name: str, content: bytes | None) -> Callable[[Path], object]:
    return lambda folder: None if content is None else (folder / name).write_bytes(content)


CASES = [Case(what, f"scan {name} ...", written_as(name, content)) for what, name, content in FILES]
