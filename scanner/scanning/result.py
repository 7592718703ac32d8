"""What a scan found and did."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from scanner.store.record import Screened
from scanner.store.stored import StoredScan


@dataclass(frozen=True)
class ScanResult(StoredScan):
    """What a scan found and did.

    `scored`: prompts that this run gave scores, or all passes of a screened scan; `skipped`: status -> unique prompts
    of the whole input that have no scores; `screening`: what a screen came to.
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
    screening: Screened | None = None
    reading: Mapping[str, Any] = field(default_factory=dict)
