"""Ranked prompts and flagged rows as files; each appears whole or not at all."""

from collections.abc import Callable
from pathlib import Path

import polars as pl

FORMATS: dict[str, Callable[[pl.DataFrame, Path], None]] = {
    "parquet": lambda frame, path: frame.write_parquet(path),
    "csv": lambda frame, path: frame.write_csv(path),
    "jsonl": lambda frame, path: frame.write_ndjson(path),
}


def write(out: Path, ranked: pl.DataFrame, flagged: pl.DataFrame) -> list[Path]:
    """Write `scores.parquet` (one row per unique prompt) and `flagged.*` (one per dataset row); returns the paths."""
    out.mkdir(parents=True, exist_ok=True)
    written = [_write(ranked, out / "scores.parquet")]
    return written + [_write(flagged, out / f"flagged.{suffix}") for suffix in FORMATS]


def _write(frame: pl.DataFrame, path: Path) -> Path:
    temporary = path.with_name(f".{path.name}.partial")
    FORMATS[path.suffix[1:]](frame, temporary)
    temporary.replace(path)
    return path
