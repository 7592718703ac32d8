"""Stable Diffusion XL: base, turbo, fine-tunes, SSD-1B and other distilled UNets, Playground v2.5."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from engines.families.exporter import Described, Exporter, Network, Options
from engines.families.unet import (
    Latent,
    refuse_conditions,
    refuse_masked,
    refuse_unfit,
    unet_latent,
    vae_networks,
    vae_scale,
)
from engines.grids import EDM, SIGMAS, TABLE, Sampling
from engines.interface import EngineError, TensorSpec
from engines.parts import Parts
from engines.torch_modules import InnerTextEncoder, PooledTextEncoder, dtype_of


class _Denoiser(nn.Module):
    """The Denoiser of Stable Diffusion, and text_embeds [N, P], time_ids [N, 6] (sizes in pixels) -> output."""

    def __init__(self, model: Any):
        super().__init__()
        self.model = model

    def forward(
        self, sample: Tensor, timestep: Tensor, encoder_hidden_states: Tensor, text_embeds: Tensor, time_ids: Tensor
    ) -> Tensor:
        dtype = dtype_of(self.model)
        # the UNet joins it with sinusoids in float32: torch promotes there, where ONNX wants one type
        added = {"text_embeds": text_embeds.to(dtype).float(), "time_ids": time_ids.to(dtype)}
        output = self.model(
            sample.to(dtype), timestep, encoder_hidden_states.to(dtype), added_cond_kwargs=added, return_dict=False
        )
        return output[0].float()  # type: ignore[no-any-return]


def _describe(parts: Parts, options: Options, sampling: Sampling) -> Described:
    refuse_conditions(parts)
    unet = parts.config("unet")
    if (kind := unet.get("addition_embed_type")) != "text_time":
        raise EngineError(f"{parts.path('unet')}: addition_embed_type {kind}; needed text_time, as in SDXL: {COPY}")
    if parts.index.get("requires_aesthetics_score"):
        raise EngineError(f"{parts.folder}: requires_aesthetics_score: {REFINER}")
    latent = unet_latent(parts, options)
    one, two = parts.config("text_encoder"), parts.config("text_encoder_2")
    refuse_unfit(parts, one.hidden_size + two.hidden_size)
    for name in ("text_encoder", "text_encoder_2"):
        refuse_masked(parts, name)
    pooled, numbers = two.projection_dim, _time_ids(latent, vae_scale(parts), options)
    needed = unet.projection_class_embeddings_input_dim
    if needed != pooled + len(numbers) * unet.addition_time_embed_dim:
        raise EngineError(
            f"{parts.path('unet')}: projection_class_embeddings_input_dim {needed}; its text encoder gives {pooled} "
            f"numbers and {len(numbers)} sizes of {unet.addition_time_embed_dim} each: {REFINER if needed else COPY}"
        )
    lengths = {name: parts.tokenizer(name).model_max_length for name in ("tokenizer", "tokenizer_2")}
    length = lengths["tokenizer"]
    if length != lengths["tokenizer_2"]:
        raise EngineError(f"{parts.folder}: its tokenizers are of {length} and {lengths['tokenizer_2']} tokens: {COPY}")
    return Described(latent, _networks(parts, latent, length, pooled, sampling), lengths, _fixed(parts, numbers))


def _networks(parts: Parts, latent: Latent, length: int, pooled: int, sampling: Sampling) -> Mapping[str, Network]:
    ids = {"input_ids": TensorSpec("int64", (None, length))}
    width = parts.config("text_encoder").hidden_size + parts.config("text_encoder_2").hidden_size
    takes = {
        "sample": TensorSpec("float32", (None, *latent)),
        "timestep": TensorSpec(sampling.told, (None,)),
        "encoder_hidden_states": TensorSpec("float32", (None, length, width)),
        "text_embeds": TensorSpec("float32", (None, pooled)),
        "time_ids": TensorSpec("float32", (None, 6)),
    }
    return {
        "text_encoder": Network("text_encoder", InnerTextEncoder, ids, ("hidden_states",)),
        "text_encoder_2": Network("text_encoder_2", PooledTextEncoder, ids, ("hidden_states_2", "text_embeds")),
        **vae_networks(parts, latent, sampling.unit),
        "unet": Network("unet", _Denoiser, takes, ("output",)),
    }


def _time_ids(latent: Latent, scale: int, options: Options) -> list[float]:
    """Original size, crop, target size: by default those of an image of the latent's size that was not cut."""
    size = (latent[1] * scale, latent[2] * scale)
    return [float(n) for pair in (options.original_size or size, options.crop or (0, 0), options.target_size or size)
            for n in pair]  # fmt: skip


def _fixed(parts: Parts, time_ids: list[float]) -> dict[str, Any]:
    """`null`: what the empty prompt is to the pipeline."""
    zeros = parts.index.get("force_zeros_for_empty_prompt", True)
    return {"null": "zeros" if zeros else "encoded", "time_ids": time_ids}


COPY = "copy the whole checkpoint again"
REFINER = (
    "the SDXL refiner, which finishes an image that the base model began and never sees its first step: scan the base"
)
EXPORTER = Exporter(
    name="stable-diffusion-xl",
    title="Stable Diffusion XL",
    pipelines=("StableDiffusionXLPipeline",),
    parts={
        "unet": "UNet2DConditionModel",
        "text_encoder": "CLIPTextModel",
        "text_encoder_2": "CLIPTextModelWithProjection",
        "vae": "AutoencoderKL",
        "tokenizer": "CLIPTokenizer",
        "tokenizer_2": "CLIPTokenizer",
    },
    describe=_describe,
    takes=frozenset({"size", "original_size", "crop", "target_size"}),
    kinds=(TABLE, SIGMAS, EDM),
)
