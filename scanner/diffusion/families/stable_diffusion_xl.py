"""Stable Diffusion XL: two CLIP text encoders, a pooled embedding, and the sizes that the network is told."""

from collections.abc import Sequence

import numpy as np

from scanner.diffusion.families.family import Conditioning, Engines, Family, Fixed, Network, Tokenizers
from scanner.diffusion.families.tokens import token_ids


def _encode(run: Engines, tokenizers: Tokenizers, prompts: Sequence[str], fixed: Fixed) -> Conditioning:
    """encoder_hidden_states [B, L, D + D_2], text_embeds [B, P], time_ids [B, 6], float32."""
    ids, truncated = token_ids(tokenizers["tokenizer"], prompts)
    ids_2, truncated_2 = token_ids(tokenizers["tokenizer_2"], prompts)
    one = run("text_encoder", {"input_ids": ids})
    two = run("text_encoder_2", {"input_ids": ids_2})
    arrays = {
        "encoder_hidden_states": np.concatenate([one["hidden_states"], two["hidden_states_2"]], -1),
        "text_embeds": two["text_embeds"],
        "time_ids": np.tile(np.array(fixed["time_ids"], np.float32), (len(prompts), 1)),
    }
    return Conditioning(arrays, truncated & truncated_2)


def _null(conditioning: Conditioning, fixed: Fixed) -> Conditioning:
    """Zeros for the text where the pipeline has them for a negative prompt that is not given; the sizes stay."""
    if fixed["null"] != "zeros":
        return conditioning
    zeros = {name: np.zeros_like(conditioning.arrays[name]) for name in ("encoder_hidden_states", "text_embeds")}
    return Conditioning({**conditioning.arrays, **zeros}, conditioning.truncated)


FAMILY = Family(
    networks={
        "text_encoder": Network(("input_ids",), ("hidden_states",)),
        "text_encoder_2": Network(("input_ids",), ("hidden_states_2", "text_embeds")),
        "unet": Network(("sample", "timestep", "encoder_hidden_states", "text_embeds", "time_ids"), ("output",)),
    },
    encode=_encode,
    null=_null,
)
