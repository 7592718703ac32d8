"""PixArt alpha and sigma: a diffusion transformer with T5, whose padding is masked."""

from typing import Any

import torch
from torch import Tensor, nn

from engines.families.exporter import Described, Exporter, Network, Options
from engines.families.transformer import sequence_length, transformer_latent
from engines.families.unet import vae_networks, vae_scale
from engines.grids import Sampling
from engines.interface import EngineError, TensorSpec
from engines.parts import Parts
from engines.torch_modules import TextEncoder, dtype_of

SEQUENCES = {"PixArtAlphaPipeline": 120, "PixArtSigmaPipeline": 300}  # each pipeline's max_sequence_length
HIDDEN = -10000.0  # what the transformer adds to the scores of masked tokens
TOLD = 128  # sample_size of the models that PixArtAlphaPipeline tells the image's size


def _hidden(mask: Tensor, least: float) -> Tensor:
    """What is added where a mask is 0; chosen, as OpenVINO makes (1 - mask) * least + x a sum in which x is lost."""
    return torch.where(mask == 1, torch.zeros(()), torch.full((), least))


class _Encoder(TextEncoder):
    """input_ids, attention_mask [B, L] -> encoder_hidden_states [B, L, D]."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:  # type: ignore[override]
        dtype = dtype_of(self.model)  # given as numbers to add: asking whether it hides anything cannot be traced
        hidden = _hidden(attention_mask[:, None, None], torch.finfo(dtype).min).to(dtype)
        return self.model(input_ids, attention_mask=hidden).last_hidden_state.float()  # type: ignore[no-any-return]


class _Denoiser(nn.Module):
    """sample [N, C, H, W], timestep [N], encoder_hidden_states [N, L, D], attention_mask [N, L] -> output.

    `size`: height and width in pixels, where the network is told them. What it predicts of variances is left out.
    """

    def __init__(self, model: Any, size: tuple[int, int] | None):
        super().__init__()
        self.model = model
        height, width = size or (1, 1)
        self.told = size is not None
        self.register_buffer("resolution", torch.tensor([[float(height), float(width)]]), persistent=False)
        self.register_buffer("aspect_ratio", torch.tensor([[height / width]]), persistent=False)

    def forward(
        self, sample: Tensor, timestep: Tensor, encoder_hidden_states: Tensor, attention_mask: Tensor
    ) -> Tensor:
        dtype, N = dtype_of(self.model), sample.shape[0]
        # which tracing would not see where heads share a mask
        torch._check(attention_mask.shape[0] == N)  # type: ignore[no-untyped-call]
        told = {"resolution": self.resolution.expand(N, 2), "aspect_ratio": self.aspect_ratio.expand(N, 1)}  # type: ignore[operator]
        output = self.model(
            sample.to(dtype),
            encoder_hidden_states.to(dtype),
            timestep,
            {name: number.to(dtype) for name, number in told.items()} if self.told else dict.fromkeys(told),
            encoder_attention_mask=_hidden(attention_mask[:, None], HIDDEN).to(dtype),
            return_dict=False,
        )
        return output[0][:, : sample.shape[1]].float()  # type: ignore[no-any-return]


def _describe(parts: Parts, options: Options, sampling: Sampling) -> Described:
    module, text = parts.module("transformer"), parts.config("text_encoder")
    config, pipeline = module.config, parts.index["_class_name"]
    latent = transformer_latent(parts, config.in_channels, config.patch_size, config.sample_size, options)
    if module.out_channels not in (latent[0], 2 * latent[0]) or config.caption_channels != text.d_model:
        raise EngineError(
            f"{parts.path('transformer')}: gives {module.out_channels} channels and takes {config.caption_channels} "
            f"numbers per token; the latent has {latent[0]}, the text encoder gives {text.d_model}: they are of "
            "different models; copy all from one"
        )
    height, width = (side * vae_scale(parts) for side in latent[1:])
    told = bool(module.use_additional_conditions)
    if told and (pipeline != "PixArtAlphaPipeline" or config.sample_size != TOLD):
        raise EngineError(
            f"{parts.path('transformer')}: use_additional_conditions: it is to be told the image's size, which "
            f"{pipeline} does not tell a model of sample_size {config.sample_size}: mend model_index.json"
        )
    length = sequence_length(options, SEQUENCES[pipeline])
    mask = {"attention_mask": TensorSpec("int64", (None, length))}
    takes = {
        "sample": TensorSpec("float32", (None, *latent)),
        "timestep": TensorSpec(sampling.told, (None,)),
        "encoder_hidden_states": TensorSpec("float32", (None, length, text.d_model)),
    }
    ids = {"input_ids": TensorSpec("int64", (None, length))}
    networks = {
        "text_encoder": Network("text_encoder", _Encoder, ids | mask, ("encoder_hidden_states",)),
        **vae_networks(parts, latent, sampling.unit),
        "transformer": Network(
            "transformer", lambda model: _Denoiser(model, (height, width) if told else None), takes | mask, ("output",)
        ),
    }
    fixed = {"resolution": [height, width], "aspect_ratio": height / width} if told else None
    return Described(latent, networks, {"tokenizer": length}, fixed, lowercased=True)


EXPORTER = Exporter(
    name="pixart",
    title="PixArt alpha and sigma",
    pipelines=tuple(SEQUENCES),
    parts={
        "transformer": "PixArtTransformer2DModel",
        "text_encoder": "T5EncoderModel",
        "vae": "AutoencoderKL",
        "tokenizer": "T5Tokenizer",
    },
    describe=_describe,
    takes=frozenset({"size", "max_sequence_length"}),
    denoiser="transformer",
)
