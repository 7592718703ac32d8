"""Small hostile files against Python's own csv and json modules: `python -m tools.fuzz_inputs [--csv N] [--json N]`.

CSV: quotes, escapes, blanks and line ends at random places; what is read must be what Python's csv module reads in the
dialect that was told. JSON lines: mutated lines; what is read must be what `json.loads(line, strict=False)` reads.
Prints counts, the same for the same numbers; exits with 1 where one is not as it must be.
"""

import argparse
import csv
import io
import json
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from scanner.dataset import readers
from scanner.errors import InputError

WORDS = ("a red", "barn", "12 inch", "wheel", "he said", "it's", "two dogs", "日本", "café", "x")
SALT = ('"', '"', '"', '""', "\\", '\\"', "'", " ", ",", ";", "\t", "|", "\r", "\n", "\r\n", '","', '"\n"')
SIGNS = {"comma": ",", "tab": "\t", "semicolon": ";", "pipe": "|", "quote": '"', "backslash": "\\", "none": None}
SWITCHES = {"yes": True, "no": False}
VALUES = (
    "NaN", "-Infinity", "1e-07", "1" + "0" * 400, "1" * 5000, '"\\ud83d"', '"\\ud83d\\ude00"', "[" * 2000 + "]" * 2000,
    '"a\x01\tb"', "null", '[null, "a cat"]', '{"en": "a"}', '[["a"], "b"]', "[]", "true", '"\u2028 \x85 \x1f"', '""',
)  # fmt: skip
DEEPEST = 20_000
JUNK = ("", "\ufeff", " ", "{", "}", '"', ",", "\\", "\x00", "\x1f", "\r", "é", "[", "]", ":", "1", "\\u", "NaN")


def csv_file(rng: random.Random) -> tuple[str, str]:
    """Name and text of a small file: a header and up to six records."""
    sign, suffix = rng.choice(((",", "csv"), (";", "csv"), ("|", "csv"), ("\t", "tsv"), ("\t", "csv")))
    records = [["caption", "url"]] + [[_text(rng), f"u{n}"] for n in range(rng.randint(1, 6))]
    if rng.random() < 0.3:  # some of it written well
        out = io.StringIO()
        csv.writer(out, delimiter=sign, lineterminator=rng.choice(("\n", "\r\n"))).writerows(records)
        text = out.getvalue()
    else:
        text = "\n".join((sign + " " * (rng.random() < 0.1)).join(record) for record in records) + "\n" * rng.randint(
            0, 1
        )
    begin = text.find("\n") + 1
    for _ in range(rng.randint(0, 3)):
        at = rng.randint(begin, len(text))
        text = text[:at] + rng.choice(SALT) + text[at:]
    return f"a.{suffix}", text


def _text(rng: random.Random) -> str:
    return " ".join(rng.choice(WORDS) for _ in range(rng.randint(1, 4)))


def csv_reference(text: str, told: str) -> list[str | None]:
    """What Python's csv reads in a dialect as it was told: every record's caption, null where none can be told."""
    options: dict[str, Any] = {}
    for word in told.split():
        name, _, value = word.partition("=")
        options[name] = SWITCHES[value] if value in SWITCHES else SIGNS.get(value, value)
    options["delimiter"] = options["delimiter"] or "\x1f"
    quoting = csv.QUOTE_NONE if options["quotechar"] is None else csv.QUOTE_MINIMAL
    records = csv.reader(io.StringIO(text, newline=""), quoting=quoting, **options)
    header = next(filter(None, records), [])
    return [None if any(fields[len(header) :]) else (fields[0] if fields else "") or None for fields in records]


def json_line(rng: random.Random) -> str:
    """One line: a record with odd values, or one that was mutated."""
    record = [f'"n": {rng.choice(VALUES)}', f'"caption": {rng.choice((*VALUES, chr(34) + _text(rng) + chr(34)))}']
    rng.shuffle(record)
    line = "{" + ", ".join(record) + "}"
    for _ in range(rng.choice((0, 0, 1, 1, 2))):
        at = rng.randint(0, len(line))
        line = line[:at] + rng.choice(JUNK) + line[at + rng.randint(0, 1) :]
    return line.replace("\n", " ")


