"""What a scan found and did."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from scanner.store.stored import StoredScan


@dataclass(frozen=True)
class ScanResult(StoredScan):
    """What a scan found and did.

    `scored`: prompts that this run gave scores, or all passes of a screened scan; `skipped`: status -> unique prompts
    of the whole input that have no scores; `screening`: as of `scanner.store.status.screened`.
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
    screening: Mapping[str, Any] | None = None
