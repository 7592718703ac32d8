"""Stable Diffusion v1 and v2: one CLIP text encoder."""

from collections.abc import Sequence

from scanner.diffusion.families.family import Conditioning, Engines, Family, Fixed, Network, Tokenizers
from scanner.diffusion.families.tokens import token_ids


def _encode(run: Engines, tokenizers: Tokenizers, prompts: Sequence[str], fixed: Fixed) -> Conditioning:
    """encoder_hidden_states float32 [B, L, D]."""
    input_ids, truncated = token_ids(tokenizers["tokenizer"], prompts)
    return Conditioning(run("text_encoder", {"input_ids": input_ids}), truncated)


FAMILY = Family(
    networks={
        "text_encoder": Network(("input_ids",), ("encoder_hidden_states",)),
        "unet": Network(("sample", "timestep", "encoder_hidden_states"), ("output",)),
    },
    encode=_encode,
)
