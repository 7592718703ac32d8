"""A checkpoint's networks as modules of named tensors, float32 in and out, whatever their weights are stored in."""

from typing import Any

from torch import Tensor, nn


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


class Denoiser(nn.Module):
    """sample [N, C, H, W], timestep [N], encoder_hidden_states [N, L, D] -> the network's output [N, C, H, W]."""

    def __init__(self, model: Any):
        super().__init__()
        self.model = model

    def forward(self, sample: Tensor, timestep: Tensor, encoder_hidden_states: Tensor) -> Tensor:
        dtype = next(self.model.parameters()).dtype
        return self.model(sample.to(dtype), timestep, encoder_hidden_states.to(dtype)).sample.float()  # type: ignore[no-any-return]


class VaeEncoder(nn.Module):
    """image [N, 3, h, w] in [-1, 1] -> the posterior mean as a unit-variance latent [N, C, H, W]."""

    def __init__(self, model: Any):
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> Tensor:
        dtype = next(self.model.parameters()).dtype
        return self.model.encode(image.to(dtype)).latent_dist.mean.float() * self.model.config.scaling_factor  # type: ignore[no-any-return]


class VaeDecoder(nn.Module):
    """unit-variance latent [N, C, H, W] -> image [N, 3, h, w], about [-1, 1]."""

    def __init__(self, model: Any):
        super().__init__()
        self.model = model

    def forward(self, latent: Tensor) -> Tensor:
        dtype = next(self.model.parameters()).dtype
        return self.model.decode((latent / self.model.config.scaling_factor).to(dtype)).sample.float()  # type: ignore[no-any-return]
