"""The story: captions -> unique prompts -> pending -> chunks -> scores -> ledger."""

import platform
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import polars as pl

from engines import Bundle, open_bundle
from scanner import execute
from scanner.cache import fingerprint
from scanner.config import ScanConfig
from scanner.dataset import captions, readers
from scanner.dataset.ledger import Ledger
from scanner.dataset.pending import SCORED, Pending, find
from scanner.dataset.readers import Problem
from scanner.diffusion.scores import SCORES
from scanner.errors import InputError, Interrupted
from scanner.scorer import Scorer
from scanner.stored import StoredScan

COMMIT_SECONDS = 10.0  # the most work that a kill can cost
PROBE = 20  # prompts that a dry run scores to estimate the rest
Inputs = str | Path | Sequence[str | Path]


@dataclass(frozen=True)
class ScanResult(StoredScan):
    """What a scan found and did."""

    backend: str
    precision: str
    provider: str
    rows: int
    unique: int
    already_scored: int
    scored: int
    skipped: dict[str, int]  # status -> unique prompts, of the whole input
    other_scans: int  # rows in the store that belong to other models or settings
    seconds: float


@dataclass(frozen=True)
class DryRun:
    """What a scan would do. `prompts_per_second` and `seconds` come from scoring a few of the pending prompts."""

    scan_id: str
    backend: str
    precision: str
    provider: str
    rows: int
    unique: int
    duplicates: int
    already_scored: int
    pending: int
    left_out: tuple[Problem, ...]
    prompts_per_second: float
    seconds: float


def scan(
    inputs: Inputs,
    *,
    model: str | Path,
    store: str | Path,
    column: str | None = None,
    reference: str | Path | None = None,
    config: ScanConfig | None = None,
    backend: str = "auto",
    precision: str = "auto",
    batch_size: int | None = None,
    limit: int | None = None,
    strict: bool = False,
    purpose: Literal["scan", "calibration"] = "scan",
    progress: Callable[[int, int], None] = lambda committed, total: None,
    stop: Callable[[], bool] = lambda: False,
) -> ScanResult:
    """Score every unique caption of `inputs` that `store` does not hold yet.

    Files that cannot be read are left out and named in the result; `strict`: they are an error.
    `reference`: a file of ordinary captions, for the scores that compare with them.
    `purpose`: captions scored for a "calibration" are not what `read_store` calls the newest scan.
    `progress(done, total)` hears of every chunk. Once `stop()` is true, the chunk in hand is finished and committed and
    Interrupted raised. However it ends, nothing committed is lost or computed again.
    Raises ScannerError or engines.EngineError.
    """
    started = time.monotonic()
    inputs = readers.absolute([inputs] if isinstance(inputs, str | Path) else inputs)
    rows = readers.read(inputs, column, limit, strict)
    ordinary = [] if reference is None else captions.reference(reference)
    bundle = open_bundle(model, backend, precision)
    scorer = Scorer(bundle, config or ScanConfig(), batch_size, ordinary)
    ledger = Ledger(store, tuple(SCORES))
    named = None if reference is None else _named(reference, ordinary)
    night = {"purpose": purpose, "reference": named, "canaries": scorer.canaries().to_dicts()}
    with _pending(rows, inputs, ledger, scorer.scan_id, strict, stop) as (pending, rows):
        record = _record(inputs, column, limit, rows.problems, model, scorer, bundle) | night
        ledger.begin(scorer.scan_id, record)
        statuses = _run(scorer, ledger, pending, progress, stop)
    skipped = pending.statuses + statuses
    skipped.pop("scored", None)
    return ScanResult(
        scan_id=scorer.scan_id,
        store=Path(store),
        record=record,
        captions=captions.texts(rows),
        left_out=rows.problems,
        backend=bundle.backend,
        precision=bundle.precision,
        provider=scorer.denoiser.provider,
        rows=pending.rows,
        unique=pending.unique,
        already_scored=pending.already_scored,
        scored=statuses["scored"] + statuses["non_finite"],
        skipped=dict(sorted(skipped.items())),
        other_scans=ledger.count_others(scorer.scan_id),
        seconds=time.monotonic() - started,
    )


def dry_run(
    inputs: Inputs,
    *,
    model: str | Path,
    store: str | Path,
    column: str | None = None,
    reference: str | Path | None = None,
    config: ScanConfig | None = None,
    backend: str = "auto",
    precision: str = "auto",
    batch_size: int | None = None,
    limit: int | None = None,
    strict: bool = False,
    stop: Callable[[], bool] = lambda: False,
) -> DryRun:
    """Count what `scan` would score and time a few prompts. Writes nothing and needs no store."""
    inputs = readers.absolute([inputs] if isinstance(inputs, str | Path) else inputs)
    rows = readers.read(inputs, column, limit, strict)
    ordinary = [] if reference is None else captions.reference(reference)
    bundle = open_bundle(model, backend, precision)
    scorer = Scorer(bundle, config or ScanConfig(), batch_size, ordinary)
    ledger = Ledger(store) if Path(store).exists() else None
    with _pending(rows, inputs, ledger, scorer.scan_id, strict, stop) as (pending, rows):
        probe = next(pending.chunks(PROBE), None)
    started = time.monotonic()
    if probe is not None:
        scorer(probe)
    rate = 0.0 if probe is None else len(probe) / (time.monotonic() - started)
    return DryRun(
        scan_id=scorer.scan_id,
        backend=bundle.backend,
        precision=bundle.precision,
        provider=scorer.denoiser.provider,
        rows=pending.rows,
        unique=pending.unique,
        duplicates=pending.rows - pending.unique,
        already_scored=pending.already_scored,
        pending=pending.left,
        left_out=rows.problems,
        prompts_per_second=rate,
        seconds=pending.left / rate if rate else 0.0,
    )


