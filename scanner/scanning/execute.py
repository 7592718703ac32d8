"""Executors: one map of a model over chunks, in this process or in others.

An executor is a function `run(model, chunks, stop) -> frames` of a prepared `scanner.model.Model`, a value that can be
pickled to wherever the work is done. The caller stays the only reader of captions and the only writer of scores;
frames may come in any order. Once `stop()` is true, chunks in hand are finished and no other is begun.
"""

import multiprocessing
import os
import signal
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess

import numpy as np
import polars as pl

from engines import EngineError
from scanner.diffusion.scores import ABSOLUTE, RELATIVE, SCORES
from scanner.errors import ScannerError
from scanner.model import Model
from scanner.model.batch_size import review

Chunks = Iterable[pl.DataFrame]
Executor = Callable[[Model, Chunks, Callable[[], bool]], Iterator[pl.DataFrame]]
HALF = 500  # times what float32 rounds otherwise with another number of threads, a half precision does
DEVICES = ("tensorrt", "cuda", "torch-cuda")  # backends that run on a GPU
VISIBLE = "CUDA_VISIBLE_DEVICES"
DEATHS = 3  # of workers over one chunk, or before any: then the run ends


def local(model: Model, chunks: Chunks, stop: Callable[[], bool]) -> Iterator[pl.DataFrame]:
    """Chunk after chunk in this process: the engines run while a second thread makes the scores of the chunk before."""
    scorer, samples, seconds = model.scorer(), 0, 0.0
    with ThreadPoolExecutor(1) as beside:
        before = deque[Future[pl.DataFrame]]()
        try:
            for chunk in chunks:
                started = time.perf_counter()
                predicted = scorer.predict(chunk)
                samples, seconds = samples + len(chunk) * model.passes, seconds + time.perf_counter() - started
                yield from _drained(before)
                before.append(beside.submit(scorer.scores, chunk, *predicted))
                if stop():
                    break
        except (Exception, KeyboardInterrupt):
            yield from _drained(before)  # what is computed is not lost
            raise
        yield from _drained(before)
    review(model.bundle, scorer.denoiser, samples, seconds)


def _drained(made: deque[Future[pl.DataFrame]]) -> Iterator[pl.DataFrame]:
    while made:
        yield made.popleft().result()


def processes(workers: int, devices: Sequence[str] = ()) -> Executor:
    """So many processes of this machine, which share its cores and pull chunks; each opens the model itself.

    `devices`: of GPUs, numbers or UUIDs as CUDA_VISIBLE_DEVICES has them: the workers take them in turn, and see no
    other.

    A worker that dies is replaced and its chunk given again. Raises EngineError where workers die again and again, or
    where one finds another model or computes other canaries than this process; ScannerError where they raise it.
    """

    def run(model: Model, chunks: Chunks, stop: Callable[[], bool]) -> Iterator[pl.DataFrame]:
        model = model.prepare()
        if devices and model.backend not in DEVICES:
            raise ScannerError(
                f"devices {', '.join(devices)}: the {model.backend} backend runs on the CPU; needed one of "
                f"{', '.join(DEVICES)}: name workers instead"
            )
        model.close()  # the workers open their own
        seats = [
            _Seat(cores, devices[i % len(devices)] if devices else None) for i, cores in enumerate(_shares(workers))
        ]
        crew = [_hired(model, seat) for seat in seats]
        try:
            yield from _work(model, crew, iter(chunks), stop)
        finally:
            for worker in crew:
                worker.process.kill()
                worker.process.join()
                worker.connection.close()

    return run


@dataclass
class Task:
    """A chunk, and how many workers died over it."""

    chunk: pl.DataFrame
    deaths: int = 0


@dataclass(frozen=True)
class _Seat:
    """What a worker may use: cores, none where the system does not tell them, and one GPU."""

    cores: Sequence[int]
    device: str | None = None


@dataclass
class _Worker:
    """A process, our end of its pipe, where it works, what it has in hand, and deaths in its place before anything
    was."""

    process: SpawnProcess
    connection: Connection
    seat: _Seat
    deaths: int = 0
    ready: bool = False
    task: Task | None = None


