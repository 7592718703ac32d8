"""The one training loop. Each step draws from a generator seeded by (run, step), so that a resumed run sees what the
uninterrupted one would have seen."""

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from .parallel import average_gradients, is_first, wait

Loss = Callable[[int, torch.Generator], torch.Tensor]  # step, its random numbers -> scalar
SAVE_EVERY = 120  # seconds
WARM_UP = 100  # steps


def fit(
    name: str, modules: Sequence[nn.Module], loss: Loss, steps: int, lr: float, work: Path, keep: Sequence[int] = (),
    device: str = "cpu",
) -> None:  # fmt: skip
    """Train `modules` for `steps` steps of AdamW (warm-up, cosine), resuming from `work/NAME.pt`.

    `keep`: steps whose weights stay as `work/NAME-STEP.pt`; `device`: where the modules are and numbers are drawn.
    """
    parameters = [p for module in modules for p in module.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr, betas=(0.9, 0.99), weight_decay=1e-4, fused=True)
    path = work / f"{name}.pt"
    first, warmed_from = _resume(path, modules, optimizer)
    for module in modules:
        module.train()
    started = last_saved = time.monotonic()
    average = torch.zeros(())
    for step in range(first, steps):
        for group in optimizer.param_groups:
            group["lr"] = lr * pace(step, steps, warmed_from)
        value = loss(step, torch.Generator(device).manual_seed(seed_of(name, step)))
        optimizer.zero_grad()
        value.backward()
        average_gradients(parameters)
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        average = value.detach() if step == first else torch.lerp(average, value.detach(), 0.01)
        if step % 100 == 99 and is_first():
            left = (time.monotonic() - started) / (step + 1 - first) * (steps - step - 1)
            print(f"{name}: step {step + 1}/{steps}, loss {average.item():.4f}, {left / 60:.1f} min left", flush=True)
        if step + 1 in keep and is_first():
            _save(work / f"{name}-{step + 1}.pt", {"modules": [m.state_dict() for m in modules]})
        if is_first() and (time.monotonic() - last_saved > SAVE_EVERY or step + 1 == steps):
            states = [module.state_dict() for module in modules]
            _save(path, {"modules": states, "optimizer": optimizer.state_dict(), "step": step + 1})
            last_saved = time.monotonic()
    wait()
    for module in modules:
        module.eval().requires_grad_(False)


def pace(step: int, steps: int, warmed_from: int = 0) -> float:
    """Of the learning rate at a step: warm-up, then half a cosine."""
    return min((step + 1 - warmed_from) / WARM_UP, 0.5 + 0.5 * math.cos(math.pi * step / steps))


def _resume(path: Path, modules: Sequence[nn.Module], optimizer: torch.optim.Optimizer) -> tuple[int, int]:
    """Load what `path` holds, if it exists; returns the step to go on with, and the one where warm-up begins."""
    if not path.exists():
        return 0, 0
    saved = torch.load(path, map_location="cpu")
    for module, state in zip(modules, saved["modules"], strict=True):
        module.load_state_dict(state)
    step = int(saved["step"])
    if "optimizer" not in saved:  # keep.pack leaves it out: a new one is warmed up
        return step, step
    optimizer.load_state_dict(saved["optimizer"])
    return step, 0


def _save(path: Path, what: dict) -> None:
    """Write, then rename: a killed run leaves the older file whole."""
    torch.save(what, path.with_suffix(".tmp"))
    path.with_suffix(".tmp").replace(path)


def seed_of(name: str, step: int) -> int:
    """A seed for the random numbers of one step of one run."""
    return int(np.random.SeedSequence([*name.encode(), step]).generate_state(1)[0])
