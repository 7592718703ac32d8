"""A diffusers checkpoint's own modules behind the engine protocol: the reference, float32 on the CPU, or on a GPU.

The same wrapped modules are what `export` traces, so a bundle and this backend mean the same networks.
"""

import copy
import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # it recommends packages that are not needed here

import torch
from diffusers.utils import logging as diffusers_logging
from numpy.typing import NDArray
from torch import nn
from transformers import CLIPTokenizer

from engines.checkpoint import DIVERGED, check_finite, check_loaded, check_tokenizer, read_index
from engines.grids import grids_of, read_scheduler, schedule_of
from engines.interface import Arrays, EngineError, TensorSpec
from engines.manifest import Component, Manifest, sha256
from engines.networks import CLASSES, read_networks
from engines.torch_modules import Denoiser, TextEncoder, VaeDecoder, VaeEncoder

diffusers_logging.set_verbosity_error()


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
            outputs = self.module(*(torch.tensor(feeds[name], device=self.device) for name in self.inputs))
        given = (outputs,) if isinstance(outputs, torch.Tensor) else outputs
        return {name: output.cpu().numpy() for name, output in zip(self.outputs, given, strict=True)}


@dataclass(frozen=True)
class Checkpoint:
    """A diffusers folder, read: wrapped modules by component name, float32 on the CPU until moved."""

    manifest: Manifest
    tokenizers: Mapping[str, str]
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

    Raises EngineError where it is something else, is damaged, or where overscan would not do as its pipeline does.
    """
    scheduler = read_scheduler(folder, read_index(folder))
    grids = grids_of(scheduler, folder / "scheduler")
    text_encoder, vae, latent = read_networks(folder)
    tokenizer = _tokenizer(folder, text_encoder)
    tokens = _tokenizer_json(tokenizer)
    loaded = {name: _load(folder, name) for name in CLASSES}
    modules = {
        "text_encoder": TextEncoder(loaded["text_encoder"]),
        "unet": Denoiser(loaded["unet"]),
        "vae_encoder": VaeEncoder(loaded["vae"]),
        "vae_decoder": VaeDecoder(loaded["vae"]),
    }
    folders = {"text_encoder": "text_encoder", "unet": "unet", "vae_encoder": "vae", "vae_decoder": "vae"}
    hidden = (tokenizer.model_max_length, text_encoder.hidden_size)
    specs = _specs(latent, 2 ** (len(vae.block_out_channels) - 1), hidden, _told(grids))
    manifest = Manifest(
        family="stable-diffusion",
        prediction_type=scheduler.config.prediction_type,
        schedule=schedule_of(scheduler),
        latent_shape=latent,
        latent_std=latent_std,
        precision="float32",
        tokenizer={"tokenizer.json": hashlib.sha256(tokens.encode()).hexdigest()},
        components={name: Component(_hashes(folder, folders[name]), *specs[name]) for name in modules},
        source={"checkpoint": folder.resolve().name},
        versions={name: version(name) for name in ("torch", "diffusers", "transformers")},
        grids=grids,
    )
    return Checkpoint(manifest, {"tokenizer": tokens}, modules)


def _tokenizer(folder: Path, text_encoder: Any) -> Any:
    try:
        tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
    except Exception as error:  # the libraries' errors for missing and damaged files share no base class
        raise EngineError(f"{folder}: cannot be loaded ({error}): copy the whole checkpoint again") from error
    check_tokenizer(folder, tokenizer, text_encoder)
    return tokenizer


def _load(folder: Path, name: str) -> Any:
    """One network with its weights, every one of them from its file and finite."""
    try:
        module, info = CLASSES[name].from_pretrained(
            folder / name, output_loading_info=True, ignore_mismatched_sizes=True, local_files_only=True
        )
    except Exception as error:  # the libraries' errors for missing and damaged files share no base class
        raise EngineError(
            f"{folder}: cannot be loaded ({error}): copy the whole checkpoint again, or where its weights are of a "
            "variant such as fp16 alone, save the pipeline again without"
        ) from error
    check_loaded(folder, name, info)
    module = module.float().eval().requires_grad_(False)
    check_finite(str(folder / name), module, DIVERGED)
    return module


def _told(grids: Mapping[str, Mapping[str, Any]]) -> str:
    """What the network is told its timesteps in: whole numbers, as in bundles without grids, where all are."""
    whole = all(float(timestep).is_integer() for grid in grids.values() for timestep in grid["timesteps"])
    return "int64" if whole else "float32"


def _specs(
    latent_shape: tuple[int, int, int], scale: int, hidden_shape: tuple[int, int], told: str
) -> dict[str, tuple[dict[str, TensorSpec], dict[str, TensorSpec]]]:
    """Inputs and outputs of each component; a latent's pixel is `scale` of an image's."""
    hidden = TensorSpec("float32", (None, *hidden_shape))
    latent = TensorSpec("float32", (None, *latent_shape))
    image = TensorSpec("float32", (None, 3, *(side * scale for side in latent_shape[1:])))
    timestep = TensorSpec(told, (None,))
    ids = TensorSpec("int64", (None, hidden_shape[0]))
    return {
        "text_encoder": ({"input_ids": ids}, {"encoder_hidden_states": hidden}),
        "unet": ({"sample": latent, "timestep": timestep, "encoder_hidden_states": hidden}, {"output": latent}),
        "vae_encoder": ({"image": image}, {"latent": latent}),
        "vae_decoder": ({"latent": latent}, {"image": image}),
    }


def _hashes(folder: Path, name: str) -> dict[str, str]:
    """Every file that weights may be read from, and the configuration."""
    weights = sorted(file for file in (folder / name).iterdir() if file.suffix in (".safetensors", ".bin"))
    return {f"{name}/{file.name}": sha256(file) for file in [*weights, folder / name / "config.json"]}


def _tokenizer_json(tokenizer: Any) -> str:
    """The tokenizer as the pipeline uses it: padded and truncated to the model's length, at its sides."""
    backend = copy.deepcopy(tokenizer.backend_tokenizer)
    length = tokenizer.model_max_length
    backend.enable_truncation(length, direction=tokenizer.truncation_side)
    backend.enable_padding(
        length=length, pad_id=tokenizer.pad_token_id, pad_token=tokenizer.pad_token, direction=tokenizer.padding_side
    )
    return str(backend.to_str())
