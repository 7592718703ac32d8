"""A report read back from the folder that `scanner.report.formats` wrote."""

import json
from contextlib import suppress
from pathlib import Path
from shutil import copyfile

import polars as pl

from scanner.audit.decision import Night
from scanner.audit.summary import Summary, of_json
from scanner.disk import work_files
from scanner.errors import ScannerError, first_line
from scanner.files import reading
from scanner.report.formats import SUMMARY


def read_summary(folder: Path) -> Summary:
    """Read a report's `summary.json`. Raises ScannerError if there is none, or of another format."""
    try:
        with reading(folder):
            return of_json(json.loads((folder / SUMMARY).read_text(encoding="utf-8")))
    except ScannerError as error:
        raise ScannerError(f"{folder}: {error}") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ScannerError(f"{folder}: not a whole report ({error}): needed a folder of `overscan report`") from error


def history(folder: Path, tonight: Summary) -> pl.DataFrame:
    """Flags over the nights: [date, n_flagged, n_new], oldest first, tonight last.

    Of the reports in `folder` those that decided by the same score and rule; of several on one date, one.
    """
    earlier = [read_summary(path.parent) for path in sorted(folder.glob(f"*/{SUMMARY}"))]
    same = [night for night in earlier if night.rule == tonight.rule]
    rows = [
        {"date": night.date, "n_flagged": night.flagged, "n_new": night.findings.new}
        for night in [*same, tonight]
        if night.date < tonight.date or night is tonight
    ]
    return pl.DataFrame(rows).unique("date", keep="last", maintain_order=True).sort("date")


def former(tonight: Summary, nights: Path | None, out: Path, work: Path) -> Night | None:
    """The newest report of the same scan and score from a day before tonight, of those in the folder `nights`.

    Without such a folder: what `out` holds before it is written anew, if it can be read. None where there is no such
    report. `work`: as of `read_night`. Raises ScannerError for a report in `nights` that cannot be read.
    """

    def alike(night: Summary) -> bool:
        return (night.full_scan_id, night.score) == (tonight.full_scan_id, tonight.score)

    if nights is None:
        with suppress(ScannerError):  # a damaged report is replaced, and no reason to have none
            return read_night(out, work) if alike(read_summary(out)) else None
        return None
    folders = [path.parent for path in sorted(nights.glob(f"*/{SUMMARY}"))]
    past = [(night.date, folder) for folder in folders if alike(night := read_summary(folder))]
    earlier = [(day, folder) for day, folder in past if day < tonight.date]
    return read_night(max(earlier)[1], work) if earlier else None


def read_night(folder: Path, work: Path | None = None) -> Night:
    """Read a report folder back. Raises ScannerError if it is none, incomplete, or of another format.

    `work`: a folder for work files, with which its prompts are streamed from there; else they are in memory.
    """
    summary = read_summary(folder)
    try:
        with reading(folder):
            held = _scanned(folder / "scores.parquet", work)
            more = [name for name in ("p_value", "finding") if name in held.collect_schema()]
            ranked = held.select("prompt_id", "text", "rank", "flagged", summary.score, *more)
            if work is None:
                ranked = ranked.collect().lazy()
            flagged = pl.read_parquet(folder / "flagged.parquet").select("prompt_id", "file", "row")
        ids = ranked.filter("flagged").select("prompt_id").collect(engine="streaming")["prompt_id"].sort()
        if not ids.equals(flagged["prompt_id"].unique().sort()) or len(ids) != summary.flagged:
            raise ValueError("its files are of different reports")
    except (OSError, ValueError, KeyError, TypeError, pl.exceptions.PolarsError) as error:
        reason = first_line(error)
        raise ScannerError(f"{folder}: not a whole report ({reason}): needed a folder of `overscan report`") from error
    return Night(ranked, flagged, summary)


def _scanned(file: Path, work: Path | None) -> pl.LazyFrame:
    """The rows of a file, to be streamed; with a folder `work` they stay what they are, whoever replaces the file."""
    if work is None:
        return pl.scan_parquet(file, glob=False)
    kept = work / "former.parquet"
    with work_files(work):
        kept.unlink(missing_ok=True)
        try:
            kept.hardlink_to(file)
        except OSError:  # another disk, or one without links
            copyfile(file, kept)
    return pl.scan_parquet(kept, glob=False)
