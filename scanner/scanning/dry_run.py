"""What a scan would do: counts, and the time from a few prompts scored. Writes nothing to the store."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Unpack

from scanner.config import Screen
from scanner.dataset.readers import Problem
from scanner.dataset.reading import Reading
from scanner.dataset.shards import Shard
from scanner.diffusion.start import Watch, unwatched
from scanner.model import Model
from scanner.model.stopping import stopping
from scanner.scanning.auto import settled
from scanner.scanning.request import Asked, Inputs, Request, dataset
from scanner.scanning.screen import remembered, screened_out
from scanner.store.pending import Pending

PROBE = 20  # prompts, or more to fill a batch, that are scored to estimate the rest


@dataclass(frozen=True)
class DryRun:
    """What a scan would do. `prompts_per_second` and `seconds` come from scoring a few of the pending prompts.

    Of a screened scan, `first_pass`: prompts pending there, and `refine`: about how many get all passes; its `scan_id`
    is None where the threshold, on which it depends, is not chosen yet. `screened_because`: how a screen that chose
    itself came about.
    """

    scan_id: str | None
    backend: str
    precision: str
    provider: str
    batch_size: int
    rows: int
    unique: int
    duplicates: int
    already_scored: int
    pending: int
    left_out: tuple[Problem, ...]
    prompts_per_second: float
    seconds: float
    reading: Reading
    shard: Shard
    first_pass: int | None = None
    refine: int | None = None
    screened_because: str = ""


def dry_run(
    inputs: Inputs,
    *,
    watch: Watch = unwatched,
    stop: Callable[[], bool] = lambda: False,
    **asked: Unpack[Asked],
) -> DryRun:
    """Count what `scan` would score and time a few prompts. Needs no store. Raises ScannerError or EngineError."""
    request = settled(Request(inputs, **asked))
    rows, preparing = request.rows, stopping(watch, stop)
    model = first_model = request.first_model.prepare(preparing)
    ledger = request.begun
    scan_id: str | None = first_model.scan_id
    first_pass, refine = None, None
    with dataset(request, rows, stop, watch) as data:
        pending = data.pending(ledger, scan_id)
        seconds = _seconds(first_model, pending, pending.to_score)
        if isinstance(request.screen, Screen):
            full, first_pass, out = request.after(first_model), pending.to_score, None
            screening = request.screening(full, first_model)
            if ledger is not None:
                screening = remembered(screening, ledger.records(), request.limit)
                out = screened_out(screening, ledger) if screening.threshold is not None else None
            scan_id = None if screening.threshold is None else screening.scan_id
            pending = data.pending(ledger, scan_id, out)
            unknown = pending.to_score if scan_id is None else first_pass  # nobody knows yet who will pass the screen
            refine = pending.to_score - unknown + math.ceil(request.screen.share * unknown)
            first_model.close()  # a large model is not held twice
            model = full.prepare(preparing)
            seconds += _seconds(model, pending, refine)
    assert model.prepared is not None
    assert model.batch_size is not None
    return DryRun(
        scan_id=scan_id,
        backend=model.backend,
        precision=model.precision,
        provider=model.prepared.provider,
        batch_size=model.batch_size,
        rows=pending.rows,
        unique=pending.unique,
        duplicates=pending.rows - pending.unique,
        already_scored=pending.already_scored,
        pending=pending.left,
        left_out=data.rows.problems,
        prompts_per_second=pending.to_score / seconds if seconds else 0.0,
        seconds=seconds,
        first_pass=first_pass,
        refine=refine,
        screened_because=request.screen.why if isinstance(request.screen, Screen) else "",
        reading=data.reading(each=True),
        shard=request.shard,
    )


def _seconds(model: Model, pending: Pending, prompts: int) -> float:
    """How long so many prompts would take."""
    scorer = model.scorer()
    probe = next(pending.chunks(max(PROBE, scorer.chunk)), None)
    if probe is None:
        return 0.0
    started = time.monotonic()
    scorer(probe)
    return prompts * (time.monotonic() - started) / len(probe)
