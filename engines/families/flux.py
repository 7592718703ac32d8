"""FLUX.1 dev and schnell: a flow transformer on packed latents, T5, and CLIP's pooled embedding.

Guidance is distilled into both: the pipeline makes no second prediction without the prompt. dev is told how much.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from engines.families.exporter import Described, Exporter, Network, Options
from engines.families.transformer import sequence_length, shift_of, transformer_latent
from engines.families.unet import Latent, vae_networks
from engines.grids import FLOW, STEPS, Arrange, Sampling
from engines.interface import EngineError, TensorSpec
from engines.parts import Parts
from engines.torch_modules import TextEncoder, dtype_of

PATCH = 2  # elements of the latent's side that are packed into a token
SAMPLE_SIZE = 128  # of the latent; no configuration says it
SEQUENCE = 512  # the pipeline's max_sequence_length
GUIDANCE = 3.5  # its guidance_scale
FEW = (4, 8)  # steps of schnell


class _PooledEncoder(TextEncoder):
    """input_ids [B, L] -> CLIP's pooled embedding of the text, [B, P]."""

    def forward(self, input_ids: Tensor) -> Tensor:
        return self.model(input_ids).pooler_output.float()  # type: ignore[no-any-return]


class _Positions(nn.Module):
    """Rotary embeddings of tokens whose places are known: diffusers computes them in float64, which engines lack."""

    def __init__(self, cos: Tensor, sin: Tensor):
        super().__init__()
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)

    def forward(self, ids: Tensor) -> tuple[Any, Any]:
        return self.cos, self.sin


class _Denoiser(nn.Module):
    """sample [N, C, H, W], timestep [N], encoder_hidden_states [N, L, D], pooled_projections [N, P] -> output."""

    def __init__(self, model: Any, latent: Latent, length: int, guidance: float | None):
        super().__init__()
        self.rows, self.columns = (side // PATCH for side in latent[1:])
        ids = torch.zeros(length + self.rows * self.columns, 3)  # a prompt's tokens are nowhere
        places = torch.cartesian_prod(torch.arange(self.rows), torch.arange(self.columns))
        ids[length:, 1:] = places.to(ids)
        model.pos_embed = _Positions(*model.pos_embed(ids))
        self.model, self.guided = model, guidance is not None
        self.register_buffer("text_ids", ids[:length], persistent=False)
        self.register_buffer("image_ids", ids[length:], persistent=False)
        self.register_buffer("guidance", torch.full((1,), guidance or 0.0), persistent=False)

    def forward(
        self, sample: Tensor, timestep: Tensor, encoder_hidden_states: Tensor, pooled_projections: Tensor
    ) -> Tensor:
        dtype, C = dtype_of(self.model), sample.shape[1]
        packed = sample.reshape(-1, C, self.rows, PATCH, self.columns, PATCH).permute(0, 2, 4, 1, 3, 5)
        output = self.model(
            packed.reshape(-1, self.rows * self.columns, C * PATCH * PATCH).to(dtype),
            encoder_hidden_states.to(dtype),
            pooled_projections.to(dtype),
            timestep.to(dtype) / 1000,
            self.image_ids,
            self.text_ids,
            self.guidance.expand(sample.shape[0]) if self.guided else None,  # type: ignore[operator]
            return_dict=False,
        )[0]
        unpacked = output.reshape(-1, self.rows, self.columns, C, PATCH, PATCH).permute(0, 3, 1, 4, 2, 5)
        return unpacked.reshape(sample.shape).float()  # type: ignore[no-any-return]


def _latent(parts: Parts, options: Options) -> Latent:
    channels = parts.config("transformer").in_channels // PATCH**2
    return transformer_latent(parts, channels, PATCH, SAMPLE_SIZE, options)


def _arrange(parts: Parts, options: Options) -> Arrange:
    _, height, width = _latent(parts, options)

    def arrange(scheduler: Any, steps: int) -> None:
        mu = shift_of(scheduler, height * width // PATCH**2, most=1.15)
        scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / steps, steps), mu=mu)

    return arrange


def _describe(parts: Parts, options: Options, sampling: Sampling) -> Described:
    latent, config = _latent(parts, options), parts.config("transformer")
    clip, t5 = parts.config("text_encoder").hidden_size, parts.config("text_encoder_2").d_model
    if (config.pooled_projection_dim, config.joint_attention_dim) != (clip, t5):
        raise EngineError(
            f"{parts.folder}: its text encoders give {clip} numbers for the text and {t5} per token; the transformer "
            f"takes {config.pooled_projection_dim} and {config.joint_attention_dim}: they are of different models; "
            "copy all from one"
        )
    guidance = _guidance(parts, options)
    lengths = {"tokenizer": parts.tokenizer("tokenizer").model_max_length,
               "tokenizer_2": sequence_length(options, SEQUENCE)}  # fmt: skip
    ids, ids_2 = ({"input_ids": TensorSpec("int64", (None, length))} for length in lengths.values())
    takes = {
        "sample": TensorSpec("float32", (None, *latent)),
        "timestep": TensorSpec(sampling.told, (None,)),
        "encoder_hidden_states": TensorSpec("float32", (None, lengths["tokenizer_2"], t5)),
        "pooled_projections": TensorSpec("float32", (None, clip)),
    }

    def denoiser(model: Any) -> _Denoiser:
        return _Denoiser(model, latent, lengths["tokenizer_2"], guidance)

    networks = {
        "text_encoder": Network("text_encoder", _PooledEncoder, ids, ("pooled_projections",)),
        "text_encoder_2": Network("text_encoder_2", TextEncoder, ids_2, ("encoder_hidden_states",)),
        **vae_networks(parts, latent, sampling.unit),
        "transformer": Network("transformer", denoiser, takes, ("output",)),
    }
    return Described(latent, networks, lengths, None if guidance is None else {"guidance": guidance})


def _guidance(parts: Parts, options: Options) -> float | None:
    """What dev is told of guidance, and schnell is not. Raises EngineError."""
    asked = options.guidance
    if not parts.config("transformer").guidance_embeds:
        if asked is not None:
            raise EngineError(
                f"--guidance {asked:g}: {parts.path('transformer')} is told none, as FLUX schnell: leave it out"
            )
        return None
    if asked is not None and not 0 <= asked < float("inf"):
        raise EngineError(f"--guidance {asked:g}: needed 0 or more, and finite")
    return GUIDANCE if asked is None else asked


EXPORTER = Exporter(
    name="flux",
    title="FLUX.1 dev and schnell",
    pipelines=("FluxPipeline",),
    parts={
        "transformer": "FluxTransformer2DModel",
        "text_encoder": "CLIPTextModel",
        "text_encoder_2": "T5EncoderModel",
        "vae": "AutoencoderKL",
        "tokenizer": "CLIPTokenizer",
        "tokenizer_2": "T5Tokenizer",
    },
    describe=_describe,
    takes=frozenset({"size", "max_sequence_length", "guidance"}),
    kinds=(FLOW,),
    arrange=_arrange,
    steps=(*FEW, *STEPS),
    denoiser="transformer",
)