def _work(
    model: Model, crew: list[_Worker], chunks: Iterator[pl.DataFrame], stop: Callable[[], bool]
) -> Iterator[pl.DataFrame]:
    """Give chunks to whoever is free, until there are none, or none shall be begun."""
    again: deque[Task] = deque()
    left = True  # whether there may be another chunk

    def give(worker: _Worker) -> None:
        nonlocal left
        if again:
            worker.task = again.popleft()
        else:
            chunk = None if stop() else next(chunks, None)
            left, worker.task = chunk is not None, None if chunk is None else Task(chunk)
        if worker.task is not None:
            with suppress(OSError):  # dead meanwhile: its end of the pipe is closed, which is heard below
                worker.connection.send(worker.task.chunk)

    while left or again or any(worker.task is not None for worker in crew):
        heard = wait([worker.connection for worker in crew])
        for place, worker in [(i, worker) for i, worker in enumerate(crew) if worker.connection in heard]:
            try:
                answer = worker.connection.recv()
            except (EOFError, OSError):
                crew[place] = _replaced(model, worker)
                again.extend([] if worker.task is None else [worker.task])
                continue
            if isinstance(answer, Exception):
                raise answer
            if isinstance(answer, Ready):
                check(model, answer)
                worker.ready = True
            else:
                yield answer
            give(worker)
        for worker in crew:  # a chunk that came back after others had run out of work
            if again and worker.ready and worker.task is None:
                give(worker)


@dataclass(frozen=True)
class Ready:
    """What a worker found: the scan_id of the model as it opened it, and what its engine gives for the canaries."""

    scan_id: str
    canaries: pl.DataFrame


def check(model: Model, found: Ready) -> None:
    """Raise EngineError where a worker would compute other scores."""
    assert model.prepared is not None
    if found.scan_id != model.scan_id:
        raise EngineError(f"a worker opened a model of scan_id {found.scan_id}, needed {model.scan_id}")
    allowed = 1 if model.precision == "float32" else HALF
    for name in SCORES:
        ours, theirs = (frame[name].cast(pl.Float64).to_numpy() for frame in (model.prepared.canaries, found.canaries))
        if not np.allclose(ours, theirs, rtol=allowed * RELATIVE, atol=allowed * ABSOLUTE, equal_nan=True):
            raise EngineError(f"a worker computes other canaries ({name}): are its libraries those of this process?")


def _replaced(model: Model, worker: _Worker) -> _Worker:
    """Another worker in the place of one that died. Raises EngineError after DEATHS over one chunk, or over none."""
    worker.process.join()
    worker.connection.close()
    if worker.task is not None:
        worker.task.deaths += 1
    deaths = 0 if worker.ready else worker.deaths + 1
    if DEATHS in (deaths, worker.task.deaths if worker.task else 0):
        raise EngineError(
            f"{DEATHS} workers died one after the other (exit code {worker.process.exitcode}; -9: killed, often for "
            "want of memory): name fewer workers or a smaller batch size, or none, to see the error in one process"
        )
    hired = _hired(model, worker.seat)
    hired.deaths = deaths
    return hired


def _shares(workers: int) -> list[Sequence[int]]:
    """The cores of each worker; none where the system does not tell."""
    if not hasattr(os, "sched_getaffinity"):
        return [()] * workers
    cores = sorted(os.sched_getaffinity(0))
    if workers >= len(cores):
        return [[cores[i % len(cores)]] for i in range(workers)]
    return [cores[i * len(cores) // workers : (i + 1) * len(cores) // workers] for i in range(workers)]


def _hired(model: Model, seat: _Seat) -> _Worker:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, model, seat), daemon=True)
    process.start()
    theirs.close()
    return _Worker(process, ours, seat)


def _serve(connection: Connection, model: Model, seat: _Seat) -> None:
    """A worker's life: says what it opened, then chunk in, frame out, until the pipe closes."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):  # the driver hears them, and closes the pipe
        if hasattr(signal, name):  # Windows has no SIGHUP
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    if seat.cores:
        os.sched_setaffinity(0, seat.cores)
    if seat.device is not None:
        os.environ[VISIBLE] = seat.device  # read when a runtime first asks for a GPU, which none has yet
    with suppress(EOFError, OSError):  # the driver has ended
        try:
            found = model.adapted().scan_id  # by the files and libraries that this process sees
            scorer = model.scorer()
            connection.send(Ready(found, scorer.canaries()))
            while True:
                connection.send(scorer(connection.recv()))
        except (ScannerError, EngineError) as error:
            connection.send(error)
