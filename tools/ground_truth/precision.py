"""Training in bfloat16 where there are matrix units for it: a GPU's, or the processor's (AMX), where it is half as
fast again on one core.

Weights, norms and attention's softmax stay in float32: PyTorch's bfloat16 kernels for these are slower than float32's
on a processor (`ready`); on a GPU autocast does so itself.
"""

from contextlib import AbstractContextManager

import torch
import torch.nn.functional as F
from diffusers.models.attention_processor import Attention
from torch import nn

HAS_BFLOAT16 = bool(torch.cpu._is_amx_tile_supported())


def autocast(device: str = "cpu") -> AbstractContextManager:
    """Matrix products in bfloat16, where that is faster; nothing is kept, which a CUDA graph could not replay."""
    on_cpu = device == "cpu"
    return torch.autocast(device, torch.bfloat16, enabled=HAS_BFLOAT16 or not on_cpu, cache_enabled=on_cpu)


class FloatGroupNorm(nn.GroupNorm):
    """Normalises in float32, whatever it is given."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", enabled=False):
            return F.group_norm(x.float(), self.num_groups, self.weight, self.bias, self.eps).to(x.dtype)


class FloatAttention:
    """Attention whose projections may be bfloat16 and whose softmax is float32; for `set_attn_processor`."""

    def __call__(
        self, attention: Attention, x: torch.Tensor, encoder_hidden_states: torch.Tensor | None = None, **_: object
    ) -> torch.Tensor:
        residual, hidden = x, x if encoder_hidden_states is None else encoder_hidden_states
        if x.ndim == 4:
            raise ValueError("needed tokens [n, L, d]: the UNet's transformer blocks flatten pictures themselves")
        q, k, v = (
            to(tokens).unflatten(-1, (attention.heads, -1)).transpose(1, 2).float()  # [n, heads, L, d]
            for to, tokens in ((attention.to_q, x), (attention.to_k, hidden), (attention.to_v, hidden))
        )
        with torch.autocast("cpu", enabled=False):
            mixed = F.scaled_dot_product_attention(q, k, v)
        out = attention.to_out[0](mixed.transpose(1, 2).flatten(2).to(residual.dtype))
        return out + residual if attention.residual_connection else out


def ready(module: nn.Module) -> nn.Module:
    """The module with float32 norms and attention; its weights keep their names."""
    for part in module.modules():
        if type(part) is nn.GroupNorm:
            part.__class__ = FloatGroupNorm
    if hasattr(module, "set_attn_processor"):
        module.set_attn_processor(FloatAttention())
    return module
