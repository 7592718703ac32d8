"""Which column holds the captions, and how its values become text."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import polars as pl
from polars.io.plugins import register_io_source

from scanner.errors import InputError, printable

COLUMN_GUESSES = ("caption", "text", "prompt", "sentence")  # in any case, singular or plural
ROW = "__row__"  # the row index, beside the dataset's own columns
SCHEMA = pl.Schema({"row": pl.Int64, "caption": pl.String})
BATCH = 8192  # records that a source made in Python holds at a time
EMPTY_LINES, EMPTY_FILES = "empty lines", "empty files"
RAGGED, SHORT = "records with more fields than the header", "records with fewer fields than the header"
SHOWN = 10  # names that a message lists

Path = tuple[str, ...]  # the keys that lead to a value
Row = tuple[int, str | None]  # number in its file, caption
Batch = pl.DataFrame | list[Row]


@dataclass
class Source:
    """An opened file: `batches()` gives its rows from the start, as frames [row, caption] or as lists of them.

    `how`: what is told of the reading (columns, dialect); `names`: the columns or keys found. While batches run,
    `missing` counts the rows without a caption by reason, and `notes` says what is odd about the file.
    """

    batches: Callable[[], Iterable[Batch]]
    how: Mapping[str, Any] = field(default_factory=dict)
    names: Sequence[str] = ()
    missing: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)


Reader = Callable[[str, str | None], Source]  # path or URL, column -> its rows


class NoColumnError(InputError):
    """None of a file's columns is one of captions. `names`: those found."""

    def __init__(self, message: str, names: Sequence[str]):
        super().__init__(message)
        self.names = names


def refusal(source: str, reason: str) -> InputError:
    """The error for a file: its name, escaped since anybody may have chosen it, and what is wrong with it."""
    return InputError(f"{printable(source)}: {printable(reason)}")


def listed(names: Iterable[str]) -> str:
    """Names in words, no more than fit a message."""
    every = list(names)
    more = f" and {len(every) - SHOWN:,} more" if len(every) > SHOWN else ""
    return (", ".join(repr(name[:80]) for name in every[:SHOWN]) or "no column") + more


def pick(found: Sequence[str], column: str | None, source: str) -> list[str]:
    """The columns to read, as they are spelt: those asked for, or the first guess that is there. Raises NoColumnError.

    `column`: a name, or several with commas between them; blanks around a name and its case do not matter where only
    one fits. A column whose own name has a comma in it is found by the whole name.
    """
    if column is None:
        names = [guessed(found)]
    else:
        whole = _named(found, column)
        names = [whole] if whole else [_named(found, part) for part in column.split(",")]
    if not all(names):
        wanted = "a caption column" if column is None else f"column {column!r}"
        message = refusal(source, f"{wanted} needed; it has {listed(found)}: name one with --column")
        raise NoColumnError(str(message), found)
    return list(dict.fromkeys(name for name in names if name))


def guessed(found: Sequence[str]) -> str | None:
    """The first guess that is there, a name spelt like it before one in another case or number."""
    for guess in COLUMN_GUESSES:
        fitting = [name for name in found if _plain(name) in (guess, guess + "s")]
        if fitting:
            return min(fitting, key=[guess, guess + "s", *fitting].index)
    return None


def _named(found: Sequence[str], column: str) -> str | None:
    """The name that `column` means: spelt so, or the only one that differs in blanks around it or in case."""
    if column in found:
        return column
    for alike in (str.strip, _plain):
        fitting = [name for name in found if alike(name) == alike(column)]
        if len(fitting) == 1:
            return fitting[0]
    return None


def _plain(name: str) -> str:
    return name.strip().casefold()


def captions(frame: pl.LazyFrame, column: str | None, source: str) -> Source:
    """[__row__, columns...] -> its rows: any scalar as text, a list of captions as a row each, several columns so too.

    Raises InputError for a column that is not there or holds structs.
    """
    schema = frame.collect_schema()
    top = [name for name in schema.names() if name != ROW]
    paths: dict[str, Path] = {name: (name,) for name in top}
    if column is not None and "." in column:
        paths = dict(_inner((), pl.Struct({name: schema[name] for name in top}))) | paths
    try:
        names = pick(list(paths), column, source)
    except NoColumnError as error:
        raise NoColumnError(str(error), top) from error
    expressions = [_text(paths[name], name, schema, source) for name in names]
    how = {"column": ",".join(names)}
    if len(expressions) == 1:
        rows = frame.select(ROW, caption=expressions[0]).rename({ROW: "row"})
        if isinstance(rows.collect_schema()["caption"], pl.List):
            rows = rows.explode("caption", empty_as_null=True, keep_nulls=True)
        return Source(scanned(rows), how, top)
    several = frame.select(ROW, *(expression.alias(str(n)) for n, expression in enumerate(expressions)))
    return Source(_zipped(several), how, top)


