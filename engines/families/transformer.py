"""What the families with a transformer and AutoencoderKL share: the latent, and the sampler's shift by its size."""

from collections.abc import Callable
from typing import Any

from diffusers.pipelines.flux.pipeline_flux import calculate_shift

from engines.families.exporter import Options
from engines.families.unet import LARGEST, Latent, vae_scale
from engines.interface import EngineError
from engines.parts import Parts

SEQUENCE = 512  # tokens of a T5 text encoder that a pipeline allows at most


def transformer_latent(parts: Parts, channels: int, patch: int, sample_size: int, options: Options) -> Latent:
    """C, H, W of an image of the size that was asked for, else of `sample_size`. Raises EngineError.

    `patch`: elements of the latent's side that are one token.
    """
    if parts.config("vae").latent_channels != channels:
        raise EngineError(
            f"{parts.folder}: the transformer takes {channels} channels, the latent has "
            f"{parts.config('vae').latent_channels}: needed a text-to-image model, not inpainting or editing"
        )
    scale = vae_scale(parts)
    height, width = options.size or (sample_size * scale,) * 2
    step = scale * patch
    if any(side % step or not step <= side <= LARGEST * scale for side in (height, width)):
        raise EngineError(f"--size {height}x{width}: needed multiples of {step} pixels, at least {step}")
    return channels, height // scale, width // scale


def sequence_length(options: Options, default: int) -> int:
    """Tokens of the T5 text encoder: what was asked for, else the pipeline's own. Raises EngineError."""
    length = default if options.max_sequence_length is None else options.max_sequence_length
    if not 2 <= length <= SEQUENCE:
        raise EngineError(f"--max-sequence-length {length}: needed 2 to {SEQUENCE}")
    return length


def shift_of(scheduler: Any, tokens: int, most: float) -> float:
    """By how much the path is moved towards noise for a latent of so many tokens; `most`: where nothing is said."""
    said: Callable[[str, float], Any] = scheduler.config.get
    return float(
        calculate_shift(
            tokens,
            said("base_image_seq_len", 256),
            said("max_image_seq_len", 4096),
            said("base_shift", 0.5),
            said("max_shift", most),
        )
    )
