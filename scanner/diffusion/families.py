"""Model families: how prompts become the arrays that condition a denoiser. A table of frozen rows."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from scanner.errors import ModelError


class Engines(Protocol):
    """What a family needs of the engines: run a component by name."""

    def __call__(self, component: str, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]: ...


@dataclass(frozen=True)
class Conditioning:
    """Arrays [B, ...] fed to the denoiser beside x_t and the timestep; `truncated` bool [B]: prompt was too long."""

    arrays: Mapping[str, NDArray[Any]]
    truncated: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.truncated)


@dataclass(frozen=True)
class Family:
    """`components` run in a scan; `encode(run, tokenizer, prompts)` gives their Conditioning."""

    components: tuple[str, ...]
    encode: Callable[[Engines, Tokenizer, Sequence[str]], Conditioning]


def _encode_clip(run: Engines, tokenizer: Tokenizer, prompts: Sequence[str]) -> Conditioning:
    """One CLIP text encoder: encoder_hidden_states float32 [B, L, D]. The tokenizer pads and truncates to L."""
    encodings = tokenizer.encode_batch(list(prompts))
    input_ids = np.array([encoding.ids for encoding in encodings], np.int64)  # [B, L]
    truncated = np.array([bool(encoding.overflowing) for encoding in encodings])
    return Conditioning(run("text_encoder", {"input_ids": input_ids}), truncated)


FAMILIES = {"stable-diffusion": Family(("text_encoder", "unet"), _encode_clip)}


def family(name: str) -> Family:
    """The table's row. Raises ModelError for an unknown family."""
    if name not in FAMILIES:
        raise ModelError(f"model family {name!r}: this overscan knows {', '.join(FAMILIES)}")
    return FAMILIES[name]
