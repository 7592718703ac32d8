"""Any dataset of captions -> caption rows with their provenance, (file, row): a table of formats, each one function."""

import glob
from collections.abc import Callable, Sequence
from pathlib import Path

import polars as pl

from scanner.errors import InputError

COLUMN_GUESSES = ("caption", "text", "prompt", "TEXT", "Caption", "sentence")
SEPARATORS = (",", "\t", ";", "|")

Reader = Callable[[Path, str | None], pl.LazyFrame]  # file, column -> [row, caption]


def _pick(found: Sequence[str], column: str | None, path: Path) -> str:
    if column is not None and column in found:
        return column
    guesses = [guess for guess in COLUMN_GUESSES if guess in found] if column is None else []
    if not guesses:
        wanted = "a caption column" if column is None else f"column {column!r}"
        raise InputError(f"{path}: {wanted} needed; it has {', '.join(map(repr, found))}: name one with --column")
    return guesses[0]


def _parquet(path: Path, column: str | None) -> pl.LazyFrame:
    frame = pl.scan_parquet(path, row_index_name="__row__", glob=False)
    name = _pick([name for name in frame.collect_schema().names() if name != "__row__"], column, path)
    return frame.select(row="__row__", caption=pl.col(name).cast(pl.String))


def _csv(path: Path, column: str | None) -> pl.LazyFrame:
    with path.open(encoding="utf-8", errors="replace") as file:
        header = file.readline()
    separator = max(SEPARATORS, key=header.count)
    frame = pl.scan_csv(
        path, separator=separator, infer_schema=False, encoding="utf8-lossy", truncate_ragged_lines=True,
        row_index_name="__row__", glob=False, raise_if_empty=False,
    )  # fmt: skip
    name = _pick([name for name in frame.collect_schema().names() if name != "__row__"], column, path)
    return frame.select(row="__row__", caption=name)


def _raw_lines(path: Path) -> pl.LazyFrame:
    """Every line as [row, line]; unlike polars' scan_lines, bytes that are not UTF-8 do not stop it."""
    return pl.scan_csv(
        path, has_header=False, separator="\x1f", quote_char=None, infer_schema=False, schema={"line": pl.String},
        encoding="utf8-lossy", truncate_ragged_lines=True, row_index_name="row", glob=False, raise_if_empty=False,
    )  # fmt: skip


def _lines(path: Path, column: str | None) -> pl.LazyFrame:
    return _raw_lines(path).select("row", caption="line")


def _jsonl(path: Path, column: str | None) -> pl.LazyFrame:
    """A line that is no JSON object has a null caption."""
    lines = _raw_lines(path)
    value = {name: pl.col("line").str.json_path_match(f"$['{name}']") for name in (column,) if name is not None}
    if not value:
        head = lines.head(100).select(
            **{name: pl.col("line").str.json_path_match(f"$.{name}") for name in COLUMN_GUESSES}
        )
        found = [series.name for series in head.collect() if series.null_count() < len(series)]
        value = {name: pl.col("line").str.json_path_match(f"$.{name}") for name in found}
        if not found and path.stat().st_size:
            raise InputError(f"{path}: no caption key in the first 100 lines: name one with --column")
    caption = next(iter(value.values()), pl.lit(None, pl.String))
    return lines.select("row", caption=caption)


READERS: dict[str, Reader] = {
    ".parquet": _parquet,
    ".csv": _csv,
    ".tsv": _csv,
    ".jsonl": _jsonl,
    ".ndjson": _jsonl,
    ".txt": _lines,
}


def find_files(inputs: Sequence[str | Path]) -> list[Path]:
    """Files named by paths, globs and folders (searched recursively), sorted, each once. Raises InputError."""
    files: dict[Path, None] = {}
    for item in inputs:
        path = Path(item)
        if path.is_dir():
            found = sorted(file for file in path.rglob("*") if file.suffix.lower() in READERS)
        elif path.exists():
            found = [path]
        else:
            found = sorted(Path(match) for match in glob.glob(str(item), recursive=True) if Path(match).is_file())  # noqa: PTH207 (absolute patterns)
        if not found:
            raise InputError(f"{item}: no such file, or none of {', '.join(READERS)} in it")
        files.update(dict.fromkeys(found))
    for file in files:
        if file.suffix.lower() not in READERS:
            raise InputError(f"{file}: format {file.suffix or 'without suffix'}; needed one of {', '.join(READERS)}")
    return list(files)


def read(inputs: Sequence[str | Path], column: str | None = None, limit: int | None = None) -> pl.LazyFrame:
    """Caption rows of all files, as they are: [file, row, caption].

    `row` is the record's number in its file from 0, a header not counted. `caption` is null where there is none.
    `limit`: the first rows only. Raises InputError for a file that cannot be read or has no such column.
    """
    frames = []
    for file in find_files(inputs):
        try:
            frame = READERS[file.suffix.lower()](file, column)
        except (pl.exceptions.PolarsError, OSError) as error:
            raise unreadable(str(file), error) from error
        frames.append(frame.select(pl.lit(str(file)).alias("file"), pl.col("row").cast(pl.Int64), "caption"))
    rows = pl.concat(frames)
    return rows if limit is None else rows.head(limit)


def unreadable(what: str, error: Exception) -> InputError:
    """The error for a file that the reader gave up on."""
    return InputError(f"{what}: cannot be read ({str(error).splitlines()[0]}): repair or leave out the file")
