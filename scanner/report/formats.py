"""A report as files: a table of formats, each one function; each file appears whole or not at all."""

from collections.abc import Callable, Mapping
from pathlib import Path

import polars as pl

from scanner.errors import ScannerError, disk_error, first_line
from scanner.files import replacing
from scanner.pages.safe import spreadsheet
from scanner.report import html, markdown
from scanner.report.contents import Contents, rows_to_drop, to_drop


def _drop_list(contents: Contents, path: Path) -> None:
    to_drop(contents).select("prompt_id").write_csv(path, include_header=False)


def _summary(contents: Contents, path: Path) -> None:
    path.write_bytes(markdown.render(contents).encode())


def _page(contents: Contents, path: Path) -> None:
    path.write_bytes(html.render(contents).encode())


FORMATS: Mapping[str, Callable[[Contents, Path], None]] = {
    "scores.parquet": lambda contents, path: contents.ranked.write_parquet(path),
    "flagged.parquet": lambda contents, path: contents.flagged.write_parquet(path),
    "flagged.csv": lambda contents, path: spreadsheet(contents.flagged).write_csv(path),
    "flagged.jsonl": lambda contents, path: contents.flagged.write_ndjson(path),
    "drop_list.txt": _drop_list,
    "rows_to_drop.parquet": lambda contents, path: rows_to_drop(contents).write_parquet(path),
    "summary.md": _summary,
    "report.html": _page,
}


def write(out: Path, contents: Contents) -> list[Path]:
    """Write every format into the folder `out`; returns the paths. Raises ScannerError where it cannot."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        return [_write(contents, out / name) for name in FORMATS]
    except (OSError, pl.exceptions.ComputeError) as error:
        raise disk_error(out, error) or ScannerError(
            f"{out}: the report cannot be written ({first_line(error)}): needed a folder to write to"
        ) from error


def _write(contents: Contents, path: Path) -> Path:
    with replacing(path) as partial:
        FORMATS[path.name](contents, partial)
    return path
