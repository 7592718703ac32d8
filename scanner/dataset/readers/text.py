"""CSV, TSV, JSON lines and plain lines, plain or compressed. Bytes that are not UTF-8 become U+FFFD, never an error."""

import json
import re
from typing import Any

import polars as pl

from scanner.dataset.readers.columns import ROW, Batches, pick, scanned
from scanner.errors import InputError

SEPARATORS = (",", "\t", ";", "|")
NO_SEPARATOR = "\x1f"
REST = "__rest__"  # fields beyond the header's
HEAD = 1000  # lines looked at for keys
JSON_STRING = r'"(?:[^"\\]|\\.)*"'
LENIENT: dict[str, Any] = {
    "infer_schema": False,
    "encoding": "utf8-lossy",
    "missing_columns": "insert",
    "extra_columns": "ignore",
    "truncate_ragged_lines": True,
    "row_index_name": ROW,
    "glob": False,
    "raise_if_empty": False,
}


def csv(source: str, column: str | None) -> Batches:
    """A row is a record, which may span lines in quotes. One with more fields than the header has a null caption."""
    header = _head(source, 1)
    if header.is_empty():
        return scanned(header.lazy().select(row=ROW, caption="line"))
    unquoted = re.sub(r'"[^"]*"', "", header["line"][0] or "")
    separator = max(SEPARATORS, key=unquoted.count)
    options = LENIENT | {"separator": separator if separator in unquoted else NO_SEPARATOR}
    names = [name for name in pl.scan_csv(source, **options).collect_schema().names() if name != ROW]
    name = pick(names, column, source)
    if f"{name}_duplicated_0" in names:
        raise InputError(f"{source}: two columns are called {name!r}: rename one")
    frame = pl.scan_csv(source, schema=dict.fromkeys([*names, REST], pl.String()), **options)
    return scanned(frame.select(row=ROW, caption=pl.when(pl.col(REST).is_null()).then(pl.col(name))))


def lines(source: str, column: str | None) -> Batches:
    """A row is a line. One that goes on after the control character U+001F has a null caption."""
    _head(source, 1)
    return scanned(_raw_lines(source).select(row=ROW, caption="line"))


def jsonl(source: str, column: str | None) -> Batches:
    """A row is a line. One that is no JSON object, or has an object for a caption, has a null caption."""
    found: dict[str, bool] = {}  # key -> whether it holds anything
    head = _head(source, HEAD)
    for record in map(_record, head["line"]):
        for key, value in record.items():
            found[key] = found.get(key, False) or value is not None
    if head.is_empty():
        return scanned(head.lazy().select(row=ROW, caption="line"))
    name = pick([key for key, filled in found.items() if filled or key == column], column, source)
    rows = _raw_lines(source).select(row=ROW, caption=_json_captions(name))
    return scanned(rows.explode("caption", empty_as_null=True, keep_nulls=True))


def _json_captions(name: str) -> pl.Expr:
    """Captions of a JSON line: List(String), of one element but where the value is a list."""
    path = "$['" + name.replace("'", "\\'") + "']"
    line = pl.col("line")
    value = line.str.json_path_match(path)
    container = pl.when(value.str.contains(r"^[\[{]")).then(line)
    is_list = (container.str.json_path_match(path + "[0]").is_not_null() | (value == "[]")).fill_null(False)
    is_object = (container.str.json_path_match(path + ".*").is_not_null() | (value == "{}")).fill_null(False)
    listed = pl.when(is_list).then(value)
    nested = listed.str.replace_all(JSON_STRING, "").str.contains(r"\{|.\[")
    elements = pl.when(~nested).then(listed).str.extract_all(JSON_STRING + r"|[^\s,\[\]]+")
    several = elements.list.eval(pl.element().str.json_path_match("$"))
    single = pl.concat_list(pl.when(~is_object).then(value))
    return pl.when(is_list).then(several).otherwise(single)


def _record(line: str | None) -> dict[str, Any]:
    try:
        value = json.loads(line or "")
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _raw_lines(source: str) -> pl.LazyFrame:
    """Every line as [__row__, line]; unlike polars' scan_lines, bytes that are not UTF-8 do not stop it."""
    schema = {"line": pl.String(), REST: pl.String()}
    frame = pl.scan_csv(
        source, has_header=False, separator=NO_SEPARATOR, quote_char=None, schema=schema, **LENIENT
    )  # fmt: skip
    return frame.select(ROW, line=pl.when(pl.col(REST).is_null()).then(pl.col("line")))


def _head(source: str, n: int) -> pl.DataFrame:
    """The first lines, [__row__, line]. Raises InputError for UTF-16 and UTF-32."""
    head = _raw_lines(source).head(n).collect()
    first = head["line"].head(1).fill_null("").str.join().item()
    if (first.startswith("\ufffd\ufffd") and "\x00" in first) or first.count("\x00") * 3 > len(first) > 0:
        raise InputError(f"{source}: UTF-16 text; needed UTF-8: convert it (iconv -f UTF-16 -t UTF-8)")
    return head
