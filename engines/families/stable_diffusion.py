"""Stable Diffusion v1 and v2."""

from engines.families.exporter import Described, Exporter, Network, Options
from engines.families.unet import refuse_conditions, refuse_masked, refuse_unfit, unet_latent, vae_networks
from engines.grids import Sampling, arrange_from_1
from engines.interface import EngineError, TensorSpec
from engines.parts import Parts
from engines.torch_modules import Denoiser, TextEncoder


def _describe(parts: Parts, options: Options, sampling: Sampling) -> Described:
    refuse_conditions(parts)
    if (kind := parts.config("unet").get("addition_embed_type")) is not None:
        raise EngineError(
            f"{parts.path('unet')}: addition_embed_type {kind}: it wants more than the text's embeddings, as SDXL: "
            "if it is one, model_index.json should say StableDiffusionXLPipeline"
        )
    latent, text = unet_latent(parts, options), parts.config("text_encoder")
    refuse_unfit(parts, text.hidden_size)
    refuse_masked(parts, "text_encoder")
    length = parts.tokenizer("tokenizer").model_max_length
    ids = {"input_ids": TensorSpec("int64", (None, length))}
    takes = {
        "sample": TensorSpec("float32", (None, *latent)),
        "timestep": TensorSpec(sampling.told, (None,)),
        "encoder_hidden_states": TensorSpec("float32", (None, length, text.hidden_size)),
    }
    networks = {
        "text_encoder": Network("text_encoder", TextEncoder, ids, ("encoder_hidden_states",)),
        **vae_networks(parts, latent, sampling.unit),
        "unet": Network("unet", Denoiser, takes, ("output",)),
    }
    return Described(latent, networks, {"tokenizer": length})


EXPORTER = Exporter(
    name="stable-diffusion",
    title="Stable Diffusion v1 and v2",
    pipelines=("StableDiffusionPipeline",),
    parts={
        "unet": "UNet2DConditionModel",
        "text_encoder": "CLIPTextModel",
        "vae": "AutoencoderKL",
        "tokenizer": "CLIPTokenizer",
    },
    describe=_describe,
    arrange=lambda parts, options: arrange_from_1,
)
