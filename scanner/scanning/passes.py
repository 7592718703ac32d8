"""A pass of a model over a dataset: whatever the store does not hold yet gets a row, its scores or why it has none."""

import platform
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Literal, NamedTuple

import polars as pl

from scanner.config import Base, Reference
from scanner.dataset import readers
from scanner.dataset.shards import Shard
from scanner.diffusion.start import Watch
from scanner.errors import Interrupted
from scanner.identity import captions_fingerprint
from scanner.model import Model
from scanner.places import absolute
from scanner.scanning.carried import carry
from scanner.scanning.execute import Executor
from scanner.scanning.request import Dataset, Request
from scanner.scanning.screen import remembered, screened_out
from scanner.store.ledger import Ledger
from scanner.store.pending import BLOCK, Pending
from scanner.store.record import RunRecord, Screening

COMMIT_SECONDS = 10.0  # the most work that a kill can cost, of one of up to WRITERS
WRITERS = 8  # that may commit to one table so often: each commit reads those of all others
Purpose = Literal["scan", "calibration", "first pass"]


class Done(NamedTuple):
    """One pass: the record of its run, what it was to do, and rows committed by status."""

    scan_id: str
    record: RunRecord
    pending: Pending
    statuses: Counter[str]


@dataclass(frozen=True)
class Passes:
    """All that the passes over a dataset share. This is the only writer of rows."""

    request: Request
    data: Dataset
    ledger: Ledger
    run: Executor
    watch: Watch
    stop: Callable[[], bool]

    def score(self, model: Model, purpose: Purpose, screening: Screening | None = None) -> Done:
        """Give every prompt without one a row under the scan_id of a prepared model, or of its screening.

        Runs at once may have chosen thresholds: that of the first to begin is everybody's.
        """
        pending = self._pending(model, screening)
        asked = self._record(model, purpose, screening, pending)

        def agreed(records: Sequence[RunRecord]) -> tuple[str, RunRecord]:
            if screening is None:
                return model.scan_id, asked
            first = remembered(screening, records, self.request.limit)
            return first.scan_id, replace(asked, screening=first)

        scan_id, record = self.ledger.agree(agreed)
        final = record.screening
        if final != screening:
            pending = self._pending(model, final)
        if final is not None and carry(self.ledger, final, self.ledger.records(), pending):
            pending = self._pending(model, final)
        return Done(scan_id, record, pending, self._rows(model, scan_id, pending))

    def _pending(self, model: Model, screening: Screening | None) -> Pending:
        if screening is None:
            return self.data.pending(self.ledger, model.scan_id)
        return self.data.pending(self.ledger, screening.scan_id, screened_out(screening, self.ledger))

    def _rows(self, model: Model, scan_id: str, pending: Pending) -> Counter[str]:
        """Score and commit. Whatever ends it, what is computed is committed. Counts by status."""
        assert model.prepared is not None
        computed: list[pl.DataFrame] = []
        statuses: Counter[str] = Counter()
        shard, interval = self.request.shard, commit_seconds(self.request.shard)
        done, committed_at = 0, time.monotonic()
        committed_at -= interval * (1 - shard.index / shard.count)  # shards that begin together take turns

        def commit() -> None:
            if computed:
                rows = pl.concat(computed, how="diagonal")
                computed.clear()
                self.ledger.append(scan_id, rows)
                statuses.update(rows["status"])

        self.watch("scan", 0, pending.to_score)
        try:
            for frame in pending.others():
                computed.append(frame)
                if len(frame) == BLOCK:
                    commit()
            for frame in self.run(model, pending.chunks(model.prepared.chunk), self.stop):
                computed.append(frame)
                done += len(frame)
                self.watch("scan", done, pending.to_score)
                if time.monotonic() - committed_at > interval:
                    commit()
                    committed_at = time.monotonic()
        finally:
            commit()
        if done < pending.to_score:
            raise Interrupted(
                f"interrupted: what was computed is committed ({done:,} of {pending.to_score:,} pending prompts); the "
                "same command goes on from there"
            )
        self.ledger.compact()
        return statuses

    def _record(self, model: Model, purpose: Purpose, screening: Screening | None, pending: Pending) -> RunRecord:
        request, prepared = self.request, model.prepared
        assert prepared is not None
        named = None
        if model.reference and request.reference is not None:
            named = Reference(readers.absolute([request.reference])[0], captions_fingerprint(model.reference))
        base = None
        if model.base_model is not None:
            base = Base(absolute(model.base_model.path), model.base_model.bundle.manifest.fingerprint)
        return RunRecord(
            purpose=purpose,
            inputs=tuple(request.files),
            column=request.column,
            limit=request.limit,
            left_out=tuple(problem.file for problem in self.data.rows.problems),
            model=absolute(model.path),
            backend=model.backend,
            precision=model.precision,
            passed_over=tuple(model.bundle.passed_over),
            provider=prepared.provider,
            batch_size=model.batch_size,
            config=model.config,
            reference=named,
            host=platform.node(),
            versions={name: version(name) for name in ("overscan", "polars", "deltalake", "numpy")},
            canaries=tuple(prepared.canaries.to_dicts()),
            screening=screening,
            dialect=request.dialect,
            reading=self.data.reading(),
            shard=request.shard,
            prompts=pending.unique,
            left=pending.left,
            held=pending.held,
            base=base,
        )


def commit_seconds(shard: Shard) -> float:
    """Seconds between commits of a shard's scan: all shards together commit as often as WRITERS would, or less."""
    return COMMIT_SECONDS * max(1.0, shard.count / WRITERS)
