"""Rows of a screened scan that another screen of the same scan, or the scan without one, has computed already.

All that a refined prompt's row depends on is the full settings, not the screen that let it pass. So a screen that is
widened, or asked for with another share, computes the prompts that come in newly, and no other.
"""

from collections.abc import Sequence

import polars as pl

from scanner.store.ledger import Ledger
from scanner.store.pending import Pending
from scanner.store.record import RunRecord, Screening


def carry(ledger: Ledger, screening: Screening, records: Sequence[RunRecord], pending: Pending) -> int:
    """Copy rows of prompts that are to be scored to the screened scan; how many. Raises StoreError or DiskError."""
    others = [record.screening for record in records if record.screening is not None]
    same = {other.scan_id for other in others if other.full_scan_id == screening.full_scan_id}
    copied = 0
    for source in sorted((same | {screening.full_scan_id}) - {screening.scan_id}):
        for file in pending.files:
            asked = pl.scan_parquet(file, glob=False).select("prompt_id")
            with ledger.refusals():
                held = ledger.scores(source).filter(status="scored").join(asked, on="prompt_id", how="semi")
                rows = held.unique("prompt_id").collect(engine="streaming")
            if rows.is_empty():
                continue
            rows = rows.join(ledger.sketches(source, rows["prompt_id"]), on="prompt_id", how="left")
            known = ledger.scores(screening.scan_id).select("prompt_id")
            with ledger.refusals():
                rows = rows.lazy().join(known, on="prompt_id", how="anti").collect(engine="streaming")
            if len(rows):
                ledger.append(screening.scan_id, rows)
                copied += len(rows)
    return copied
