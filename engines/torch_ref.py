"""The reference backend: a diffusers checkpoint's own modules behind the engine protocol, float32 on the CPU.

The same wrapped modules are what `export` traces, so a bundle and this backend mean the same networks.
"""

import copy
import hashlib
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
CONFIGS = tuple(f"{name}/config.json" for name in ("unet", "text_encoder", "vae"))
SCHEDULER_DEFAULTS = {  # what a configuration need not say, by diffusers class
    "DDIMScheduler": {"timestep_spacing": "leading", "steps_offset": 0, "set_alpha_to_one": True},
    "PNDMScheduler": {"timestep_spacing": "leading", "steps_offset": 0, "set_alpha_to_one": False},
}


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
            output = self.module(*(torch.tensor(feeds[name]) for name in self.inputs))  # a copy: feeds may be read-only
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

    Raises EngineError where it is something else, is damaged, or uses a schedule that the scores do not cover.
    """
    _refuse_others(folder)
    scheduler = _json(folder / "scheduler" / "scheduler_config.json")
    schedule = _schedule(folder, scheduler)
    try:
        unet, text_encoder, vae = (
            CLASSES[name].from_pretrained(folder / name).float().eval().requires_grad_(False)
            for name in ("unet", "text_encoder", "vae")
        )
        tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    except Exception as error:  # the libraries' errors for missing and damaged files share no base class
        raise EngineError(f"{folder}: cannot be loaded ({error}): copy the whole checkpoint again") from error
    if not unet.config.in_channels == unet.config.out_channels == vae.config.latent_channels:
        raise EngineError(
            f"{folder}: the UNet takes {unet.config.in_channels} channels and gives {unet.config.out_channels}, the "
            f"latent has {vae.config.latent_channels}: needed a text-to-image model, not inpainting or editing"
        )
    tokens = _tokenizer_json(tokenizer)
    modules = {
        "text_encoder": TextEncoder(text_encoder),
        "unet": Denoiser(unet),
        "vae_encoder": VaeEncoder(vae),
        "vae_decoder": VaeDecoder(vae),
    }
    folders = {"text_encoder": "text_encoder", "unet": "unet", "vae_encoder": "vae", "vae_decoder": "vae"}
    specs = _specs(unet.config, vae.config, tokenizer.model_max_length, text_encoder.config.hidden_size)
    size = unet.config.sample_size
    manifest = Manifest(
        family="stable-diffusion",
        prediction_type=scheduler.get("prediction_type", "epsilon"),
        schedule=schedule,
        latent_shape=(unet.config.in_channels, size, size),
        latent_std=latent_std,
        precision="float32",
        tokenizer={"tokenizer.json": hashlib.sha256(tokens.encode()).hexdigest()},
        components={name: Component(_hashes(folder, folders[name]), *specs[name]) for name in modules},
        source={"checkpoint": folder.resolve().name},
        versions={name: version(name) for name in ("torch", "diffusers", "transformers")},
    )
    return Checkpoint(manifest, tokens, modules)


def _refuse_others(folder: Path) -> None:
    index = _json(folder / "model_index.json")
    for name, kind in CLASSES.items():
        found = index.get(name, [None, None])[1]
        if found is None or found.removesuffix("Fast") != kind.__name__ or "text_encoder_2" in index:
            raise EngineError(
                f"{folder}: {index.get('_class_name')} has {name} = {found}; overscan reads Stable Diffusion "
                f"v1 and v2 checkpoints, with {name} = {kind.__name__} and one text encoder"
            )
    if missing := [name for name in CONFIGS if not (folder / name).is_file()]:
        raise EngineError(f"{folder}: no {', '.join(missing)}: copy the whole checkpoint again")


def _json(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise EngineError(f"{path}: cannot be read ({error}): copy the whole checkpoint again") from error


def _specs(
    unet: Any, vae: Any, tokens: int, hidden_size: int
) -> dict[str, tuple[dict[str, TensorSpec], dict[str, TensorSpec]]]:
    """Inputs and outputs of each component."""
    hidden = TensorSpec("float32", (None, tokens, hidden_size))
    latent = TensorSpec("float32", (None, unet.in_channels, unet.sample_size, unet.sample_size))
    pixels = unet.sample_size * 2 ** (len(vae.block_out_channels) - 1)
    image = TensorSpec("float32", (None, 3, pixels, pixels))
    timestep = TensorSpec("int64", (None,))
    return {
        "text_encoder": ({"input_ids": TensorSpec("int64", (None, tokens))}, {"encoder_hidden_states": hidden}),
        "unet": ({"sample": latent, "timestep": timestep, "encoder_hidden_states": hidden}, {"output": latent}),
        "vae_encoder": ({"image": image}, {"latent": latent}),
        "vae_decoder": ({"latent": latent}, {"image": image}),
    }


def _hashes(folder: Path, name: str) -> dict[str, str]:
    weights = sorted((folder / name).glob("*.safetensors")) or sorted((folder / name).glob("*.bin"))
    return {f"{name}/{file.name}": sha256(file) for file in [*weights, folder / name / "config.json"]}


def _schedule(folder: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    if config.get("rescale_betas_zero_snr"):
        raise EngineError(f"{folder}: zero-terminal-SNR schedule (rescale_betas_zero_snr) is not supported")
    if config.get("trained_betas") is not None or config["beta_schedule"] not in CURVES:
        raise EngineError(f"{folder}: beta_schedule {config['beta_schedule']}; overscan knows {', '.join(CURVES)}")
    known = {**SCHEDULER_DEFAULTS.get(config.get("_class_name", ""), {}), **config}
    if missing := [key for key in ("timestep_spacing", "steps_offset", "set_alpha_to_one") if key not in known]:
        raise EngineError(
            f"{folder}: {config.get('_class_name')} leaves {', '.join(missing)} to its defaults, which overscan does "
            f"not know: write them into scheduler/scheduler_config.json, or use the scheduler of "
            f"{' or '.join(SCHEDULER_DEFAULTS)}"
        )
    return {
        "curve": config["beta_schedule"],
        "beta_start": config["beta_start"],
        "beta_end": config["beta_end"],
        "num_train_timesteps": config["num_train_timesteps"],
        "timestep_spacing": known["timestep_spacing"],
        "steps_offset": known["steps_offset"],
        "set_alpha_to_one": known["set_alpha_to_one"],
    }


def _tokenizer_json(tokenizer: Any) -> str:
    """The tokenizer as the pipeline uses it: padded and truncated to the model's length."""
    backend = copy.deepcopy(tokenizer.backend_tokenizer)
    length = tokenizer.model_max_length
    backend.enable_truncation(length)
    backend.enable_padding(length=length, pad_id=tokenizer.pad_token_id, pad_token=tokenizer.pad_token)
    return str(backend.to_str())
