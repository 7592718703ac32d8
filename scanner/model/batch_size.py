"""How many UNet samples to run at once: the fewest that run about as fast as any, found by trying.

A trial is remembered for every later night, so one bad moment must not decide it: sizes are tried in interleaved rounds
of which the medians count, one trial at a time on a host; what others used of the machine meanwhile is noted, and a
trial that a busy machine or a scan's own rate puts in doubt is made again.
"""

import json
import os
import platform
import re
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from engines import Bundle
from engines.cache import cache_folder
from engines.cores import usable_cores
from scanner.diffusion.denoiser import Denoiser
from scanner.diffusion.start import Watch, initial_noise, unwatched
from scanner.files import replacing
from scanner.identity import identity

SIZES = (1, 4, 16, 64, 256)
GAIN = 1.05  # a larger batch must be so much faster: it costs memory, and an interrupted scan waits for its end
ROUNDS = 5  # of all sizes
SECONDS = 0.02  # of the runs at one size in one round, at least
PATIENCE = 2.0  # seconds within which the first round tries all sizes, as timings of small models are noisy
LONGEST = 8.0  # seconds after which no further round begins
LONGEST_RUN = 8.0  # seconds of a run: an interrupted scan waits for its end
BUSY = 0.2  # share of the machine that others used: more, and the trial is made again once the machine is calm
CALM = 0.3  # load per core up to which it is
FASTER, SLOWER = 1.25, 0.5  # a scan's rate over the trial's, beyond which one of them was disturbed
ENOUGH = 10.0  # seconds of a scan from which its rate says something
CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Trial:
    """`rates`: samples/s at each of SIZES, 0: not tried. `others`: share of the machine's cores that other processes
    used meanwhile; None where the system does not tell."""

    rates: tuple[float, ...]
    others: float | None

    @property
    def size(self) -> int:
        """The smallest of SIZES that is within GAIN of the fastest."""
        return next(size for size, rate in zip(SIZES, self.rates, strict=True) if rate * GAIN >= max(self.rates))

    @property
    def doubtful(self) -> bool:
        """Whether the machine was too busy to tell."""
        return self.others is not None and self.others > BUSY


def fastest(bundle: Bundle, denoiser: Denoiser, watch: Watch = unwatched) -> int:
    """The batch size for this model, engine and machine, from a trial that the cache remembers.

    The denoiser's own where the engine builds anew for every size.
    """
    if denoiser.rebuilds:
        return denoiser.batch_size
    file = _file(bundle, denoiser)
    with _alone(watch):
        trial = _remembered(file)
        if trial is None or (trial.doubtful and _calm()):
            trial = try_sizes(denoiser, watch)
            with suppress(OSError), replacing(file) as partial:  # costs time on the next run, nothing else
                partial.write_text(json.dumps(asdict(trial)), encoding="utf-8")
    return trial.size


def review(bundle: Bundle, denoiser: Denoiser, samples: int, seconds: float) -> None:
    """Forget the trial that chose the denoiser's batch size, where so many samples in so many seconds contradict it."""
    file = _file(bundle, denoiser)
    trial = _remembered(file)
    if trial is None or trial.size != denoiser.batch_size or seconds < ENOUGH:
        return
    expected = trial.rates[SIZES.index(trial.size)]
    if not SLOWER * expected <= samples / seconds <= FASTER * expected:
        file.unlink(missing_ok=True)


def try_sizes(denoiser: Denoiser, watch: Watch = unwatched) -> Trial:
    """Samples per second at each of SIZES: medians over rounds.

    The first round ends where a batch gains less than GAIN after PATIENCE, where it fails (a GPU's memory ends), and
    where the next might need over half of the memory left or run longer than LONGEST_RUN; others follow where there is
    a choice. Raises what the smallest batch raises.
    """
    others, began = _Others(), time.perf_counter()
    runs: list[list[float]] = []
    for i, size in enumerate(SIZES):
        watch("batch size", i, len(SIZES) * ROUNDS)
        before = _peak()
        try:
            _seconds(denoiser, size)  # warm
            runs.append([_seconds(denoiser, size)])
        except Exception:  # the runtimes' errors share no base class
            if i == 0:
                raise
            break
        rates = _rates(runs)
        if rates[i] < GAIN * max(rates[:i], default=0) and time.perf_counter() - began > PATIENCE:
            break
        if i + 1 == len(SIZES):
            break
        if _expected(runs) > LONGEST_RUN:
            runs[i].append(_seconds(denoiser, size))  # once more: one bad moment must not decide it
            if _expected(runs) > LONGEST_RUN:
                break
        if SIZES[i + 1] // size * (_peak() - before) > _available() / 2:
            break
    for done in range(1, ROUNDS):
        if len(runs) == 1 or time.perf_counter() - began > LONGEST:
            break
        for i, size in enumerate(SIZES[: len(runs)]):
            watch("batch size", done * len(SIZES) + i, len(SIZES) * ROUNDS)
            runs[i].append(_seconds(denoiser, size))
    return Trial((*_rates(runs), *[0.0] * (len(SIZES) - len(runs))), others.share())


