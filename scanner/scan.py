"""The story: captions -> unique prompts -> pending -> chunks -> scores -> ledger."""

import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import polars as pl

from engines import open_bundle
from scanner import execute
from scanner.config import ScanConfig
from scanner.dataset import captions
from scanner.dataset.ledger import Ledger
from scanner.diffusion.scores import SCORES
from scanner.errors import InputError
from scanner.scorer import Scorer

COMMIT_SECONDS = 10.0  # the most work that a kill can cost


@dataclass(frozen=True)
class ScanResult:
    """What a scan found and did. `scores`: one row per unique prompt, [prompt_id, text, n_rows, status, scores...]."""

    scan_id: str
    provider: str
    rows: int
    unique: int
    already_scored: int
    scored: int
    skipped: dict[str, int]  # status -> unique prompts, of the whole input
    other_scans: int  # rows in the store that belong to other models or settings
    seconds: float
    scores: pl.DataFrame = field(repr=False)


def scan(
    inputs: str | Path | Sequence[str | Path],
    *,
    model: str | Path,
    store: str | Path,
    column: str | None = None,
    config: ScanConfig | None = None,
    backend: str = "auto",
    batch_size: int | None = None,
    limit: int | None = None,
    progress: Callable[[int, int], None] = lambda committed, total: None,
) -> ScanResult:
    """Score every unique caption of `inputs` that `store` does not hold yet.

    `progress(done, total)` hears of every chunk. Interrupted, nothing committed is lost or computed again.
    Raises ScannerError or engines.EngineError.
    """
    started = time.monotonic()
    config = config or ScanConfig()
    inputs = [inputs] if isinstance(inputs, str | Path) else list(inputs)
    prompts = captions.unique_prompts(captions.read(inputs, column, limit))
    if prompts.is_empty():
        raise InputError(f"{', '.join(map(str, inputs))}: no caption rows in it")
    scorer = Scorer(open_bundle(model, backend), config, batch_size)
    ledger = Ledger(store, tuple(SCORES))
    ledger.begin(scorer.scan_id, _record(inputs, column, limit, model, scorer, config))
    pending = ledger.pending(scorer.scan_id, prompts)
    _run(scorer, ledger, pending, progress)
    scores = _join(prompts, ledger, scorer.scan_id)
    statuses = dict(scores.filter(pl.col("status") != "scored").group_by("status").len().sort("status").iter_rows())
    return ScanResult(
        scan_id=scorer.scan_id,
        provider=scorer.denoiser.provider,
        rows=int(prompts["n_rows"].sum()),
        unique=len(prompts),
        already_scored=len(prompts) - len(pending),
        scored=len(pending.filter(status="pending")),
        skipped=statuses,
        other_scans=ledger.count_others(scorer.scan_id),
        seconds=time.monotonic() - started,
        scores=scores,
    )


@dataclass(frozen=True)
class StoredScan:
    """The newest scan of a store, with the captions as they are now.

    `captions`: lazy [file, row, text]; `scores` as in ScanResult, the status null where a caption is
    newer than the scan. `record`: what the run was asked, and with which versions.
    """

    scan_id: str
    record: Mapping[str, Any] = field(repr=False)
    captions: pl.LazyFrame = field(repr=False)
    scores: pl.DataFrame = field(repr=False)


def read_store(store: str | Path) -> StoredScan:
    """Read the newest scan's captions again and join them with their scores. Raises ScannerError."""
    ledger = Ledger(store)
    scan_id, record = ledger.last_run()
    rows = captions.read(record["inputs"], record["column"], record["limit"])
    return StoredScan(scan_id, record, rows, _join(captions.unique_prompts(rows), ledger, scan_id))


def _join(prompts: pl.DataFrame, ledger: Ledger, scan_id: str) -> pl.DataFrame:
    return prompts.drop("status").join(ledger.read(scan_id), on="prompt_id", how="left", maintain_order="left")


def _run(scorer: Scorer, ledger: Ledger, pending: pl.DataFrame, progress: Callable[[int, int], None]) -> None:
    """Score and commit; this is the only writer. An interruption commits what is computed before it goes on."""
    computed: list[pl.DataFrame] = []
    done, committed_at = 0, time.monotonic()

    def commit() -> None:
        if computed:
            rows = pl.concat(computed, how="diagonal")
            computed.clear()
            ledger.append(scorer.scan_id, _complete(rows))

    progress(0, len(pending))
    try:
        for frame in execute.local(scorer, pending.iter_slices(scorer.chunk)):
            computed.append(frame)
            done += len(frame)
            progress(done, len(pending))
            if time.monotonic() - committed_at > COMMIT_SECONDS:
                commit()
                committed_at = time.monotonic()
    finally:
        commit()
    ledger.compact()


def _complete(rows: pl.DataFrame) -> pl.DataFrame:
    """Columns that no row of a commit has (all of it was skipped), as nulls."""
    columns = {"truncated": pl.Boolean(), **dict.fromkeys(SCORES, pl.Float32())}
    columns |= dict.fromkeys(("q1", "q2", "q3"), pl.List(pl.Float32))
    missing = {name: pl.lit(None, dtype) for name, dtype in columns.items() if name not in rows.columns}
    return rows.with_columns(**missing)


def _record(
    inputs: Sequence[str | Path],
    column: str | None,
    limit: int | None,
    model: str | Path,
    scorer: Scorer,
    config: ScanConfig,
) -> dict[str, object]:
    return {
        "inputs": [str(Path(item).absolute()) for item in inputs],
        "column": column,
        "limit": limit,
        "model": str(Path(model).absolute()),
        "provider": scorer.denoiser.provider,
        "config": asdict(config),
        "host": platform.node(),
        "versions": {name: version(name) for name in ("overscan", "polars", "deltalake", "numpy")},
    }
