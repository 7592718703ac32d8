"""Ranked prompts, flagged rows and the summary as files; each appears whole or not at all."""

import json
from collections.abc import Callable
from pathlib import Path

import polars as pl

from scanner.audit.night import Night

FORMATS: dict[str, Callable[[pl.DataFrame, Path], None]] = {
    "parquet": lambda frame, path: frame.write_parquet(path),
    "csv": lambda frame, path: frame.write_csv(path),
    "jsonl": lambda frame, path: frame.write_ndjson(path),
}


def write(out: Path, night: Night) -> list[Path]:
    """Write `scores.parquet` (a row per unique prompt), `flagged.*` (one per dataset row) and `summary.json`.

    Returns the paths. The summary comes last: a folder that has it is whole.
    """
    out.mkdir(parents=True, exist_ok=True)
    (out / "summary.json").unlink(missing_ok=True)
    written = [_write(night.ranked, out / "scores.parquet")]
    written += [_write(night.flagged, out / f"flagged.{suffix}") for suffix in FORMATS]
    partial = out / ".summary.json.partial"
    partial.write_text(json.dumps(night.summary, indent=1) + "\n")
    return [*written, partial.replace(out / "summary.json")]


def _write(frame: pl.DataFrame, path: Path) -> Path:
    temporary = path.with_name(f".{path.name}.partial")
    FORMATS[path.suffix[1:]](frame, temporary)
    return temporary.replace(path)
