"""Model families: how prompts become the arrays that condition a denoiser. A file and a row for each."""

from scanner.diffusion.families import flux, pixart, stable_diffusion, stable_diffusion_3, stable_diffusion_xl
from scanner.diffusion.families.family import Conditioning, Engines, Family, Network, Tokenizers
from scanner.diffusion.families.tokens import token_ids, tokenized
from scanner.errors import ModelError

__all__ = ["FAMILIES", "Conditioning", "Engines", "Family", "Network", "Tokenizers", "family", "token_ids", "tokenized"]

FAMILIES = {
    "stable-diffusion": stable_diffusion.FAMILY,
    "stable-diffusion-xl": stable_diffusion_xl.FAMILY,
    "stable-diffusion-3": stable_diffusion_3.FAMILY,
    "pixart": pixart.FAMILY,
    "flux": flux.FAMILY,
}


def family(name: str) -> Family:
    """The table's row. Raises ModelError for an unknown family."""
    if name not in FAMILIES:
        raise ModelError(f"model family {name!r}: this overscan knows {', '.join(FAMILIES)}")
    return FAMILIES[name]