def _expected(runs: Sequence[Sequence[float]]) -> float:
    """Seconds of a run at the next of SIZES, by the best of `runs` at each size so far: along a line through the last
    two, or through the origin and the first."""
    before, last, following = (0, *SIZES)[len(runs) - 1 :][:3]
    shorter, longer = (0.0, *map(min, runs))[-2:]
    return longer + (longer - shorter) / (last - before) * (following - last)


def _rates(runs: Sequence[Sequence[float]]) -> list[float]:
    return [size / statistics.median(seconds) for size, seconds in zip(SIZES, runs, strict=False)]


def _seconds(denoiser: Denoiser, size: int) -> float:
    """Seconds of one run."""
    resized = denoiser.resized(size)
    x_T = np.repeat(initial_noise((0,), denoiser.latent_shape), size, 0)[None]
    timestep = 1  # a run takes as long at any
    started, runs = time.perf_counter(), 0
    while not runs or time.perf_counter() - started < SECONDS:
        resized.predict(x_T, timestep, denoiser.null)
        runs += 1
    return (time.perf_counter() - started) / runs


def _file(bundle: Bundle, denoiser: Denoiser) -> Path:
    key = {
        "model": bundle.manifest.fingerprint,
        "backend": bundle.backend,
        "precision": bundle.precision,
        "machine": [platform.node(), denoiser.provider, usable_cores()],  # others may share the cache folder
        "sizes": SIZES,
    }
    return cache_folder() / f"batch-{identity(key)}.json"


def _remembered(file: Path) -> Trial | None:
    with suppress(OSError, ValueError, TypeError, KeyError):  # none yet, or damaged
        found = json.loads(file.read_text(encoding="utf-8"))
        trial = Trial(tuple(map(float, found["rates"])), found["others"])
        if len(trial.rates) == len(SIZES) and max(trial.rates) > 0:
            return trial
    return None


@contextmanager
def _alone(watch: Watch) -> Iterator[None]:
    """One trial at a time on this host: two would spoil each other's. Without locks, as it is."""
    try:
        import fcntl

        cache_folder().mkdir(parents=True, exist_ok=True)
        lock = (cache_folder() / f"{platform.node()}.lock").open("w")
    except (ImportError, OSError):
        yield
        return
    with lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                watch("batch size", 0, len(SIZES) * ROUNDS)
                time.sleep(0.1)
            except OSError:  # a file system without locks
                break
            else:
                break
        yield


class _Others:
    """What other processes use of the machine's cores, from now on."""

    def __init__(self) -> None:
        self._began = self._now()

    def share(self) -> float | None:
        """Of all cores, 0 to 1; None where only Linux would tell."""
        then, now = self._began, self._now()
        if then is None or now is None or now[1] <= then[1]:
            return None
        busy, all_of_it, own = (b - a for a, b in zip(then, now, strict=True))
        return min(1.0, max(0.0, (busy - own) / all_of_it))

    def _now(self) -> tuple[float, float, float] | None:
        """Seconds of all cores that were busy, that there were, and that this process used."""
        with suppress(OSError, ValueError, IndexError):
            ticks = [int(word) for word in Path("/proc/stat").read_text(encoding="utf-8").splitlines()[0].split()[1:9]]
            used, hertz = os.times(), os.sysconf("SC_CLK_TCK")
            idle = ticks[3] + ticks[4]
            return (sum(ticks) - idle) / hertz, sum(ticks) / hertz, used.user + used.system
        return None


def _calm() -> bool:
    """Whether few processes ran in the last minute, as far as the system tells."""
    with suppress(OSError, AttributeError):
        return os.getloadavg()[0] <= CALM * (os.cpu_count() or 1)
    return True


def _peak() -> float:
    """The most memory that this process has held, in kB; 0 where only Linux would tell."""
    return _kilobytes("/proc/self/status", "VmHWM", 0.0)


def _available() -> float:
    """Memory that can still be had, in kB, a container's limit heeded; infinite where only Linux would tell."""
    limit = np.inf
    with suppress(OSError, ValueError):  # no such limit, or "max"
        limit = (
            int((CGROUP / "memory.max").read_text(encoding="utf-8"))
            - int((CGROUP / "memory.current").read_text(encoding="utf-8"))
        ) / 1024
    return min(limit, _kilobytes("/proc/meminfo", "MemAvailable", np.inf))


def _kilobytes(path: str, name: str, unknown: float) -> float:
    with suppress(OSError):
        if found := re.search(rf"^{name}:\s+(\d+) kB$", Path(path).read_text(encoding="utf-8"), re.MULTILINE):
            return float(found[1])
    return unknown
