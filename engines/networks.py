"""Networks as their configurations describe them, made and tried without weights.

So a configuration that does not fit shows in a second, and not after an export of minutes. Every refusal says what was
found, where, and what to do.
"""

import json
import re
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from engines.interface import EngineError

CLASSES = {"unet": UNet2DConditionModel, "text_encoder": CLIPTextModel, "vae": AutoencoderKL}
CONDITIONED = {  # what a UNet's configuration may ask for beside the text: the reason why not
    "time_cond_proj_dim": "guidance is distilled into it (LCM), so nothing without the prompt is left to compare with: "
    "scan the model that it was distilled from",
    "class_embed_type": "it wants a class beside the text: scan a model conditioned on text alone",
    "num_class_embeds": "it wants a class beside the text: scan a model conditioned on text alone",
    "addition_embed_type": "it wants more than the text's embeddings (SDXL and others): scan Stable Diffusion v1 or v2",
    "encoder_hid_dim_type": "it wants projected embeddings (IP-Adapter and others): save the model without the adapter",
    "encoder_hid_dim": "it wants projected embeddings (IP-Adapter and others): save the model without the adapter",
}
LARGEST = 4096  # sample_size


def read_networks(folder: Path) -> tuple[Any, Any, tuple[int, int, int]]:
    """The text encoder's and the VAE's configurations with all defaults, and the latent's C, H, W.

    Raises EngineError where the pipeline could not run them, or would feed them more than a text.
    """
    unet, text_encoder, vae = (_without_weights(folder, name) for name in CLASSES)
    _refuse_unet(folder / "unet/config.json", unet.config)
    latent = _latent(folder, unet.config)
    _refuse_unfit(folder, unet.config, text_encoder.config, vae.config)
    _refuse_vae(folder / "vae/config.json", vae.config)
    _try(folder, unet, text_encoder, vae, latent)
    return text_encoder.config, vae.config, latent


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object. Raises EngineError."""
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise EngineError(f"{path}: cannot be read ({error}): copy the whole checkpoint again") from error


def _without_weights(folder: Path, name: str) -> Any:
    """A network as its configuration describes it, on the meta device: shapes without numbers."""
    path, kind = folder / name / "config.json", CLASSES[name]
    config = read_json(path)
    if (said := config.get("_class_name", kind.__name__)) != kind.__name__:
        raise EngineError(f"{path}: of a {said}; needed {kind.__name__}: scan a Stable Diffusion v1 or v2")
    try:
        with torch.device("meta"):
            if kind is CLIPTextModel:
                return CLIPTextModel(CLIPTextConfig.from_pretrained(folder / name, local_files_only=True)).eval()
            return kind.from_config(config).eval()
    except Exception as error:  # whatever a constructor makes of a strange value
        raise EngineError(f"{path}: makes no {kind.__name__} ({error}): copy the whole checkpoint again") from error


def _refuse_unet(path: Path, config: Any) -> None:
    for name, reason in CONDITIONED.items():
        if (value := config.get(name)) is not None:
            raise EngineError(f"{path}: {name} {value}: {reason}")


def _latent(folder: Path, config: Any) -> tuple[int, int, int]:
    """C, H, W of what the pipeline generates unasked."""
    size, channels = config.sample_size, config.in_channels
    height, width = size if isinstance(size, list | tuple) and len(size) == 2 else (size, size)
    for side in (height, width):
        if not isinstance(side, int) or isinstance(side, bool) or not 1 <= side <= LARGEST:
            raise EngineError(
                f"{folder}/unet/config.json: sample_size {size}; needed the latent's, a number or [height, width]: "
                "write the size that the model was trained at, such as 64 for 512 pixels"
            )
    old = [int(part) for part in re.findall(r"\d+", str(config.get("_diffusers_version", "1")))[:2]]
    if old < [0, 9] and isinstance(size, int) and size < 64:
        height = width = 64  # as the pipeline does: early configurations hold a wrong size
    return channels, height, width


def _refuse_unfit(folder: Path, unet: Any, text_encoder: Any, vae: Any) -> None:
    if not unet.in_channels == unet.out_channels == vae.latent_channels:
        raise EngineError(
            f"{folder}: the UNet takes {unet.in_channels} channels and gives {unet.out_channels}, the "
            f"latent has {vae.latent_channels}: needed a text-to-image model, not inpainting or editing"
        )
    widths = unet.cross_attention_dim
    for width in widths if isinstance(widths, list | tuple) else [widths]:
        if width != text_encoder.hidden_size:
            raise EngineError(
                f"{folder}: the UNet's cross_attention_dim is {widths}, the text encoder gives "
                f"{text_encoder.hidden_size} numbers per token: the two are of different models; copy both from one"
            )
    if getattr(text_encoder, "use_attention_mask", False):
        raise EngineError(
            f"{folder}/text_encoder/config.json: use_attention_mask: the pipeline hides the padding from the text "
            "encoder, which overscan cannot; set it to false only if the model was trained without"
        )


def _refuse_vae(path: Path, vae: Any) -> None:
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


def _try(folder: Path, unet: Any, text_encoder: Any, vae: Any, latent: tuple[int, int, int]) -> None:
    """Run the networks on shapes alone, with what the pipeline gives them."""
    try:
        with torch.inference_mode(), torch.device("meta"):
            ids = torch.zeros(2, 2, dtype=torch.int64)
            x_t = torch.zeros(2, *latent)
            output = unet(x_t, torch.zeros(2), text_encoder(ids).last_hidden_state).sample
            pixels = vae.decode(x_t).sample
            back = vae.encode(pixels).latent_dist.mean
    except Exception as error:  # torch's and the libraries' share no base class
        raise EngineError(
            f"{folder}: its networks do not run on a text and a latent of {list(latent)} ({error}): scan a model "
            "conditioned on text alone, or copy the whole checkpoint again"
        ) from error
    if not output.shape == x_t.shape == back.shape:
        raise EngineError(
            f"{folder}: of a latent {list(x_t.shape[1:])} the UNet makes {list(output.shape[1:])} and the VAE, decoded "
            f"and encoded, {list(back.shape[1:])}: write a sample_size that the networks can halve as often as they do"
        )
