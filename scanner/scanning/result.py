"""What a scan found and did."""

from dataclasses import dataclass

from scanner.dataset import captions
from scanner.dataset.reading import Reading
from scanner.dataset.shards import Shard
from scanner.scanning.passes import Done
from scanner.scanning.request import Dataset
from scanner.store.ledger import Ledger
from scanner.store.record import Screened
from scanner.store.stored import StoredScan


@dataclass(frozen=True)
class ScanResult(StoredScan):
    """What a scan found and did.

    `scored`: prompts that this run gave scores, or all passes of a screened scan; `skipped`: status -> unique prompts
    of the whole input that have no scores; `screening`: what a screen came to; `shard`: the part of the prompts that
    all these numbers are of.
    `reading`: files read with their rows, rows without a caption and why, what folders hold that was passed over.

    >>> again = scan("captions.parquet", model="bundle", store="store", limit=40, batch_size=16)
    >>> again.scored, again.already_scored == again.unique
    (0, True)
    """

    backend: str
    precision: str
    provider: str
    batch_size: int
    rows: int
    unique: int
    already_scored: int
    scored: int
    skipped: dict[str, int]
    other_scans: int  # rows in the store that belong to other models or settings
    seconds: float
    reading: Reading
    shard: Shard
    screening: Screened | None = None


def result_of(done: Done, data: Dataset, ledger: Ledger, first_scan_id: str, seconds: float) -> ScanResult:
    """Of a scan's last pass; `first_scan_id`: of its first one. Raises StoreError."""
    record, pending, statuses = done.record, done.pending, done.pending.statuses + done.statuses
    assert record.batch_size is not None
    return ScanResult(
        scan_id=done.scan_id,
        store=ledger.folder,
        record=record,
        captions=captions.texts(data.rows),
        left_out=data.rows.problems,
        backend=record.backend,
        precision=record.precision,
        provider=record.provider,
        batch_size=record.batch_size,
        rows=pending.rows,
        unique=pending.unique,
        already_scored=pending.already_scored,
        scored=done.statuses["scored"] + done.statuses["non_finite"],
        skipped={status: count for status, count in sorted(statuses.items()) if status != "scored"},
        other_scans=ledger.count_others(done.scan_id, first_scan_id),
        seconds=seconds,
        screening=record.screened(statuses),
        reading=data.reading(each=True),
        shard=data.shard,
    )
