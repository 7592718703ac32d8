"""What the families with a UNet and AutoencoderKL share: the latent, the VAE's two networks, and what is refused."""

import re
from collections.abc import Mapping
from typing import Any

from engines.families.exporter import Network, Options
from engines.interface import EngineError, TensorSpec
from engines.parts import Parts
from engines.torch_modules import VaeDecoder, VaeEncoder

CONDITIONED = {  # what a UNet's configuration may ask for beside the text: the reason why not
    "time_cond_proj_dim": "guidance is distilled into it (LCM), so nothing without the prompt is left to compare with: "
    "scan the model that it was distilled from",
    "class_embed_type": "it wants a class beside the text: scan a model conditioned on text alone",
    "num_class_embeds": "it wants a class beside the text: scan a model conditioned on text alone",
    "encoder_hid_dim_type": "it wants projected embeddings (IP-Adapter and others): save the model without the adapter",
    "encoder_hid_dim": "it wants projected embeddings (IP-Adapter and others): save the model without the adapter",
}
LARGEST = 4096  # of a latent's sides
Latent = tuple[int, int, int]


def refuse_conditions(parts: Parts) -> None:
    """Raise EngineError for a UNet that is fed more than its family's."""
    config = parts.config("unet")
    for name, reason in CONDITIONED.items():
        if (value := config.get(name)) is not None:
            raise EngineError(f"{parts.path('unet')}: {name} {value}: {reason}")


def unet_latent(parts: Parts, options: Options) -> Latent:
    """C, H, W of what the pipeline generates unasked, or of the images' size that was asked for."""
    config = parts.config("unet")
    if options.size is not None:
        return latent_of(parts, config.in_channels, options.size)
    size = config.sample_size
    height, width = size if isinstance(size, list | tuple) and len(size) == 2 else (size, size)
    for side in (height, width):
        if not isinstance(side, int) or isinstance(side, bool) or not 1 <= side <= LARGEST:
            raise EngineError(
                f"{parts.path('unet')}: sample_size {size}; needed the latent's, a number or [height, width]: "
                "write the size that the model was trained at, such as 64 for 512 pixels, or name --size"
            )
    old = [int(part) for part in re.findall(r"\d+", str(config.get("_diffusers_version", "1")))[:2]]
    if old < [0, 9] and isinstance(size, int) and size < 64:
        height = width = 64  # as the pipeline does: early configurations hold a wrong size
    return config.in_channels, height, width


def latent_of(parts: Parts, channels: int, size: tuple[int, int]) -> Latent:
    """The latent of images of a size. Raises EngineError where the VAE makes none of it."""
    scale = vae_scale(parts)
    if any(side % scale or not scale <= side <= LARGEST * scale for side in size):
        raise EngineError(f"--size {size[0]}x{size[1]}: needed multiples of {scale} pixels, at least {scale}")
    return channels, size[0] // scale, size[1] // scale


def vae_scale(parts: Parts) -> int:
    """Pixels of an image's side for one of the latent's."""
    return int(2 ** (len(parts.config("vae").block_out_channels) - 1))


def refuse_unfit(parts: Parts, width: int) -> None:
    """Raise EngineError where UNet, VAE and a text of `width` numbers per token are not of one model."""
    unet, vae = parts.config("unet"), parts.config("vae")
    if not unet.in_channels == unet.out_channels == vae.latent_channels:
        raise EngineError(
            f"{parts.folder}: the UNet takes {unet.in_channels} channels and gives {unet.out_channels}, the "
            f"latent has {vae.latent_channels}: needed a text-to-image model, not inpainting or editing"
        )
    widths = unet.cross_attention_dim
    for needed in widths if isinstance(widths, list | tuple) else [widths]:
        if needed != width:
            raise EngineError(
                f"{parts.folder}: the UNet's cross_attention_dim is {widths}, the text encoder gives "
                f"{width} numbers per token: the two are of different models; copy both from one"
            )


def refuse_masked(parts: Parts, name: str) -> None:
    """Raise EngineError where the pipeline would hide the padding from a CLIP text encoder."""
    if getattr(parts.config(name), "use_attention_mask", False):
        raise EngineError(
            f"{parts.path(name)}: use_attention_mask: the pipeline hides the padding from the text "
            "encoder, which overscan cannot; set it to false only if the model was trained without"
        )


def vae_networks(parts: Parts, latent: Latent, unit: float) -> dict[str, Network]:
    """`vae_encoder` and `vae_decoder`. Raises EngineError for one that is not of RGB images."""
    path, vae = parts.path("vae"), parts.config("vae")
    if not vae.in_channels == vae.out_channels == 3:
        raise EngineError(
            f"{path}: the VAE reads {vae.in_channels} and writes {vae.out_channels} colour channels; needed 3: scan "
            "a model of RGB images"
        )
    factor = vae.scaling_factor
    if not isinstance(factor, int | float) or not 0 < factor < float("inf"):
        raise EngineError(
            f"{path}: scaling_factor {factor}; needed a number above 0: write the one that the model "
            "was trained with, 0.18215 in Stable Diffusion v1 and v2"
        )
    image: Mapping[str, TensorSpec] = {
        "image": TensorSpec("float32", (None, 3, *(side * vae_scale(parts) for side in latent[1:])))
    }

    def encoder(model: Any) -> VaeEncoder:
        return VaeEncoder(model, unit)

    def decoder(model: Any) -> VaeDecoder:
        return VaeDecoder(model, unit)

    return {
        "vae_encoder": Network("vae", encoder, image, ("latent",)),
        "vae_decoder": Network("vae", decoder, {"latent": TensorSpec("float32", (None, *latent))}, ("image",)),
    }
