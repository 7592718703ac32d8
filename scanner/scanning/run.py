"""The story: captions -> unique prompts -> pending -> chunks -> scores -> ledger; with a screen, twice."""

import time
from collections.abc import Callable
from typing import Unpack

from scanner.diffusion.scores import SCORES
from scanner.diffusion.start import Watch, unwatched
from scanner.model import Model
from scanner.model.stopping import stopping
from scanner.scanning.auto import settled
from scanner.scanning.execute import Executor, local
from scanner.scanning.passes import Passes, Purpose
from scanner.scanning.request import Asked, Inputs, Request, dataset
from scanner.scanning.result import ScanResult, result_of
from scanner.scanning.screen import chosen, remembered
from scanner.scanning.shared import Shared
from scanner.store.ledger import Ledger
from scanner.store.record import FIRST_PASS


def scan(
    inputs: Inputs,
    *,
    purpose: Purpose = "scan",
    executor: Executor = local,
    watch: Watch = unwatched,
    stop: Callable[[], bool] = lambda: False,
    **asked: Unpack[Asked],
) -> ScanResult:
    """Score every unique caption of `inputs` that the store does not hold yet. `asked`: as of `Request`.

    Files that cannot be read are left out and named in the result; `strict`: they are an error.
    `purpose`: captions scored for a "calibration" are not what `read_store` calls the newest scan.
    `executor`: where chunks are scored, of `scanner.scanning.execute`.
    `watch(what, done, total)` hears of the UNet passes before the first prompt, and as "scan" of every chunk. Once
    `stop()` is true, chunks in hand are finished and committed and Interrupted raised. However it ends, nothing
    committed is lost or computed again.
    Raises ScannerError or engines.EngineError.

    >>> result = scan("captions.parquet", model="bundle", store="store", limit=40, batch_size=16)
    >>> len(result.scores) == result.unique, result.skipped
    (True, {})
    """
    started = time.monotonic()
    request = settled(Request(inputs, **asked))
    rows, preparing = request.rows, stopping(watch, stop)
    shared = Shared.of(request, rows, stop, watch) if request.shard.count > 1 else None
    prepare = Model.prepare if shared is None else shared.prepared
    model = first_model = prepare(request.first_model, preparing)
    ledger = Ledger(request.store, tuple(SCORES))
    with dataset(request, rows, stop, watch) if shared is None else shared.dataset(request, stop) as data:
        passes, screening = Passes(request, data, ledger, executor, watch, stop), None
        if request.screen is not None:
            passes.score(first_model, FIRST_PASS)
            full = request.after(first_model)
            screening = remembered(request.screening(full, first_model), ledger.records(), request.limit)
            screening = chosen(screening, ledger, data.partitions, data.folder / "first pass")
            first_model.close()  # a large model is not held twice
            model = prepare(full, preparing)
        done = passes.score(model, purpose, screening)
    if shared is not None:
        shared.done(done.scan_id)
    return result_of(done, data, ledger, first_model.scan_id, time.monotonic() - started)
