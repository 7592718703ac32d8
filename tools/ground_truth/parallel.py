"""One training on several single-threaded processes (`torchrun`): they meet once a step, while threads meet in every
operation, which costs most where other work shares the cores. The batch is drawn whole and then divided, so the
number of processes changes a result in its last bits only."""

import os
from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import nn


def join() -> None:
    """Meet the other processes, if `torchrun` started any."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        torch.set_num_threads(1)
        dist.init_process_group("gloo")


def leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def is_first() -> bool:
    """Whether this process saves and reports."""
    return not dist.is_initialized() or dist.get_rank() == 0


def wait() -> None:
    """Until all processes are here."""
    if dist.is_initialized():
        dist.barrier()


def own(whole: torch.Tensor) -> torch.Tensor:
    """This process's share of a batch [n, ...]: every size-th row."""
    return whole[dist.get_rank() :: dist.get_world_size()] if dist.is_initialized() else whole


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Each gradient becomes the mean over processes."""
    if dist.is_initialized():
        gradients = [p.grad for p in parameters if p.grad is not None]
        flat = torch.cat([g.reshape(-1) for g in gradients])
        dist.all_reduce(flat)
        flat /= dist.get_world_size()
        for gradient, mean in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(mean.view_as(gradient))
