"""Bad inputs of a scan, each as the bytes of a file."""

import gzip
import json
import os
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


NOTHING = pl.Series([None, None], dtype=pl.String)
STRANGE = b'{"caption": "a cat", "n": [NaN, 1e999, ' + b"[" * 5000 + b"]" * 5000 + b"]}\n"
HUGE = tarfile.TarInfo("0.txt")
HUGE.size = 1 << 40
TERABYTE = HUGE.tobuf(tarfile.GNU_FORMAT) + bytes(1024)


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
    ("object for a caption in every line", "object.jsonl", b'{"caption": {"en": "a cat"}}\n'),
    ("null for a caption in every row", "null.parquet", written(pl.DataFrame({"caption": NOTHING}).write_parquet)),
    ("null for a caption in most lines", "most.jsonl", b'{"caption": "a cat"}\n' + b'{"caption": null}\n' * 9),
    ("NaN, a huge number and deep nesting beside a caption", "nan.jsonl", STRANGE),
    ("half of a character pair", "half.jsonl", b'{"caption": "a \\ud83d"}\n'),
    ("JSON of lists without names", "values.json", b'[["a cat", 1], ["a dog", 2]]'),
    ("JSON of other things", "config.json", b'{"name": "x", "version": 3}'),
    ("indented JSON for JSON lines", "indented.jsonl", b'{\n "caption": "a cat"\n}\n'),
    ("Arrow message of negative length", "negative.arrow", b"\xff\xff\xff\xff\xf8\xff\xff\xff" + bytes(99)),
    ("tar member that declares a terabyte", "terabyte.tar", TERABYTE),
    ("NUL byte in a caption", "nul.txt", b"a\x00cat\n"),
    ("tar sample without caption", "some.tar", tar(("0.txt", b"a cat"), ("1.jpg", b"..."))),
]


def written_as(name: str, content: bytes | None) -> Callable[[Path], object]:
    return lambda folder: None if content is None else (folder / name).write_bytes(content)


def folder_of(**files: str) -> Callable[[Path], None]:
    """Fills a folder `data`; a file without content is a pipe."""

    def fill(folder: Path) -> None:
        (folder / "data").mkdir()
        for name, content in files.items():
            if content:
                (folder / "data" / name).write_text(content, encoding="utf-8")
            else:
                os.mkfifo(folder / "data" / name)

    return fill


def _iceberg(table: Path) -> None:
    (table / "metadata").mkdir(parents=True)
    (table / "metadata/v1.metadata.json").touch()
    FRAME.write_parquet(table / "data.parquet")


CASES = [Case(what, f"scan {name} ...", written_as(name, content)) for what, name, content in FILES]
CASES += [
    Case("column of plain text", "scan captions.txt ... --column title"),
    Case("pipe in a folder", "scan data ...", folder_of(**{"a.txt": "a cat\n", "p.txt": ""})),
    Case("documents in a folder", "scan data ...", folder_of(**{"a.txt": "a cat\n", "README.txt": "How to use it\n"})),
    Case("nothing but documents in a folder", "scan data ...", folder_of(**{"deps.txt": "numpy>=2\npolars==2.0\n"})),
    Case("Iceberg table", "scan table ...", lambda folder: _iceberg(folder / "table")),
]
