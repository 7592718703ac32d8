"""The executor of a Ray cluster: an actor per worker, wherever there is room; the driver stays the only writer.

Ray's own ActorPool puts an actor that died back among the idle ones, and with its next chunks it loses those too. So
the chunks are given here: a chunk whose actor died, with its node or alone, is given to another one.

Every node needs overscan as the driver has it, and the bundle: at the same path, or fetched from the same URL. Both are
looked at before an actor gets a chunk. Ray's own statistics of use are off in what this process starts; a cluster that
is there already was started by somebody else, see docs/fleet.md.
"""

import os
import signal
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import polars as pl

from engines import EngineError
from engines.installed import install_line
from scanner.errors import ScannerError
from scanner.model import Model, Scorer
from scanner.scanning.execute import DEATHS, Chunks, Executor, Ready, Task, check

LISTEN = 1.0  # seconds until it is asked again whether to stop
GONE = "RayActorError", "NodeDiedError", "WorkerCrashedError", "ObjectLostError", "ActorUnschedulableError"


def on_ray(workers: int, address: str | None = None, cpus: float = 1, gpus: float = 0) -> Executor:
    """So many actors of a Ray cluster, each with so many of a node's cores and GPUs.

    `address`: of the cluster; None: that of RAY_ADDRESS, or a cluster of this machine alone, made for the run. An actor
    that dies is replaced and its chunk given again. Raises EngineError where actors die again and again, or where one
    finds another model or computes other canaries than this process; ScannerError where they raise it.
    """

    def run(model: Model, chunks: Chunks, stop: Callable[[], bool]) -> Iterator[pl.DataFrame]:
        ray = _ray()
        model = model.prepare()
        model.close()  # the actors open their own
        with _connected(ray, address):
            crew = _Crew(ray, model, ray.remote(num_cpus=cpus, num_gpus=gpus, max_restarts=0)(_Actor))
            yield from crew.work(workers, iter(chunks), stop)

    return run


class _Actor:
    """One worker: says what it opened, then chunk in, frame out. What it refuses is its answer."""

    def __init__(self, model: Model):
        self._model = model
        self._scorer: Scorer | None = None

    def ready(self) -> Ready | Exception:
        """What it found, once its engines are open."""
        try:
            found = self._model.adapted().scan_id  # by the files and libraries of this node
            self._scorer = self._model.scorer()
            return Ready(found, self._scorer.canaries())
        except (ScannerError, EngineError) as error:
            return error

    def score(self, chunk: pl.DataFrame) -> pl.DataFrame | Exception:
        """A chunk's scores."""
        assert self._scorer is not None
        try:
            return self._scorer(chunk)
        except (ScannerError, EngineError) as error:
            return error


@dataclass
class _Place:
    """An actor, what it has in hand, and deaths in its place before anything was."""

    actor: Any
    deaths: int = 0
    task: Task | None = None


class _Crew:
    """Actors, and the calls that they have not answered yet."""

    def __init__(self, ray: Any, model: Model, actor: Any):
        self._ray, self._model, self._actor = ray, model, actor
        self._shipped = ray.put(model)  # once per node, whatever it carries
        self._calls: dict[Any, _Place] = {}
        self._idle: list[_Place] = []
        self._again: deque[Task] = deque()
        self._left = True  # whether there may be another chunk

    def work(self, workers: int, chunks: Iterator[pl.DataFrame], stop: Callable[[], bool]) -> Iterator[pl.DataFrame]:
        """Give chunks to whoever is free, until there are none, or none shall be begun."""
        for _ in range(workers):
            self._hire(0)
        while self._left or self._again or any(place.task for place in self._calls.values()):
            self._left = self._left and not stop()
            heard, _ = self._ray.wait(list(self._calls), num_returns=1, timeout=LISTEN)
            for call in heard:
                place = self._calls.pop(call)
                try:
                    answer = self._ray.get(call)
                except self._ray.exceptions.RayError as error:
                    self._replace(place, error)
                    continue
                if isinstance(answer, Exception):
                    raise answer
                if isinstance(answer, Ready):
                    check(self._model, answer)
                else:
                    yield answer
                place.task, place.deaths = None, 0
                self._idle.append(place)
            while self._idle and (task := self._next(chunks, stop)) is not None:
                place = self._idle.pop()
                place.task = task
                self._calls[place.actor.score.remote(task.chunk)] = place

    def _next(self, chunks: Iterator[pl.DataFrame], stop: Callable[[], bool]) -> Task | None:
        if self._again:
            return self._again.popleft()
        chunk = next(chunks, None) if self._left and not stop() else None
        self._left = chunk is not None
        return None if chunk is None else Task(chunk)

    def _hire(self, deaths: int) -> None:
        actor = self._actor.remote(self._shipped)
        self._calls[actor.ready.remote()] = _Place(actor, deaths)

    def _replace(self, place: _Place, error: Exception) -> None:
        """Another actor in the place of one that died. Raises EngineError after DEATHS over one chunk, or over none."""
        if not isinstance(error, tuple(getattr(self._ray.exceptions, name) for name in GONE)):
            raise EngineError(f"a Ray actor failed: {error}") from error
        if place.task is None:
            place.deaths += 1
        else:
            place.task.deaths += 1
            self._again.append(place.task)
        if DEATHS in (place.deaths, place.task.deaths if place.task else 0):
            raise EngineError(
                f"{DEATHS} Ray actors died one after the other ({error}): name fewer workers per node or a smaller "
                "batch size, or none, to see the error in one process"
            ) from error
        with suppress(Exception):
            self._ray.kill(place.actor)
        self._hire(place.deaths)


@contextmanager
def _connected(ray: Any, address: str | None) -> Iterator[None]:
    """Connected to a cluster, or to one of this machine made for the run. Raises EngineError."""
    if ray.is_initialized():
        yield
        return
    numbers = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    handlers = {number: signal.getsignal(number) for number in numbers}
    settings: dict[str, Any] = {"log_to_driver": False, "logging_level": "warning"}
    if address is None and "RAY_ADDRESS" not in os.environ:  # this machine's alone, and heard by it alone
        settings |= {"address": "local", "include_dashboard": False, "_node_ip_address": "127.0.0.1"}
    else:
        settings |= {"address": address or "auto"}
    try:
        ray.init(**settings)
    except Exception as error:  # Ray raises what it likes
        raise EngineError(f"Ray cluster {address or ''}: cannot be reached or made ({error})") from error
    with suppress(ValueError):  # not the main thread
        for number, handler in handlers.items():  # Ray takes them over
            signal.signal(number, handler)
    try:
        yield
    finally:
        ray.shutdown()


def _ray() -> Any:
    try:
        import ray
        import ray.exceptions
    except ImportError as error:
        raise EngineError(f'the executor "ray" needs Ray: {install_line("ray")}') from error
    return ray
