"""Stable Diffusion 3 and 3.5: two CLIP text encoders and T5, whose place is filled with zeros where it is absent."""

from collections.abc import Sequence

import numpy as np

from scanner.diffusion.families.family import Conditioning, Engines, Family, Fixed, Network, Tokenizers
from scanner.diffusion.families.tokens import token_ids


def _encode(run: Engines, tokenizers: Tokenizers, prompts: Sequence[str], fixed: Fixed) -> Conditioning:
    """encoder_hidden_states [B, L + L_3, D]: CLIP's tokens, filled up with zeros, then T5's; pooled_projections [B, P].

    `fixed["text"]`: L_3 and D.
    """
    ids, truncated = token_ids(tokenizers["tokenizer"], prompts)
    ids_2, truncated_2 = token_ids(tokenizers["tokenizer_2"], prompts)
    one, two = run("text_encoder", {"input_ids": ids}), run("text_encoder_2", {"input_ids": ids_2})
    clip = np.concatenate([one["hidden_states"], two["hidden_states_2"]], -1)  # [B, L, D_1 + D_2]
    length, width = fixed["text"]
    if "tokenizer_3" in tokenizers:
        ids_3, truncated_3 = token_ids(tokenizers["tokenizer_3"], prompts)
        t5, truncated_2 = run("text_encoder_3", {"input_ids": ids_3})["hidden_states_3"], truncated_2 & truncated_3
    else:
        t5 = np.zeros((len(prompts), length, width), np.float32)
    filled = np.pad(clip, ((0, 0), (0, 0), (0, width - clip.shape[-1])))
    arrays = {
        "encoder_hidden_states": np.concatenate([filled, t5], 1),
        "pooled_projections": np.concatenate([one["text_embeds"], two["text_embeds_2"]], -1),
    }
    return Conditioning(arrays, truncated & truncated_2)


FAMILY = Family(
    networks={
        "text_encoder": Network(("input_ids",), ("hidden_states", "text_embeds")),
        "text_encoder_2": Network(("input_ids",), ("hidden_states_2", "text_embeds_2")),
        "text_encoder_3": Network(("input_ids",), ("hidden_states_3",)),
        "transformer": Network(("sample", "timestep", "encoder_hidden_states", "pooled_projections"), ("output",)),
    },
    encode=_encode,
    denoiser="transformer",
    optional=frozenset({"text_encoder_3"}),
)
