"""PixArt alpha and sigma: T5, whose padding is masked in both networks."""

from collections.abc import Sequence

from scanner.diffusion.families.family import Conditioning, Engines, Family, Fixed, Network, Tokenizers
from scanner.diffusion.families.tokens import tokens


def _encode(run: Engines, tokenizers: Tokenizers, prompts: Sequence[str], fixed: Fixed) -> Conditioning:
    """encoder_hidden_states float32 [B, L, D], attention_mask int64 [B, L]: 0 where the prompt has ended."""
    ids, mask, truncated = tokens(tokenizers["tokenizer"], prompts)
    hidden = run("text_encoder", {"input_ids": ids, "attention_mask": mask})
    return Conditioning({**hidden, "attention_mask": mask}, truncated)


FAMILY = Family(
    networks={
        "text_encoder": Network(("input_ids", "attention_mask"), ("encoder_hidden_states",)),
        "transformer": Network(("sample", "timestep", "encoder_hidden_states", "attention_mask"), ("output",)),
    },
    encode=_encode,
    denoiser="transformer",
)
