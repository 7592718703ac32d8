"""A report as files: a table of formats, each one function. `scanner.report.read` reads a report back."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import polars as pl

from scanner.audit.summary import Summary, as_json
from scanner.errors import ScannerError, first_line
from scanner.files import replacing_folder, settle
from scanner.pages.safe import spreadsheet
from scanner.report import html, markdown
from scanner.report.contents import Contents, rows_to_drop, score_columns, to_drop


def _drop_list(contents: Contents, path: Path) -> None:
    to_drop(contents).select("prompt_id").write_csv(path, include_header=False)


def _summary(contents: Contents, path: Path) -> None:
    path.write_bytes(markdown.render(contents).encode())


def _page(contents: Contents, path: Path) -> None:
    path.write_bytes(html.render(contents).encode())


def _spreadsheet(contents: Contents, path: Path) -> None:
    """Without scores that no flagged prompt has: they are columns of the other files."""
    flagged = contents.flagged
    empty = [name for name in score_columns(flagged) if len(flagged) and flagged[name].null_count() == len(flagged)]
    spreadsheet(flagged.drop(empty)).write_csv(path)


FORMATS: Mapping[str, Callable[[Contents, Path], None]] = {
    "scores.parquet": lambda contents, path: contents.ranked.sink_parquet(path),
    "flagged.parquet": lambda contents, path: contents.flagged.write_parquet(path),
    "flagged.csv": _spreadsheet,
    "flagged.jsonl": lambda contents, path: contents.flagged.write_ndjson(path),
    "drop_list.txt": _drop_list,
    "rows_to_drop.parquet": lambda contents, path: rows_to_drop(contents).write_parquet(path),
    "summary.md": _summary,
    "report.html": _page,
}
SUMMARY = "summary.json"
FILES = (*FORMATS, SUMMARY)
PICTURES = "verified.html"  # beside them, of a report with pictures


def write(out: Path, contents: Contents, summary: Summary, beside: Mapping[str, str] = {}) -> list[Path]:
    """Write every format and `summary.json` into the folder `out`, all together; returns the paths.

    `beside`: the text of PICTURES, if there are any.

    Whoever looks finds the report of before or this one, as `scanner.files.replacing_folder` has it; other files in
    the folder stay. Raises ScannerError where it cannot, and where files of these names are no report's.
    """
    _refuse_others(out)
    try:
        with replacing_folder(out, (*FILES, PICTURES).__contains__) as partial:
            for name, form in FORMATS.items():
                form(contents, partial / name)
            for name, text in beside.items():
                (partial / name).write_bytes(text.encode())
            (partial / SUMMARY).write_text(json.dumps(as_json(summary), indent=1) + "\n")
    except (OSError, pl.exceptions.ComputeError) as error:
        raise ScannerError(
            f"{out}: the report cannot be written ({first_line(error)}): needed a folder to write to"
        ) from error
    return [out / name for name in (*FILES, *beside)]


def _refuse_others(out: Path) -> None:
    """Raises ScannerError where what would be replaced is somebody's, such as a dataset's own scores.parquet."""
    settle(out)
    if (out / "scores" / "_delta_log").exists():
        raise ScannerError(f"{out}: a store; a report is a folder of its own: name another")
    there = [name for name in FILES if (out / name).exists()]
    try:
        ours = not there or str(json.loads((out / SUMMARY).read_bytes())["format"]).startswith("overscan report")
    except (OSError, ValueError, KeyError, TypeError):
        ours = False
    if not ours:
        raise ScannerError(f"{out}: {', '.join(there)} in it, and no report of overscan: name another folder")