def _inner(path: Path, dtype: pl.DataType) -> Iterator[tuple[str, Path]]:
    """Dotted name and keys of all that lies in structs, and in lists of them."""
    if isinstance(dtype, pl.List | pl.Array):
        dtype = dtype.inner  # type: ignore[assignment]
    for part in dtype.fields if isinstance(dtype, pl.Struct) else ():
        yield ".".join([*path, part.name]), (*path, part.name)
        yield from _inner((*path, part.name), part.dtype)  # type: ignore[arg-type]


def _text(path: Path, name: str, schema: pl.Schema, source: str) -> pl.Expr:
    """A column as String, or List(String). Raises InputError for one that holds something else."""
    value, dtype, listed = pl.col(path[0]), schema[path[0]], False
    for key in (*path[1:], None):
        if isinstance(dtype, pl.List | pl.Array) and not listed:
            value = value.arr.to_list() if isinstance(dtype, pl.Array) else value
            dtype, listed = dtype.inner, True  # type: ignore[assignment]
        if key is not None and isinstance(dtype, pl.Struct):
            value = value.list.eval(pl.element().struct.field(key)) if listed else value.struct.field(key)
            dtype = next(part.dtype for part in dtype.fields if part.name == key)  # type: ignore[assignment]
    if isinstance(dtype, pl.Struct | pl.List | pl.Array):
        raise refusal(source, f"column {name!r} holds {schema[path[0]]}; needed text: name another with --column")
    element = pl.element() if listed else value
    if dtype == pl.Binary:
        text = element.map_batches(_decode, pl.String, is_elementwise=True)
    else:
        text = (element.fill_nan(None) if dtype.is_float() else element).cast(pl.String)  # as in JSON
    return value.list.eval(text) if listed else text


def _decode(values: pl.Series) -> pl.Series:
    """Bytes as UTF-8; what is not leaves replacement characters."""
    return pl.Series([None if value is None else value.decode(errors="replace") for value in values], dtype=pl.String)


def _zipped(frame: pl.LazyFrame) -> Callable[[], Iterator[Batch]]:
    """The batches of [__row__, columns...], every column's captions as rows of their own."""

    def batches() -> Iterator[Batch]:
        for batch in frame.collect_batches(maintain_order=True):
            yield [(row[0], caption) for row in batch.iter_rows() for value in row[1:] for caption in texts(value)]

    return batches


def texts(value: Any) -> list[str | None]:
    """The captions of one value: text, numbers as text, lists of these; null where it is none of them."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, list):
        return [None if isinstance(item, list) else texts(item)[0] for item in value] or [None]
    if isinstance(value, bool):
        return [str(value).lower()]
    return [str(value) if isinstance(value, int | float) else None]


def scanned(rows: pl.LazyFrame) -> Callable[[], Iterator[pl.DataFrame]]:
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


def from_python(records: Callable[[], Iterable[Sequence[str | None]]]) -> Callable[[], Iterator[list[Row]]]:
    """The batches of records made in Python, each the captions of one row number."""

    def batches() -> Iterator[list[Row]]:
        rows = ((row, caption) for row, captions in enumerate(records()) for caption in captions)
        while batch := list(islice(rows, BATCH)):
            yield batch

    return batches


def frame_of(rows: Batch) -> pl.DataFrame:
    """A batch as a frame [row, caption]; half of a character pair (a lone surrogate) becomes U+FFFD."""
    if isinstance(rows, pl.DataFrame):
        return rows
    numbers = pl.Series("row", [row for row, _ in rows], pl.Int64)
    return pl.DataFrame([numbers, text_series("caption", [caption for _, caption in rows])])


def text_series(name: str, values: Sequence[str | None]) -> pl.Series:
    """Texts as a series; half of a character pair (a lone surrogate) becomes U+FFFD, as undecodable bytes do."""
    try:
        return pl.Series(name, values, pl.String)
    except UnicodeEncodeError:
        whole = [
            None if text is None else "".join("\ufffd" if "\ud800" <= c <= "\udfff" else c for c in text)
            for text in values
        ]
        return pl.Series(name, whole, pl.String)


def lazy(batches: Callable[[], Iterable[pl.DataFrame]], schema: pl.Schema) -> pl.LazyFrame:
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
