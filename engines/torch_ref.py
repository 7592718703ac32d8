"""The reference backend: a diffusers checkpoint's own modules behind the engine protocol, float32 on the CPU.

The same wrapped modules are what `export` traces, so a bundle and this backend mean the same networks.
"""

import copy
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # it recommends packages that are not needed here

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.utils import logging as diffusers_logging
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from engines.interface import Arrays, EngineError, TensorSpec
from engines.manifest import Component, Manifest, sha256

diffusers_logging.set_verbosity_error()

CLASSES = {
    "unet": UNet2DConditionModel,
    "text_encoder": CLIPTextModel,
    "vae": AutoencoderKL,
    "tokenizer": CLIPTokenizer,
}
CURVES = ("scaled_linear", "linear")


class TextEncoder(nn.Module):
    """input_ids [B, L] -> encoder_hidden_states [B, L, D]."""

    def __init__(self, model: Any):
        super().__init__()
        self.model = model

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


@dataclass(frozen=True)
class TorchEngine:
    """A module behind the engine protocol."""

    module: nn.Module
    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]
    provider: str = "torch cpu float32"

    def run(self, feeds: Arrays) -> dict[str, NDArray[Any]]:
        """Run one batch."""
        with torch.inference_mode():
            output = self.module(*(torch.from_numpy(feeds[name]) for name in self.inputs))
        return {name: output.numpy() for name in self.outputs}


@dataclass(frozen=True)
class Checkpoint:
    """A diffusers folder, read: wrapped float32 modules by component name."""

    manifest: Manifest
    tokenizer: str
    modules: Mapping[str, nn.Module]

    def engine(self, name: str) -> TorchEngine:
        """One component behind the engine protocol."""
        component = self.manifest.components[name]
        return TorchEngine(self.modules[name], component.inputs, component.outputs)


def open_checkpoint(folder: Path, latent_std: float = 1.0) -> Checkpoint:
    """Read a Stable Diffusion checkpoint (v1 or v2) in diffusers' folder layout.

    Raises EngineError where it is something else, or uses a schedule that the scores do not cover.
    """
    index = json.loads((folder / "model_index.json").read_text())
    for name, kind in CLASSES.items():
        found = index.get(name, [None, None])[1]
        if found is None or found.removesuffix("Fast") != kind.__name__ or "text_encoder_2" in index:
            raise EngineError(
                f"{folder}: {index.get('_class_name')} has {name} = {found}; overscan reads Stable Diffusion "
                f"v1 and v2 checkpoints, with {name} = {kind.__name__} and one text encoder"
            )
    unet, text_encoder, vae = (
        CLASSES[name].from_pretrained(folder / name).float().eval().requires_grad_(False)
        for name in ("unet", "text_encoder", "vae")
    )
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    modules = {
        "text_encoder": TextEncoder(text_encoder),
        "unet": Denoiser(unet),
        "vae_encoder": VaeEncoder(vae),
        "vae_decoder": VaeDecoder(vae),
    }
    scheduler = json.loads((folder / "scheduler" / "scheduler_config.json").read_text())
    weights = {name: _weights(folder, name.split("_")[0] if "vae" in name else name) for name in modules}
    hidden = ("float32", (None, tokenizer.model_max_length, text_encoder.config.hidden_size))
    size, pixels = unet.config.sample_size, unet.config.sample_size * 2 ** (len(vae.config.block_out_channels) - 1)
    latent = TensorSpec("float32", (None, unet.config.in_channels, size, size))
    image = TensorSpec("float32", (None, 3, pixels, pixels))
    ids = TensorSpec("int64", (None, tokenizer.model_max_length))
    feeds: dict[str, tuple[dict[str, TensorSpec], dict[str, TensorSpec]]] = {
        "text_encoder": ({"input_ids": ids}, {"encoder_hidden_states": TensorSpec(*hidden)}),
        "unet": (
            {
                "sample": latent,
                "timestep": TensorSpec("int64", (None,)),
                "encoder_hidden_states": TensorSpec(*hidden),
            },
            {"output": latent},
        ),
        "vae_encoder": ({"image": image}, {"latent": latent}),
        "vae_decoder": ({"latent": latent}, {"image": image}),
    }
    manifest = Manifest(
        family="stable-diffusion",
        prediction_type=scheduler.get("prediction_type", "epsilon"),
        schedule=_schedule(folder, scheduler),
        latent_shape=(unet.config.in_channels, size, size),
        latent_std=latent_std,
        precision="float32",
        tokenizer={"tokenizer.json": ""},
        components={name: Component(weights[name], *specs) for name, specs in feeds.items()},
        source={"name": folder.resolve().name, "unet": next(iter(weights["unet"].values()))},
        versions={name: version(name) for name in ("torch", "diffusers", "transformers")},
    )
    return Checkpoint(manifest, _tokenizer_json(tokenizer), modules)


def _weights(folder: Path, name: str) -> dict[str, str]:
    files = sorted((folder / name).glob("*.safetensors")) or sorted((folder / name).glob("*.bin"))
    return {f"{name}/{file.name}": sha256(file) for file in files}


def _schedule(folder: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    if config.get("rescale_betas_zero_snr"):
        raise EngineError(f"{folder}: zero-terminal-SNR schedule (rescale_betas_zero_snr) is not supported")
    if config.get("trained_betas") is not None or config["beta_schedule"] not in CURVES:
        raise EngineError(f"{folder}: beta_schedule {config['beta_schedule']}; overscan knows {', '.join(CURVES)}")
    return {
        "curve": config["beta_schedule"],
        "beta_start": config["beta_start"],
        "beta_end": config["beta_end"],
        "num_train_timesteps": config["num_train_timesteps"],
        "timestep_spacing": config.get("timestep_spacing", "leading"),
        "steps_offset": config.get("steps_offset", 0),
        "set_alpha_to_one": config.get("set_alpha_to_one", True),
    }


def _tokenizer_json(tokenizer: Any) -> str:
    """The tokenizer as the pipeline uses it: padded and truncated to the model's length."""
    backend = copy.deepcopy(tokenizer.backend_tokenizer)
    length = tokenizer.model_max_length
    backend.enable_truncation(length)
    backend.enable_padding(length=length, pad_id=tokenizer.pad_token_id, pad_token=tokenizer.pad_token)
    return str(backend.to_str())
