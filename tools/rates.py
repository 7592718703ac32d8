"""What a device does in a second: plain matrix products, and passes of a network; and what a pass is worth."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol
from unittest.mock import patch

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from engines import Bundle
from engines.interface import Arrays, Engine
from engines.torch_ref import describe

GEMM, PRODUCTS, SMALL_PRODUCTS = 8192, 20, 5
WARM, LEAST = 3, 3  # runs before those that count, and that count
TIMESTEP = 500
PRECISIONS = ("float16", "bfloat16", "float32")
Work = Callable[[], Any]


class Device(Protocol):
    """`name`: torch's; `wait`: until all that it was given is done; `seconds`: that it takes for a piece of work."""

    name: str

    def wait(self) -> None: ...

    def seconds(self, work: Work) -> float: ...


class Gpu:
    """The one that torch sees first."""

    name = "cuda"

    def wait(self) -> None:
        torch.cuda.synchronize()

    def seconds(self, work: Work) -> float:
        began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        began.record()
        work()
        ended.record()
        ended.synchronize()
        return float(began.elapsed_time(ended)) / 1e3


class Processor:
    """Where every call returns when it is done."""

    name = "cpu"

    def wait(self) -> None:
        pass

    def seconds(self, work: Work) -> float:
        at = time.perf_counter()
        work()
        return time.perf_counter() - at


def gemm_rates(device: Device, size: int = GEMM) -> dict[str, float]:
    """TFLOP/s of square matrix products on random numbers, by precision; float32 without TF32."""
    return {name: _gemm_rate(device, getattr(torch, name), size) for name in PRECISIONS}


def _gemm_rate(device: Device, dtype: torch.dtype, size: int) -> float:
    a, b = (torch.randn(size, size, device=device.name).to(dtype) for _ in range(2))
    out = torch.empty_like(a)
    seconds = [device.seconds(lambda: torch.matmul(a, b, out=out)) for _ in range(WARM + PRODUCTS)]
    return 2 * size**3 / float(np.median(seconds[WARM:])) / 1e12


def gflop_per_pass(checkpoint: Path) -> float:
    """Of the UNet on one sample, by its configuration; attention as plain products: fused ones are not counted."""
    _, parts, described, _ = describe(checkpoint)
    network, counter = described.networks["unet"], FlopCounterMode(display=False)
    with torch.inference_mode(), torch.device("meta"):
        module = network.wrap(parts.module(network.part))
        blank = [
            torch.zeros(1, *(size or 1 for size in spec.shape[1:]), dtype=getattr(torch, spec.dtype))
            for spec in network.inputs.values()
        ]
        with counter, sdpa_kernel(SDPBackend.MATH):
            module(*blank)
    return float(counter.get_total_flops() / 1e9)


def feeds(engine: Engine, batch: int) -> dict[str, NDArray[Any]]:
    """The same random numbers for every engine of these inputs."""
    rng, given = np.random.default_rng(0), dict[str, NDArray[Any]]()
    for name, spec in engine.inputs.items():
        shape = (batch, *(size or 1 for size in spec.shape[1:]))
        told = np.full(shape, TIMESTEP if name == "timestep" else 1, spec.dtype)
        drawn = name != "timestep" and spec.dtype == "float32"
        given[name] = rng.standard_normal(shape, np.float32) if drawn else told
    return given


def run_seconds(work: Work, wait: Callable[[], None], seconds: float) -> list[float]:
    """What each run of a work took, warm, for about so many seconds."""
    for _ in range(WARM):
        work()
    wait()
    took: list[float] = []
    while sum(took) < seconds or len(took) < LEAST:
        at = time.perf_counter()
        work()
        wait()
        took.append(time.perf_counter() - at)
    return took


class Run(NamedTuple):
    """One run of a component: when it began, by time.perf_counter, what it took, and of how large a batch."""

    component: str
    at: float
    seconds: float
    batch: int


class Timed:
    """An engine that notes its runs."""

    def __init__(self, component: str, engine: Engine, runs: list[Run]):
        self._component, self._engine, self._runs = component, engine, runs

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def run(self, arrays: Arrays) -> dict[str, NDArray[Any]]:
        at = time.perf_counter()
        outputs = self._engine.run(arrays)
        batch = len(next(iter(arrays.values())))
        self._runs.append(Run(self._component, at, time.perf_counter() - at, batch))
        return outputs


@contextmanager
def noted_runs() -> Iterator[list[Run]]:
    """Every run of the engines of bundles that are opened meanwhile."""
    runs: list[Run] = []
    opened = Bundle.engine
    with patch.object(Bundle, "engine", lambda bundle, name: Timed(name, opened(bundle, name), runs)):
        yield runs
