"""What a store holds, and the upkeep of its files."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

import polars as pl

from scanner.config import Base, Reference, ScanConfig
from scanner.dataset.shards import Shard
from scanner.objects import Folder
from scanner.places import inside
from scanner.store.ledger import Ledger, Run
from scanner.store.record import RunRecord, Screened
from scanner.store.tables import Table, checkpoint

TABLES = ("scores", "runs")
RETENTION = timedelta(days=7)  # replaced files stay as long: longer than any scan or report that may still read them


@dataclass(frozen=True)
class ShardStatus:
    """How far a shard of a scan is. `prompts`: unique ones in it; `left`: of them without a row. None: never begun."""

    shard: Shard
    prompts: int | None = None
    left: int | None = None


@dataclass(frozen=True)
class ScanStatus:
    """A scan of a store, by its newest run. `last_run`: when that began; `rows`: score rows by status.

    `lacks`: scores that its settings allow, but that none of its rows has: they are younger than the rows.
    `calibrations`: runs that scored null captions for it; `shards`: of the newest run's dataset, where that is
    scanned in shards.
    """

    scan_id: str
    model: str
    backend: str
    precision: str
    provider: str
    config: ScanConfig
    reference: Reference | None
    purpose: str
    screening: Screened | None
    runs: int
    last_run: str
    rows: Mapping[str, int]
    lacks: tuple[str, ...]
    calibrations: int
    shards: tuple[ShardStatus, ...] = ()
    base: Base | None = None


@dataclass(frozen=True)
class TableStatus:
    """A table of a store. `bytes`: on disk, of old versions and of the log too."""

    version: int
    files: int
    bytes: int


@dataclass(frozen=True)
class StoreStatus:
    """What a store holds: `dataclasses.asdict` makes of it what JSON can hold.

    `newest`: the scan that began last, which reports take; `calibrates`: the scan_id of its calibrations, which is that
    of the same scan unscreened.
    """

    store: str
    scans: tuple[ScanStatus, ...]
    tables: Mapping[str, TableStatus]
    newest: str | None
    calibrates: str | None


def status(ledger: Ledger, possible: Callable[[RunRecord], Collection[str]] = lambda record: ()) -> StoreStatus:
    """Scans of a store, newest run first, and its tables.

    `possible`: scores that a run with such a record would compute today. Where two scans ran at once, a row may be
    stored twice, but is read once.
    """
    counts = ledger.counts()
    by_scan: dict[str, list[Run]] = {}
    runs = ledger.runs()
    for run in runs:
        by_scan.setdefault(run.scan_id, []).append(run)
    scans = tuple(
        _scan(ledger, of, counts.filter(scan_id=scan_id), possible(of[0].record)) for scan_id, of in by_scan.items()
    )
    newest = next((run for run in runs if run.record.purpose == "scan"), None)
    return StoreStatus(
        str(ledger.folder),
        scans,
        {name: _table(ledger, name) for name in TABLES},
        newest=None if newest is None else newest.scan_id,
        calibrates=None if newest is None else newest.record.full_scan_id(newest.scan_id),
    )


def _scan(ledger: Ledger, runs: list[Run], counts: pl.DataFrame, possible: Collection[str]) -> ScanStatus:
    newest, record = runs[0], runs[0].record
    rows = dict(counts.select("status", "rows").iter_rows())
    scored = counts.filter(status="scored")
    held = {name for name in possible if name in scored.columns and scored[name].sum()}
    return ScanStatus(
        scan_id=newest.scan_id,
        model=record.model,
        backend=record.backend,
        precision=record.precision,
        provider=record.provider,
        config=record.config,
        reference=record.reference,
        purpose=record.purpose,
        screening=record.screened(rows),
        runs=len(runs),
        last_run=f"{newest.started:%Y-%m-%dT%H:%M:%SZ}",
        rows=rows,
        lacks=tuple(name for name in possible if name not in held) if len(scored) else (),
        calibrations=sum(run.record.purpose == "calibration" for run in runs),
        shards=shards(ledger, newest.scan_id, [run.record for run in runs]),
        base=record.base,
    )


def shards(ledger: Ledger, scan_id: str, records: Sequence[RunRecord]) -> tuple[ShardStatus, ...]:
    """How far each shard is of the dataset that the newest of a scan's `records` names; none of a scan in one piece.

    A row that two runs computed at once counts twice.
    """
    newest, count = records[0], records[0].shard.count
    if count == 1:
        return ()
    begun: dict[Shard, RunRecord] = {}
    for record in records:
        if record.shard.count == count and record.captions == newest.captions:
            begun.setdefault(record.shard, record)
    rows = ledger.rows_by_shard(scan_id, count)
    return tuple(_shard(Shard(i, count), begun.get(Shard(i, count)), rows.get(i, 0)) for i in range(1, count + 1))


def _shard(shard: Shard, run: RunRecord | None, rows: int) -> ShardStatus:
    if run is None:
        return ShardStatus(shard)
    return ShardStatus(shard, run.prompts, max(0, run.left - (rows - run.held)))


def compact(ledger: Ledger) -> dict[str, dict[str, int]]:
    """Merge small files and delete those that were replaced longer than RETENTION ago.

    Readers and writers at work are safe: a table's older versions stay readable for that long. Returns, for each
    table, `merged` and `deleted` numbers of files.
    """
    done = {}
    hours = int(RETENTION.total_seconds() // 3600)
    for name in TABLES:
        with ledger.refusals():
            table = Table(ledger.folder, name)
            merged = table.merge()
            delta = table.load()
            deleted = delta.vacuum(
                retention_hours=hours, dry_run=False, full=True
            )  # full: what killed commits left too
            checkpoint(delta)
            done[name] = {"merged": merged, "deleted": len(deleted)}
    return done


def _table(ledger: Ledger, name: str) -> TableStatus:
    table = ledger.table(name)
    return TableStatus(table.version(), len(table.file_uris()), _size(Folder(inside(ledger.folder, name))))


def _size(folder: Folder) -> int:
    """Bytes that are kept, of old versions and of the log too."""
    return sum(found["size"] for found in folder.listed())
