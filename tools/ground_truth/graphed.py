"""A training loop for a GPU: each step is one replay of a CUDA graph.

Started one by one, the kernels of a small network keep a GPU waiting half of the time.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from .fit import WARM_UP, pace

SAVE_EVERY, SAY_EVERY = 1000, 200  # steps


def fit(
    name: str, model: nn.Module, loss: Callable[[torch.Tensor], torch.Tensor], parts: Sequence[torch.Tensor], lr: float,
    seconds: float, kept: Path,
) -> None:  # fmt: skip
    """As fit.fit: a step of AdamW for each part of rows, or for as many as fit into so many seconds.

    Every SAVE_EVERY steps the weights are kept in `kept`. On a processor the same steps run without a graph.
    """
    rate, rows, parameters = torch.zeros((), device=parts[0].device), parts[0].clone(), list(model.parameters())
    on_gpu = rows.is_cuda
    optimizer = torch.optim.AdamW(
        parameters, rate, betas=(0.9, 0.99), weight_decay=1e-4, fused=on_gpu, capturable=on_gpu
    )

    def step() -> torch.Tensor:
        optimizer.zero_grad(set_to_none=True)
        value = loss(rows)
        value.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        return value.detach()

    advance = captured(step) if on_gpu else step
    started, average, steps = time.monotonic(), torch.zeros((), device=rows.device), len(parts)
    for i, part in enumerate(parts):
        if i >= steps:
            break
        rows.copy_(part)
        rate.fill_(lr * pace(i, steps))
        average.lerp_(advance(), 0.01 if i else 1.0)
        if i + 1 == WARM_UP:
            average.item()  # waits for all that was started
            steps = int(min(steps, seconds / (time.monotonic() - started) * WARM_UP))
        if i % SAY_EVERY == SAY_EVERY - 1:
            value, each = average.item(), 1000 * (time.monotonic() - started) / (i + 1)
            print(f"{name}: step {i + 1}/{steps}, loss {value:.4f}, {each:.1f} ms each", flush=True)
        if i % SAVE_EVERY == SAVE_EVERY - 1:
            keep_weights(model, kept)


def captured(step: Callable[[], torch.Tensor]) -> Callable[[], torch.Tensor]:
    """The same step, replayed. What a capture needs to run before, it runs: let the learning rate be 0 then."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(4):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        value = step()

    def replay() -> torch.Tensor:
        graph.replay()
        return value

    return replay


def keep_weights(model: nn.Module, path: Path) -> None:
    """Write them, then rename: a killed training leaves the older file whole."""
    part = path.with_suffix(".tmp")
    save_file({key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}, part)
    part.replace(path)
