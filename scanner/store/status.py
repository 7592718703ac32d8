"""What a store holds, and the upkeep of its files."""

import json
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl

from scanner.config import SCREENED_OUT, ScanConfig
from scanner.store.ledger import Ledger

TABLES = ("scores", "runs")
RETENTION = timedelta(days=7)  # replaced files stay as long: longer than any scan or report that may still read them


def status(ledger: Ledger) -> dict[str, Any]:
    """Scans of a store, newest run first, and its tables; everything is plain data, ready for JSON.

    `rows` counts score rows by status; where two scans ran at once, a row may be stored twice, but is read once.
    """
    counts = ledger.counts()
    runs = ledger.runs()
    scans = []
    for scan_id, number, record in (
        runs.group_by("scan_id", maintain_order=True).agg(pl.len(), pl.struct("started", "record").first()).iter_rows()
    ):
        asked = json.loads(record["record"])
        rows = dict(counts.filter(scan_id=scan_id).select("status", "rows").iter_rows())
        scans.append(
            {
                "scan_id": scan_id,
                "model": asked["model"],
                "backend": asked["backend"],
                "precision": asked.get("precision", "float32"),  # an older overscan knew no other on its backends
                "provider": asked["provider"],
                "config": asked["config"],
                "reference": asked.get("reference"),  # an older overscan did not note it
                "purpose": asked.get("purpose", "scan"),
                "screening": screened(asked, rows),
                "runs": number,
                "last_run": f"{record['started']:%Y-%m-%dT%H:%M:%SZ}",
                "rows": rows,
            }
        )
    return {"store": str(ledger.folder), "scans": scans, "tables": {name: _table(ledger, name) for name in TABLES}}


def screened(record: Mapping[str, Any], statuses: Mapping[str, int]) -> dict[str, Any] | None:
    """A run's screening and what it came to, from prompts by status; None for a scan without a screen.

    `passes_per_prompt`: one for everyone, and all of the scan's for the refined, whose first pass is thus paid twice.
    """
    screening = record.get("screening")
    if screening is None:
        return None
    passes = ScanConfig.of_record(record).passes
    refined, out = statuses.get("scored", 0) + statuses.get("non_finite", 0), statuses.get(SCREENED_OUT, 0)
    average = 1 + passes * refined / max(1, refined + out)
    return {**screening, "refined": refined, "screened_out": out, "passes_per_prompt": average}


def compact(ledger: Ledger) -> dict[str, dict[str, int]]:
    """Merge small files and delete those that were replaced longer than RETENTION ago.

    Readers and writers at work are safe: a table's older versions stay readable for that long. Returns, for each
    table, `merged` and `deleted` numbers of files.
    """
    done = {}
    for name in TABLES:
        with ledger.refusals():
            table = ledger.table(name)
            merged = table.optimize.compact()["numFilesRemoved"]
            hours = int(RETENTION.total_seconds() // 3600)
            deleted = table.vacuum(
                retention_hours=hours, dry_run=False, full=True
            )  # full: what killed commits left too
            table.create_checkpoint()
            done[name] = {"merged": int(merged), "deleted": len(deleted)}
    return done


def _table(ledger: Ledger, name: str) -> dict[str, int]:
    table = ledger.table(name)
    return {"version": table.version(), "files": len(table.file_uris()), "bytes": _size(ledger.folder / name)}


def _size(folder: Path) -> int:
    """Bytes on disk, of old versions and of the log too."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
