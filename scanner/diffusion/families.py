"""Model families: how prompts become the arrays that condition a denoiser. A table of frozen rows."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from scanner.errors import ModelError

LONG = 16_384  # characters of a prompt that are looked at: 200 for each of 77 tokens


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


def tokenized(tokenizer: Tokenizer, prompts: Sequence[str]) -> list[Encoding]:
    """The tokens of each prompt, cut to the tokenizer's length as it cuts them; the rest of a huge one is not read.

    The tokenizer takes 14 s for a megabyte, of which a model sees 77 tokens. A word gives one token or more, and no
    word changes those of another, so what follows as many words as there is room for tokens cannot count. Within a
    word byte pairs merge with near ones, so its beginning is what it would be with all of the word.
    """
    if tokenizer.truncation is None:
        return tokenizer.encode_batch(list(prompts))
    enough = _enough(tokenizer)
    return tokenizer.encode_batch([_beginning(prompt, enough) for prompt in prompts])


def _beginning(prompt: str, enough: re.Pattern[str]) -> str:
    """As much of a prompt as its tokens can depend on."""
    if len(prompt) <= LONG:
        return prompt
    found = enough.match(prompt, 0, LONG)
    return prompt[: LONG if found is None else found.end()]


def _enough(tokenizer: Tokenizer) -> re.Pattern[str]:
    """So many words that there is no room for tokens of more; added tokens may hold blanks, so be several words."""
    added = tokenizer.get_added_tokens_decoder().values()
    assert tokenizer.truncation is not None
    words = (tokenizer.truncation["max_length"] + 1) * max([1, *(len(token.content.split()) for token in added)])
    return re.compile(rf"[ \t\n\r]*(?:[^ \t\n\r]++[ \t\n\r]++){{{words}}}")


def _encode_clip(run: Engines, tokenizer: Tokenizer, prompts: Sequence[str]) -> Conditioning:
    """One CLIP text encoder: encoder_hidden_states float32 [B, L, D]. The tokenizer pads and truncates to L."""
    encodings = tokenized(tokenizer, prompts)
    input_ids = np.array([encoding.ids for encoding in encodings], np.int64)  # [B, L]
    truncated = np.array([bool(encoding.overflowing) for encoding in encodings])
    return Conditioning(run("text_encoder", {"input_ids": input_ids}), truncated)


FAMILIES = {"stable-diffusion": Family(("text_encoder", "unet"), _encode_clip)}


def family(name: str) -> Family:
    """The table's row. Raises ModelError for an unknown family."""
    if name not in FAMILIES:
        raise ModelError(f"model family {name!r}: this overscan knows {', '.join(FAMILIES)}")
    return FAMILIES[name]