def json_reference(line: str) -> list[str | None]:
    """What Python's json reads, however deep: the captions of a line, null where there is none."""
    numbers: dict[str, Any] = {"parse_int": str, "parse_float": str, "parse_constant": lambda name: _number(name)}
    limit = sys.getrecursionlimit()
    try:
        sys.setrecursionlimit(DEEPEST)
        record = json.loads(line.removesuffix("\r").strip("\ufeff \t\r\n"), strict=False, **numbers)
    except ValueError:
        return [None]
    finally:
        sys.setrecursionlimit(limit)
    value = record.get("caption") if isinstance(record, dict) else None
    values = value if isinstance(value, list) and value else [value]
    return [_caption(item) for item in values]


def _number(name: str) -> str | None:
    return None if name == "NaN" else name


def _caption(value: Any) -> str | None:
    if isinstance(value, bool):
        return str(value).lower()
    text = value if isinstance(value, str) else None
    return None if text is None else "".join("\ufffd" if 0xD800 <= ord(c) <= 0xDFFF else c for c in text)


def run_csv(count: int, folder: Path) -> Counter[str]:
    """Read so many CSV files; counts of equal, silently different and refused ones."""
    found: Counter[str] = Counter()
    for n in range(count):
        name, text = csv_file(random.Random(f"csv {n}"))
        (folder / name).write_bytes(text.encode())
        try:
            rows = readers.read([folder / name], column="caption")
            frame = rows.frame.collect(engine="streaming")
        except InputError as error:
            all_null = "no caption in" in str(error)
            found["without any caption, refused" if all_null else "refused"] += 1
            continue
        (told,) = rows.read.values()
        dialect = str(told.reading().dialect or "")
        expected = csv_reference(text, dialect)
        equal = frame["caption"].to_list() == expected
        found["equal" if equal else "different"] += 1
        found[f"told {dialect.split()[1]}" if dialect else "told nothing"] += 1
        if not equal:
            print(
                f"csv {n}: {text!r}\n  read {frame['caption'].to_list()}\n  csv  {expected} ({dialect})",
                file=sys.stderr,
            )
    return found


def run_json(count: int, folder: Path) -> Counter[str]:
    """Read so many JSON lines, in one file; counts of equal and different ones."""
    lines = [json_line(random.Random(f"json {n}")) for n in range(count)]
    (folder / "a.jsonl").write_bytes("\n".join(['{"caption": "first"}', *lines]).encode(errors="replace"))
    read: dict[int, list[str | None]] = {}
    for row, caption in _rows(folder / "a.jsonl"):
        read.setdefault(row, []).append(caption)
    found: Counter[str] = Counter()
    for n, line in enumerate(lines):
        expected = json_reference(line)
        mine = read[n + 1]
        found["with a caption" if any(mine) else "without"] += 1
        found["equal" if mine == expected else "different"] += 1
        if mine != expected:
            print(f"json {n}: {line[:200]!r}\n  read {mine}\n  json {expected}", file=sys.stderr)
    return found


def _rows(path: Path) -> Iterator[tuple[int, str | None]]:
    frame = readers.read([path], column="caption").frame.collect(engine="streaming")
    yield from frame.select("row", "caption").iter_rows()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--csv", type=int, default=1500)
    parser.add_argument("--json", type=int, default=1000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        tables, lines = run_csv(given.csv, Path(name)), run_json(given.json, Path(name))
    for what, found in (("CSV files", tables), ("JSON lines", lines)):
        print(f"{what}:", ", ".join(f"{count:,} {kind}" for kind, count in sorted(found.items())))
    sys.exit(bool(tables["different"] + tables["refused"] + lines["different"]))


if __name__ == "__main__":
    main()
