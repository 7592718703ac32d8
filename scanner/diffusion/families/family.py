"""What a family of models is to a scan: how prompts become the arrays that condition its denoiser."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer


class Engines(Protocol):
    """What a family needs of the engines: run a component by name."""

    def __call__(self, component: str, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]: ...


Tokenizers = Mapping[str, Tokenizer]  # by name: `tokenizer`, `tokenizer_2`, ...
Fixed = Mapping[str, Any]  # what the exporter settled beside the networks, `Manifest.fixed`


@dataclass(frozen=True)
class Conditioning:
    """Arrays [B, ...] fed to the denoiser beside x_t and the timestep; `truncated` bool [B]: prompt was too long."""

    arrays: Mapping[str, NDArray[Any]]
    truncated: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.truncated)


class Network(NamedTuple):
    """The names of what a component takes and gives."""

    takes: tuple[str, ...]
    gives: tuple[str, ...]


def encoded(conditioning: Conditioning, fixed: Fixed) -> Conditioning:
    """The empty prompt is conditioned on like every other."""
    return conditioning


@dataclass(frozen=True)
class Family:
    """`networks`: the components that run in a scan, of which `denoiser` is one; a bundle may lack those in `optional`.

    `encode(run, tokenizers, prompts, fixed)` gives the prompts' Conditioning. `null(conditioning, fixed)`: what the
    unconditional prediction is conditioned on, of the empty prompt's conditioning. `distilled`: guidance is within the
    network, so that its sampler takes no second prediction.
    """

    networks: Mapping[str, Network]
    encode: Callable[[Engines, Tokenizers, Sequence[str], Fixed], Conditioning]
    denoiser: str = "unet"
    null: Callable[[Conditioning, Fixed], Conditioning] = encoded
    optional: frozenset[str] = frozenset()
    distilled: bool = False
