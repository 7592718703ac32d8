"""How else torch could run a checkpoint's UNet on a GPU: what each way would gain over the engine of `torch-cuda`."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peers import SEEDS, Peers
from rates import Device, Work, feeds

from engines.torch_ref import TorchEngine

SCRIPT = "script"  # of the field: diffusers' pipeline, both guidance branches, one prompt at a time


def tensors(engine: TorchEngine, batch: int) -> list[torch.Tensor]:
    """What the engine's module is given, where it computes."""
    return [torch.tensor(array, device=engine.device) for array in feeds(engine, batch).values()]


def eager(engine: TorchEngine, batch: int) -> Work:
    """The module as it is, from tensors on the device to tensors on the device."""
    given = tensors(engine, batch)
    return torch.inference_mode()(lambda: engine.module(*given))


def captured(engine: TorchEngine, batch: int) -> Work:
    """The module captured once as a CUDA graph, and replayed."""
    return _graph(engine, batch)[0].replay


def captured_with_copies(engine: TorchEngine, batch: int) -> Work:
    """The replay as a scan would use it: numpy in, numpy out."""
    graph, given, output = _graph(engine, batch)
    arrays = list(feeds(engine, batch).values())

    @torch.inference_mode()
    def work() -> Any:
        for tensor, array in zip(given, arrays, strict=True):
            tensor.copy_(torch.from_numpy(array))
        graph.replay()
        return output.cpu().numpy()

    return work


def _graph(engine: TorchEngine, batch: int) -> tuple[torch.cuda.CUDAGraph, list[torch.Tensor], torch.Tensor]:
    given, graph, stream = tensors(engine, batch), torch.cuda.CUDAGraph(), torch.cuda.Stream()
    with torch.inference_mode():
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):  # as torch asks for, before a capture
            for _ in range(3):
                engine.module(*given)
        torch.cuda.current_stream().wait_stream(stream)
        with torch.cuda.graph(graph):
            output = engine.module(*given)
    return graph, given, output


def compiled(mode: str) -> Callable[[TorchEngine, int], Work]:
    """The module as torch.compile makes it, for one batch size."""

    def made(engine: TorchEngine, batch: int) -> Work:
        torch.compiler.reset()
        given, module = tensors(engine, batch), torch.compile(engine.module, mode=mode, dynamic=False)
        return torch.inference_mode()(lambda: module(*given))

    return made


VARIANTS: dict[str, Callable[[TorchEngine, int], Work]] = {
    "graph": captured,
    "graph with copies": captured_with_copies,
    "compile": compiled("default"),
    "compile, reduce-overhead": compiled("reduce-overhead"),
}


def script_seconds(
    checkpoint: Path, texts: Sequence[str], device: Device, precision: str, batch: int = 1
) -> tuple[int, list[float]]:
    """UNet samples of a run, and what each run of a script takes that gives so many prompts to diffusers at once."""
    peers = Peers(checkpoint, device=device.name, dtype=getattr(torch, precision))
    parts = [list(texts[i : i + batch]) for i in range(0, len(texts) - batch + 1, batch)]
    peers(parts[0], batch)  # warm-up
    took = [batch / peers(part, batch) for part in parts]
    if not np.isfinite(took).all():
        raise ValueError(f"runs took {took}")
    return 2 * len(SEEDS) * batch, took
