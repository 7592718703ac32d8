"""How many UNet samples to run at once: the fewest that run about as fast as any, found by trying."""

import platform
import re
import time
from contextlib import suppress
from pathlib import Path

import numpy as np

from engines import Bundle
from engines.cores import usable_cores
from scanner.diffusion.denoiser import Denoiser
from scanner.diffusion.schedule import Array
from scanner.diffusion.trace import Watch, initial_noise, unwatched
from scanner.model.cache import cached

SIZES = (1, 4, 16, 64, 256)
GAIN = 1.05  # a larger batch must be so much faster: it costs memory, and an interrupted scan waits for its end
SECONDS = 0.1  # of the runs at one size, at least
PATIENCE = 2.0  # seconds of a trial within which all sizes are tried, as timings of small models are noisy
CGROUP = Path("/sys/fs/cgroup")
BUILT = ("tensorrt",)  # builds a plan for every size, which takes minutes


def fastest(bundle: Bundle, denoiser: Denoiser, watch: Watch = unwatched) -> int:
    """The batch size for this model, engine and machine, from a trial that the cache remembers.

    The denoiser's own where the backend builds anew for every size.
    """
    if bundle.backend in BUILT:
        return denoiser.batch_size
    manifest = bundle.manifest
    machine = (platform.node(), denoiser.provider, str(usable_cores()))  # which may share the cache folder with others
    key = (manifest.fingerprint, bundle.backend, bundle.precision, *machine, str(SIZES))
    return choose(cached("batch", key, (len(SIZES),), lambda: throughput(denoiser, watch)))


def choose(rates: Array) -> int:
    """The smallest of SIZES that is within GAIN of the fastest; `rates` [len(SIZES)] in samples/s, 0: not tried."""
    return SIZES[int(np.argmax(rates * GAIN >= rates.max()))]


def throughput(denoiser: Denoiser, watch: Watch = unwatched) -> Array:
    """Samples per second at each of SIZES, float32 [len(SIZES)], 0 where not tried.

    A trial ends where a batch gains less than GAIN after PATIENCE, where it fails (a GPU's memory ends), and where the
    next might need over half of the memory left. Raises what the smallest batch raises.
    """
    own, rates, began = denoiser.batch_size, np.zeros(len(SIZES), np.float32), time.perf_counter()
    try:
        for i, size in enumerate(SIZES):
            watch("batch size", i, len(SIZES))
            before = _peak()
            try:
                rates[i] = size / _seconds(denoiser, size)
            except Exception:  # the runtimes' errors share no base class
                if i == 0:
                    raise
                break
            if rates[i] < GAIN * rates[:i].max(initial=0) and time.perf_counter() - began > PATIENCE:
                break
            if i + 1 < len(SIZES) and SIZES[i + 1] // size * (_peak() - before) > _available() / 2:
                break
    finally:
        denoiser.batch_size = own
    return rates


def _seconds(denoiser: Denoiser, size: int) -> float:
    """The least time of a run, once it is warm."""
    denoiser.batch_size = size
    x_T = np.repeat(initial_noise((0,), denoiser.latent_shape), size, 0)[None]
    timestep = denoiser.schedule.timesteps(1)[0]
    denoiser.eps(x_T, timestep, denoiser.null)
    times: list[float] = []
    while sum(times) < SECONDS:
        started = time.perf_counter()
        denoiser.eps(x_T, timestep, denoiser.null)
        times.append(time.perf_counter() - started)
    return min(times)


def _peak() -> float:
    """The most memory that this process has held, in kB; 0 where only Linux would tell."""
    return _kilobytes("/proc/self/status", "VmHWM", 0.0)


def _available() -> float:
    """Memory that can still be had, in kB, a container's limit heeded; infinite where only Linux would tell."""
    limit = np.inf
    with suppress(OSError, ValueError):  # no such limit, or "max"
        limit = (int((CGROUP / "memory.max").read_text()) - int((CGROUP / "memory.current").read_text())) / 1024
    return min(limit, _kilobytes("/proc/meminfo", "MemAvailable", np.inf))


def _kilobytes(path: str, name: str, unknown: float) -> float:
    with suppress(OSError):
        if found := re.search(rf"^{name}:\s+(\d+) kB$", Path(path).read_text(), re.MULTILINE):
            return float(found[1])
    return unknown
