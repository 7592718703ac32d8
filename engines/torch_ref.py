"""A diffusers checkpoint's own modules behind the engine protocol: the reference, float32 on the CPU, or on a GPU.

The same wrapped modules are what `export` traces, so a bundle and this backend mean the same networks.
"""

import copy
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # it recommends packages that are not needed here

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.utils import logging as diffusers_logging
from numpy.typing import NDArray
from torch import nn
from transformers import CLIPTextModel, CLIPTokenizer

from engines.interface import Arrays, EngineError, TensorSpec
from engines.manifest import Component, Manifest, sha256
from engines.torch_modules import Denoiser, TextEncoder, VaeDecoder, VaeEncoder

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


@dataclass(frozen=True)
class TorchEngine:
    """A module behind the engine protocol."""

    module: nn.Module
    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]
    device: str = "cpu"
    precision: str = "float32"

    @property
    def rebuilds(self) -> bool:
        """Never."""
        return False

    @property
    def provider(self) -> str:
        """torch, where it runs and in what."""
        name = torch.cuda.get_device_name() if self.device == "cuda" else self.device
        return f"torch {name} {self.precision}"

    def run(self, feeds: Arrays) -> dict[str, NDArray[Any]]:
        """Run one batch."""
        with torch.inference_mode():  # tensors are copies, as feeds may be read-only
            output = self.module(*(torch.tensor(feeds[name], device=self.device) for name in self.inputs))
        return {name: output.cpu().numpy() for name in self.outputs}


@dataclass(frozen=True)
class Checkpoint:
    """A diffusers folder, read: wrapped modules by component name, float32 on the CPU until moved."""

    manifest: Manifest
    tokenizer: str
    modules: Mapping[str, nn.Module]
    device: str = "cpu"
    precision: str = "float32"

    def engine(self, name: str) -> TorchEngine:
        """One component behind the engine protocol."""
        component = self.manifest.components[name]
        return TorchEngine(self.modules[name], component.inputs, component.outputs, self.device, self.precision)

    def on(self, device: str, precision: str) -> "Checkpoint":
        """Its modules on another device: they compute in `precision`, and still take and give float32."""
        layout = torch.preserve_format if device == "cpu" else torch.channels_last  # which tensor cores want
        for module in self.modules.values():
            module.to(device, getattr(torch, precision), memory_format=layout)  # type: ignore[call-overload]
        return replace(self, device=device, precision=precision)


def require_device(device: str) -> None:
    """Raise EngineError where torch has no such device; on a GPU, float32 then means float32."""
    if device != "cuda":
        return
    if not torch.cuda.is_available():
        built = torch.version.cuda or "no CUDA"
        raise EngineError(
            f"torch {torch.__version__} (built for {built}) finds no GPU: install a CUDA build of torch where "
            "nvidia-smi shows one, or use --backend torch"
        )
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False  # TF32 keeps 10 bits of mantissa


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
        return dict(json.loads(path.read_text(encoding="utf-8")))
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
