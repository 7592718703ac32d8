"""Which column holds the captions, and how its values become text."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import polars as pl
from polars.io.plugins import register_io_source

from scanner.errors import InputError

COLUMN_GUESSES = ("caption", "text", "prompt", "TEXT", "Caption", "sentence")
ROW = "__row__"  # the row index, beside the dataset's own columns
SCHEMA = pl.Schema({"row": pl.Int64, "caption": pl.String})
BATCH = 8192  # records that a source made in Python holds at a time

Batches = Callable[[], Iterable[pl.DataFrame]]  # a file from its start, as frames [row, caption]
Reader = Callable[[str, str | None], Batches]  # path or URL, column -> its rows


def pick(found: Sequence[str], column: str | None, source: str) -> str:
    """The column to read: the one asked for, or the first guess that is there. Raises InputError."""
    if column is not None and column in found:
        return column
    guesses = [guess for guess in COLUMN_GUESSES if guess in found] if column is None else []
    if not guesses:
        wanted = "a caption column" if column is None else f"column {column!r}"
        names = ", ".join(map(repr, found)) or "no column"
        raise InputError(f"{source}: {wanted} needed; it has {names}: name one with --column")
    return guesses[0]


def captions(frame: pl.LazyFrame, column: str | None, source: str) -> pl.LazyFrame:
    """[__row__, columns...] -> [row, caption]: any scalar as text, a list of captions as a row each.

    Raises InputError for a column that is not there or holds structs.
    """
    schema = frame.collect_schema()
    name = pick([name for name in schema.names() if name != ROW], column, source)
    dtype = schema[name]
    rows = frame.select(row=ROW, caption=name)
    if isinstance(dtype, pl.List | pl.Array):
        rows = rows.explode("caption", empty_as_null=True, keep_nulls=True)
        dtype = pl.DataType.from_python(str) if dtype.inner is None else dtype.inner  # type: ignore[assignment]
    if isinstance(dtype, pl.Struct | pl.List | pl.Array):
        raise InputError(f"{source}: column {name!r} holds {schema[name]}; needed text: name another with --column")
    text = pl.col("caption").map_batches(_decode, pl.String, is_elementwise=True)
    return rows.with_columns(caption=text if dtype == pl.Binary else pl.col("caption").cast(pl.String))


def _decode(values: pl.Series) -> pl.Series:
    """Bytes as UTF-8; what is not leaves replacement characters."""
    return pl.Series([None if value is None else value.decode(errors="replace") for value in values], dtype=pl.String)


def texts(value: Any) -> list[str | None]:
    """The captions of one JSON value: text, numbers as text, lists of these; null where it is none of them."""
    if isinstance(value, list):
        return [texts(item)[0] if not isinstance(item, list) else None for item in value] or [None]
    if isinstance(value, bool):
        return [str(value).lower()]
    return [value if isinstance(value, str) else str(value) if isinstance(value, int | float) else None]


def scanned(rows: pl.LazyFrame) -> Batches:
    """The batches of a [row, caption] frame that Polars reads by itself."""
    typed = rows.select(pl.col("row").cast(pl.Int64), "caption")
    end = pl.LazyFrame({"row": [-1], "caption": [None]}, schema=SCHEMA)

    def batches() -> Iterator[pl.DataFrame]:
        ended = False
        for batch in pl.concat([typed, end]).collect_batches(maintain_order=True):
            ended = ended or batch["row"].last() == -1
            yield batch.filter(pl.col("row") >= 0)
        if not ended:  # a panic inside Polars ends the batches without a word
            raise OSError("reading it broke off: damaged, or changed meanwhile")

    return batches


def from_python(records: Callable[[], Iterable[list[str | None]]]) -> Batches:
    """The batches of records made in Python, each a list of captions."""

    def batches() -> Iterator[pl.DataFrame]:
        rows = ((row, caption) for row, captions in enumerate(records()) for caption in captions)
        while batch := list(islice(rows, BATCH)):
            yield pl.DataFrame(batch, schema=SCHEMA, orient="row")

    return batches


def lazy(batches: Batches, schema: pl.Schema) -> pl.LazyFrame:
    """A lazy frame over batches, of which few are in memory at a time. What they raise comes out of collect()."""

    def source(
        with_columns: list[str] | None, predicate: pl.Expr | None, n_rows: int | None, batch_size: int | None
    ) -> Iterator[pl.DataFrame]:
        left = n_rows
        for whole in batches():
            frame = whole if left is None else whole.head(left)
            left = None if left is None else left - len(frame)
            frame = frame.select(with_columns or schema.names())
            yield frame if predicate is None else frame.filter(predicate)
            if left == 0:
                return

    return register_io_source(source, schema=schema, explain_name="captions")
