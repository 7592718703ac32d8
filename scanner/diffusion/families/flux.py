"""FLUX.1 dev and schnell: T5's tokens, and CLIP's pooled embedding.

Guidance is distilled into the network, so its pipeline makes no prediction without the prompt. One for the empty prompt
exists all the same, and is what a score compares with.
"""

from collections.abc import Sequence

from scanner.diffusion.families.family import Conditioning, Engines, Family, Fixed, Network, Tokenizers
from scanner.diffusion.families.tokens import token_ids


def _encode(run: Engines, tokenizers: Tokenizers, prompts: Sequence[str], fixed: Fixed) -> Conditioning:
    """pooled_projections [B, P], of what CLIP reads; encoder_hidden_states [B, L_2, D], of what T5 reads; float32."""
    ids, truncated = token_ids(tokenizers["tokenizer"], prompts)
    ids_2, truncated_2 = token_ids(tokenizers["tokenizer_2"], prompts)
    pooled, hidden = run("text_encoder", {"input_ids": ids}), run("text_encoder_2", {"input_ids": ids_2})
    return Conditioning({**pooled, **hidden}, truncated & truncated_2)


FAMILY = Family(
    networks={
        "text_encoder": Network(("input_ids",), ("pooled_projections",)),
        "text_encoder_2": Network(("input_ids",), ("encoder_hidden_states",)),
        "transformer": Network(("sample", "timestep", "encoder_hidden_states", "pooled_projections"), ("output",)),
    },
    encode=_encode,
    denoiser="transformer",
    distilled=True,
)
