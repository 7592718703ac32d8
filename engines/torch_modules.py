"""A checkpoint's networks as modules of named tensors, float32 in and out, whatever their weights are stored in."""

from typing import Any

import torch
from torch import Tensor, nn


def dtype_of(model: nn.Module) -> torch.dtype:
    """What a model's weights are stored in."""
    return next(model.parameters()).dtype


class TextEncoder(nn.Module):
    """input_ids [B, L] -> encoder_hidden_states [B, L, D]."""

    def __init__(self, model: Any):
        super().__init__()
        self.model = model

    @property
    def vocabulary(self) -> int:
        """How many token ids it has embeddings for."""
        return int(self.model.config.vocab_size)

    def forward(self, input_ids: Tensor) -> Tensor:
        return self.model(input_ids).last_hidden_state.float()  # type: ignore[no-any-return]


class InnerTextEncoder(TextEncoder):
    """input_ids [B, L] -> hidden states before the last layer, [B, L, D], which later CLIP models condition on."""

    def forward(self, input_ids: Tensor) -> Tensor:
        return self.model(input_ids, output_hidden_states=True).hidden_states[-2].float()  # type: ignore[no-any-return]


class PooledTextEncoder(TextEncoder):
    """input_ids [B, L] -> hidden states before the last layer, [B, L, D], and the projection of the text, [B, P]."""

    def forward(self, input_ids: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        output = self.model(input_ids, output_hidden_states=True)
        return output.hidden_states[-2].float(), output.text_embeds.float()


class Denoiser(nn.Module):
    """sample [N, C, H, W], timestep [N], encoder_hidden_states [N, L, D] -> the network's output [N, C, H, W]."""

    def __init__(self, model: Any):
        super().__init__()
        self.model = model

    def forward(self, sample: Tensor, timestep: Tensor, encoder_hidden_states: Tensor) -> Tensor:
        dtype = dtype_of(self.model)
        return self.model(sample.to(dtype), timestep, encoder_hidden_states.to(dtype)).sample.float()  # type: ignore[no-any-return]


class _Vae(nn.Module):
    """The VAE's own latents z are unit-variance ones after (z - shift) * scale.

    `unit`: the standard deviation of the latents that the pipeline makes of z by the configuration's numbers.
    """

    shift: Tensor | float
    scale: Tensor | float

    def __init__(self, model: Any, unit: float = 1.0):
        super().__init__()
        self.model = model
        config = model.config
        factor, mean, std = config.scaling_factor, config.get("latents_mean"), config.get("latents_std")
        if mean is not None and std is not None:  # by channel, as Playground v2.5's
            self.register_buffer("shift", torch.tensor(mean).view(1, -1, 1, 1), persistent=False)
            self.register_buffer("scale", factor / unit / torch.tensor(std).view(1, -1, 1, 1), persistent=False)
        else:
            self.shift, self.scale = config.get("shift_factor") or 0.0, factor / unit


class VaeEncoder(_Vae):
    """image [N, 3, h, w] in [-1, 1] -> the posterior mean as a unit-variance latent [N, C, H, W]."""

    def forward(self, image: Tensor) -> Tensor:
        mean = self.model.encode(image.to(dtype_of(self.model))).latent_dist.mean.float()
        return (mean - self.shift) * self.scale  # type: ignore[no-any-return]


class VaeDecoder(_Vae):
    """unit-variance latent [N, C, H, W] -> image [N, 3, h, w], about [-1, 1]."""

    def forward(self, latent: Tensor) -> Tensor:
        z = latent / self.scale + self.shift
        return self.model.decode(z.to(dtype_of(self.model))).sample.float()  # type: ignore[no-any-return]
