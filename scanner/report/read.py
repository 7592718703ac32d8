"""A report read back from its folder."""

import json
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

import polars as pl

from scanner.audit.decision import FORMAT, Night
from scanner.errors import ScannerError, first_line
from scanner.files import replacing


def write_summary(out: Path, summary: Mapping[str, Any]) -> Path:
    """Write `summary.json` beside the report's other files, after them: with it the report is whole."""
    with replacing(out / "summary.json") as partial:
        partial.write_text(json.dumps(summary, indent=1) + "\n")
    return out / "summary.json"


def read_summary(folder: Path) -> dict[str, Any]:
    """Read a report's `summary.json`. Raises ScannerError if there is none, or of another format."""
    try:
        summary: dict[str, Any] = json.loads((folder / "summary.json").read_text())
        if summary["format"] != FORMAT:
            raise ScannerError(f"{folder}: report format {summary['format']!r}, this overscan reads {FORMAT!r}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ScannerError(f"{folder}: not a whole report ({error}): needed a folder of `overscan report`") from error
    return summary


def history(folder: Path, tonight: Mapping[str, Any]) -> pl.DataFrame:
    """Flags over the nights: [date, n_flagged, n_new], oldest first, tonight last.

    Of the reports in `folder` those that decided by the same score and rule; of several on one date, one.
    """
    earlier = [read_summary(path.parent) for path in sorted(folder.glob("*/summary.json"))]
    same = [night for night in earlier if (night["score"], night["rule"]) == (tonight["score"], dict(tonight["rule"]))]
    rows = [
        {"date": date.fromisoformat(night["date"]), "n_flagged": night["flagged"], "n_new": night["findings"]["new"]}
        for night in [*same, tonight]
        if night["date"] < tonight["date"] or night is tonight
    ]
    return pl.DataFrame(rows).unique("date", keep="last", maintain_order=True).sort("date")


def read_night(folder: Path) -> Night:
    """Read a report folder back. Raises ScannerError if it is none, incomplete, or of another format."""
    summary = read_summary(folder)
    try:
        ranked = pl.read_parquet(folder / "scores.parquet").select(
            "prompt_id", "text", "rank", "flagged", summary["score"]
        )
        flagged = pl.read_parquet(folder / "flagged.parquet").select("prompt_id", "file", "row")
        ids = ranked.filter("flagged")["prompt_id"].sort()
        if not ids.equals(flagged["prompt_id"].unique().sort()) or len(ids) != summary["flagged"]:
            raise ValueError("its files are of different reports")
    except (OSError, ValueError, KeyError, TypeError, pl.exceptions.PolarsError) as error:
        reason = first_line(error)
        raise ScannerError(f"{folder}: not a whole report ({reason}): needed a folder of `overscan report`") from error
    return Night(ranked, flagged, summary)
