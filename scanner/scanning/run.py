"""The story: captions -> unique prompts -> pending -> chunks -> scores -> ledger; with a screen, twice."""

import platform
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, NamedTuple, Unpack

import polars as pl

from scanner.config import ScanConfig
from scanner.dataset import captions, readers
from scanner.diffusion.scores import SCORES
from scanner.diffusion.trace import Watch, unwatched
from scanner.errors import Interrupted
from scanner.identity import captions_fingerprint
from scanner.model.scorer import Scorer
from scanner.scanning import execute
from scanner.scanning.request import Asked, Dataset, Inputs, Request, dataset, stopping
from scanner.scanning.screen import Screening
from scanner.store.ledger import FIRST_PASS, Ledger
from scanner.store.pending import BLOCK, Pending
from scanner.store.status import screened
from scanner.store.stored import StoredScan

COMMIT_SECONDS = 10.0  # the most work that a kill can cost
Purpose = Literal["scan", "calibration"]


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


def scan(
    inputs: Inputs,
    *,
    purpose: Purpose = "scan",
    prepare: Watch = unwatched,
    progress: Callable[[int, int], None] = lambda committed, total: None,
    stop: Callable[[], bool] = lambda: False,
    **asked: Unpack[Asked],
) -> ScanResult:
    """Score every unique caption of `inputs` that the store does not hold yet. `asked`: as of `Request`.

    Files that cannot be read are left out and named in the result; `strict`: they are an error.
    `purpose`: captions scored for a "calibration" are not what `read_store` calls the newest scan.
    `prepare(what, done, total)` hears of the UNet passes before the first prompt, `progress(done, total)` of every
    chunk. Once `stop()` is true, the chunk in hand is finished and committed and Interrupted raised. However it ends,
    nothing committed is lost or computed again.
    Raises ScannerError or engines.EngineError.
    """
    started = time.monotonic()
    request = Request(inputs, **asked)
    watch = stopping(prepare, stop)
    rows, scorer = request.rows, request.first_scorer(watch)
    first = scorer.scan_id
    ledger = Ledger(request.store, tuple(SCORES))
    with dataset(request, rows, stop) as data:
        run = _Run(request, data, ledger, progress, stop)
        screening = None
        if request.screen is not None:
            run.score(scorer, FIRST_PASS)
            screening = request.screening(first).remembered(ledger, request.limit)
            screening = screening.chosen(ledger, data.captions, data.folder / "first pass")
            del scorer  # a large model is not held twice
            scorer = request.scorer(watch)
        done = run.score(scorer, purpose, screening)
    statuses = done.pending.statuses + done.statuses
    return ScanResult(
        scan_id=done.scan_id,
        store=Path(request.store),
        record=done.record,
        captions=captions.texts(data.rows),
        left_out=data.rows.problems,
        backend=scorer.bundle.backend,
        precision=scorer.bundle.precision,
        provider=scorer.denoiser.provider,
        batch_size=scorer.denoiser.batch_size,
        rows=done.pending.rows,
        unique=done.pending.unique,
        already_scored=done.pending.already_scored,
        scored=done.statuses["scored"] + done.statuses["non_finite"],
        skipped={status: count for status, count in sorted(statuses.items()) if status != "scored"},
        other_scans=ledger.count_others(done.scan_id, first),
        seconds=time.monotonic() - started,
        screening=screened(done.record, statuses),
    )


def scan_id_of(
    model: str | Path,
    backend: str,
    config: ScanConfig,
    reference: str | Path | None = None,
    precision: str = "auto",
) -> str:
    """The scan_id that an unscreened scan with these arguments would have. Raises ScannerError or EngineError."""
    request = Request((), model, "", reference=reference, config=config, backend=backend, precision=precision)
    return request.scan_id()


class _Done(NamedTuple):
    """One pass over the dataset: what it was to do, and rows committed by status."""

    scan_id: str
    record: dict[str, Any]
    pending: Pending
    statuses: Counter[str]


@dataclass(frozen=True)
class _Run:
    """All that the passes over a dataset share. This is the only writer of rows."""

    request: Request
    data: Dataset
    ledger: Ledger
    progress: Callable[[int, int], None]
    stop: Callable[[], bool]

    def score(self, scorer: Scorer, purpose: str, screening: Screening | None = None) -> _Done:
        """Give every prompt without one a row under the scan_id: its scores, or why it has none."""
        scan_id, out = scorer.scan_id, None
        if screening is not None:
            scan_id, out = screening.scan_id, screening.screened_out(self.ledger)
        pending = self.data.pending(self.ledger, scan_id, out)
        record = self._record(scorer, purpose) | {"screening": None if screening is None else asdict(screening)}
        self.ledger.begin(scan_id, record)
        return _Done(scan_id, record, pending, self._rows(scorer, scan_id, pending))

    def _rows(self, scorer: Scorer, scan_id: str, pending: Pending) -> Counter[str]:
        """Score and commit. Whatever ends it, what is computed is committed. Counts by status."""
        computed: list[pl.DataFrame] = []
        statuses: Counter[str] = Counter()
        done, committed_at = 0, time.monotonic()

        def commit() -> None:
            if computed:
                rows = pl.concat(computed, how="diagonal")
                computed.clear()
                self.ledger.append(scan_id, _complete(rows))
                statuses.update(rows["status"])

        self.progress(0, pending.to_score)
        try:
            for frame in pending.others():
                computed.append(frame)
                if len(frame) == BLOCK:
                    commit()
            for frame in execute.local(scorer, pending.chunks(scorer.chunk)):
                computed.append(frame)
                done += len(frame)
                self.progress(done, pending.to_score)
                if self.stop() and done < pending.to_score:
                    commit()
                    raise Interrupted(
                        f"interrupted: what was computed is committed ({done:,} of {pending.to_score:,} pending "
                        "prompts); the same command goes on from there"
                    )
                if time.monotonic() - committed_at > COMMIT_SECONDS:
                    commit()
                    committed_at = time.monotonic()
        finally:
            commit()
        self.ledger.compact()
        return statuses

    def _record(self, scorer: Scorer, purpose: str) -> dict[str, Any]:
        request, reference = self.request, self.request.reference
        named = None
        if scorer.reference and reference is not None:
            named = {"path": readers.absolute([reference])[0], "fingerprint": captions_fingerprint(scorer.reference)}
        return {
            "purpose": purpose,
            "inputs": request.files,
            "column": request.column,
            "limit": request.limit,
            "left_out": [problem.file for problem in self.data.rows.problems],
            "model": str(Path(request.first_model if purpose == FIRST_PASS else request.model).absolute()),
            "backend": scorer.bundle.backend,
            "precision": scorer.bundle.precision,
            "passed_over": list(scorer.bundle.passed_over),
            "provider": scorer.denoiser.provider,
            "batch_size": scorer.denoiser.batch_size,
            "config": asdict(scorer.config),
            "reference": named,
            "host": platform.node(),
            "versions": {name: version(name) for name in ("overscan", "polars", "deltalake", "numpy")},
            "canaries": scorer.canaries().to_dicts(),
        }


def _complete(rows: pl.DataFrame) -> pl.DataFrame:
    """Columns that no row of a commit has (all of it was skipped), as nulls."""
    columns = {"truncated": pl.Boolean(), **dict.fromkeys(SCORES, pl.Float32())}
    columns |= dict.fromkeys(("q1", "q2", "q3"), pl.List(pl.Float32))
    missing = {name: pl.lit(None, dtype) for name, dtype in columns.items() if name not in rows.columns}
    return rows.with_columns(**missing)
