"""Stable Diffusion 3 and 3.5: a flow transformer, two CLIP text encoders, and T5 where it is there."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from engines.families.exporter import Described, Exporter, Network, Options
from engines.families.transformer import sequence_length, shift_of, transformer_latent
from engines.families.unet import Latent, vae_networks
from engines.grids import FLOW, Arrange, Sampling
from engines.interface import EngineError, TensorSpec
from engines.parts import Parts
from engines.torch_modules import PooledTextEncoder, TextEncoder, dtype_of

CLIPS = ("text_encoder", "text_encoder_2")
T5 = "text_encoder_3"
SEQUENCE = 256  # the pipeline's max_sequence_length


class _Denoiser(nn.Module):
    """sample [N, C, H, W], timestep [N], encoder_hidden_states [N, L, D], pooled_projections [N, P] -> output."""

    def __init__(self, model: Any):
        super().__init__()
        self.model = model

    def forward(
        self, sample: Tensor, timestep: Tensor, encoder_hidden_states: Tensor, pooled_projections: Tensor
    ) -> Tensor:
        dtype = dtype_of(self.model)
        output = self.model(
            sample.to(dtype), encoder_hidden_states.to(dtype), pooled_projections.to(dtype), timestep, return_dict=False
        )
        return output[0].float()  # type: ignore[no-any-return]


def _latent(parts: Parts, options: Options) -> Latent:
    config = parts.config("transformer")
    latent = transformer_latent(parts, config.in_channels, config.patch_size, config.sample_size, options)
    if (largest := config.pos_embed_max_size * config.patch_size) < max(latent[1:]):
        raise EngineError(
            f"{parts.path('transformer')}: pos_embed_max_size {config.pos_embed_max_size}, for latents of up to "
            f"{largest}; this one is {latent[1]} x {latent[2]}: name a smaller --size"
        )
    return latent


def _arrange(parts: Parts, options: Options) -> Arrange:
    """Some are trained with a shift by the image's size; most with one for all."""
    _, height, width = _latent(parts, options)
    tokens = height * width // parts.config("transformer").patch_size ** 2

    def arrange(scheduler: Any, steps: int) -> None:
        dynamic = scheduler.config.get("use_dynamic_shifting")
        scheduler.set_timesteps(steps, **({"mu": shift_of(scheduler, tokens, most=1.16)} if dynamic else {}))

    return arrange


def _describe(parts: Parts, options: Options, sampling: Sampling) -> Described:
    latent, config = _latent(parts, options), parts.config("transformer")
    clips = [parts.config(name) for name in CLIPS]
    pooled, width = sum(clip.projection_dim for clip in clips), sum(clip.hidden_size for clip in clips)
    if config.pooled_projection_dim != pooled or width > config.joint_attention_dim:
        raise EngineError(
            f"{parts.folder}: its CLIP text encoders give {pooled} numbers for the text and {width} per token; the "
            f"transformer takes {config.pooled_projection_dim} and {config.joint_attention_dim}: {OTHER}"
        )
    if T5 in parts and parts.config(T5).d_model != config.joint_attention_dim:
        raise EngineError(
            f"{parts.folder}: its T5 text encoder gives {parts.config(T5).d_model} numbers per token, the transformer "
            f"takes {config.joint_attention_dim}: {OTHER}"
        )
    length, longer = parts.tokenizer("tokenizer").model_max_length, sequence_length(options, SEQUENCE)
    lengths = {"tokenizer": length, "tokenizer_2": length} | ({"tokenizer_3": longer} if T5 in parts else {})
    takes = {
        "sample": TensorSpec("float32", (None, *latent)),
        "timestep": TensorSpec(sampling.told, (None,)),
        "encoder_hidden_states": TensorSpec("float32", (None, length + longer, config.joint_attention_dim)),
        "pooled_projections": TensorSpec("float32", (None, pooled)),
    }
    networks = {
        **_texts(parts, lengths),
        **vae_networks(parts, latent, sampling.unit),
        "transformer": Network("transformer", _Denoiser, takes, ("output",)),
    }
    return Described(latent, networks, lengths, {"text": [longer, config.joint_attention_dim]})


def _texts(parts: Parts, lengths: Mapping[str, int]) -> dict[str, Network]:
    """The text encoders that are there."""
    ids = {name: {"input_ids": TensorSpec("int64", (None, length))} for name, length in lengths.items()}
    gives, gives_2 = ("hidden_states", "text_embeds"), ("hidden_states_2", "text_embeds_2")
    networks = {
        "text_encoder": Network("text_encoder", PooledTextEncoder, ids["tokenizer"], gives),
        "text_encoder_2": Network("text_encoder_2", PooledTextEncoder, ids["tokenizer_2"], gives_2),
    }
    return networks | ({T5: Network(T5, TextEncoder, ids["tokenizer_3"], ("hidden_states_3",))} if T5 in parts else {})


OTHER = "they are of different models; copy all from one"
EXPORTER = Exporter(
    name="stable-diffusion-3",
    title="Stable Diffusion 3 and 3.5",
    pipelines=("StableDiffusion3Pipeline",),
    parts={
        "transformer": "SD3Transformer2DModel",
        "text_encoder": "CLIPTextModelWithProjection",
        "text_encoder_2": "CLIPTextModelWithProjection",
        "text_encoder_3": "T5EncoderModel",
        "vae": "AutoencoderKL",
        "tokenizer": "CLIPTokenizer",
        "tokenizer_2": "CLIPTokenizer",
        "tokenizer_3": "T5Tokenizer",
    },
    describe=_describe,
    takes=frozenset({"size", "max_sequence_length"}),
    kinds=(FLOW,),
    arrange=_arrange,
    denoiser="transformer",
    optional=frozenset({"text_encoder_3", "tokenizer_3"}),
)