def scan_id_of(
    model: str | Path,
    backend: str,
    config: ScanConfig,
    reference: str | Path | None = None,
    precision: str = "auto",
) -> str:
    """The scan_id that a scan with these arguments would have. Raises ScannerError or EngineError."""
    bundle = open_bundle(model, backend, precision)
    ordinary = None if reference is None else fingerprint(captions.reference(reference))
    return config.scan_id(bundle.manifest.fingerprint, bundle.backend, bundle.precision, ordinary)


@contextmanager
def _pending(
    rows: readers.Rows,
    inputs: Sequence[str],
    ledger: Ledger | None,
    scan_id: str,
    strict: bool,
    stop: Callable[[], bool],
) -> Iterator[tuple[Pending, readers.Rows]]:
    """What is left to score, and the rows without damaged files; its work files live as long as the context."""

    def check() -> None:
        if stop():
            raise Interrupted("interrupted while reading captions, before anything was scored: run it again")

    def search(rows: readers.Rows, folder: Path) -> Pending:
        if ledger is None:
            return find(captions.texts(rows), pl.LazyFrame(schema=SCORED), folder, check)
        with ledger.refusals():
            return find(captions.texts(rows), ledger.rows(scan_id).select("prompt_id", "status"), folder, check)

    with tempfile.TemporaryDirectory(prefix="overscan-") as folder:
        try:
            found = search(rows, Path(folder) / "all")
        except InputError:
            rows = readers.leave_out_damaged(rows, strict)
            found = search(rows, Path(folder) / "readable")
        if not found.rows:
            raise InputError(f"{', '.join(inputs)}: no caption rows in it")
        yield found, rows


def _run(
    scorer: Scorer, ledger: Ledger, pending: Pending, progress: Callable[[int, int], None], stop: Callable[[], bool]
) -> Counter[str]:
    """Score and commit; this is the only writer. Whatever ends it, what is computed is committed. Counts by status."""
    computed: list[pl.DataFrame] = []
    statuses: Counter[str] = Counter()
    done, committed_at = 0, time.monotonic()

    def commit() -> None:
        if computed:
            rows = pl.concat(computed, how="diagonal")
            computed.clear()
            ledger.append(scorer.scan_id, _complete(rows))
            statuses.update(rows["status"])

    progress(0, pending.left)
    try:
        for frame in execute.local(scorer, pending.chunks(scorer.chunk)):
            computed.append(frame)
            done += len(frame)
            progress(done, pending.left)
            if stop() and done < pending.left:
                commit()
                raise Interrupted(
                    f"interrupted: what was computed is committed ({done:,} of {pending.left:,} pending prompts); "
                    "the same command goes on from there"
                )
            if time.monotonic() - committed_at > COMMIT_SECONDS:
                commit()
                committed_at = time.monotonic()
    finally:
        commit()
    ledger.compact()
    return statuses


def _complete(rows: pl.DataFrame) -> pl.DataFrame:
    """Columns that no row of a commit has (all of it was skipped), as nulls."""
    columns = {"truncated": pl.Boolean(), **dict.fromkeys(SCORES, pl.Float32())}
    columns |= dict.fromkeys(("q1", "q2", "q3"), pl.List(pl.Float32))
    missing = {name: pl.lit(None, dtype) for name, dtype in columns.items() if name not in rows.columns}
    return rows.with_columns(**missing)


def _named(reference: str | Path, ordinary: Sequence[str]) -> dict[str, str]:
    """A reference as a run's record names it."""
    return {"path": readers.absolute([reference])[0], "fingerprint": fingerprint(ordinary)}


def _record(
    inputs: Sequence[str],
    column: str | None,
    limit: int | None,
    left_out: Sequence[Problem],
    model: str | Path,
    scorer: Scorer,
    bundle: Bundle,
) -> dict[str, object]:
    return {
        "inputs": list(inputs),
        "column": column,
        "limit": limit,
        "left_out": [problem.file for problem in left_out],
        "model": str(Path(model).absolute()),
        "backend": bundle.backend,
        "precision": bundle.precision,
        "passed_over": list(bundle.passed_over),
        "provider": scorer.denoiser.provider,
        "config": asdict(scorer.config),
        "host": platform.node(),
        "versions": {name: version(name) for name in ("overscan", "polars", "deltalake", "numpy")},
    }
