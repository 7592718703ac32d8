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
from tokenizers import Regex, normalizers
from torch import nn

from engines.bundle import Bundle
from engines.checkpoint import check_tokenizer, read_index
from engines.embedding import written_out
from engines.families import DEFAULTS, Described, Exporter, Network, Options
from engines.grids import Sampling, read_sampling
from engines.interface import Arrays, EngineError, TensorSpec
from engines.manifest import Component, Manifest, sha256
from engines.parts import Parts
from engines.validate import encoder_of
from engines.weights import WEIGHTS, load, tried, variant_of

diffusers_logging.set_verbosity_error()

# str.lower(), of which tokenizers' own misses one letter that depends on its neighbours
FINAL_SIGMA = Regex(r"(?<=[\p{Lu}\p{Ll}\p{Lt}])\x{3A3}(?![\p{Lu}\p{Ll}\p{Lt}])")
SMALL_LETTERS = (normalizers.Replace(FINAL_SIGMA, "\u03c2"), normalizers.Lowercase())


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
    """A diffusers folder, read; its networks are loaded when they are asked for, one at a time.

    They compute in `precision` on `device`, and take and give float32.
    """

    manifest: Manifest
    tokenizers: Mapping[str, str]
    parts: Parts
    networks: Mapping[str, Network]
    variants: Mapping[str, str | None]
    device: str = "cpu"
    precision: str = "float32"

    def engine(self, name: str) -> TorchEngine:
        """One component behind the engine protocol. Raises EngineError where its weights are not its own."""
        component, network = self.manifest.components[name], self.networks[name]
        precision = self.precision
        if precision == "float16" and getattr(self.parts.config(network.part), "force_upcast", False):
            precision = "float32"  # as the pipeline does: in float16 the VAE's activations overflow
        module = network.wrap(load(self.parts, network.part, self.variants[network.part], precision)).eval()
        layout = torch.preserve_format if self.device == "cpu" else torch.channels_last  # which tensor cores want
        module.to(self.device, memory_format=layout)  # type: ignore[call-overload]
        return TorchEngine(module, component.inputs, component.outputs, self.device, precision)

    def bundle(self, backend: str) -> Bundle:
        """Itself behind the door of bundles."""
        return Bundle(self.parts.folder, self.manifest, self.tokenizers, backend, self.precision, self.engine)

    def on(self, device: str, precision: str) -> "Checkpoint":
        """Itself, on another device and in another precision."""
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


def describe(folder: Path, options: Options = DEFAULTS) -> tuple[Exporter, Parts, Described, Sampling]:
    """A checkpoint in diffusers' folder layout, looked at without its weights.

    Raises EngineError where it is of no family that overscan has, is damaged, or where overscan would not do as its
    pipeline does.
    """
    exporter, parts = read_index(folder)
    exporter.check(options)
    scheduler, arrange = str(parts.index["scheduler"][1]), exporter.arrange(parts, options)
    sampling = read_sampling(folder, scheduler, exporter.kinds, arrange, exporter.steps)
    described = exporter.describe(parts, options, sampling)
    for name, length in described.lengths.items():
        check_tokenizer(folder / name, parts.tokenizer(name), parts.config(encoder_of(name)), length)
    return exporter, parts, described, sampling


def open_checkpoint(
    folder: Path, latent_std: float = 1.0, options: Options = DEFAULTS, variant: str | None = None
) -> Checkpoint:
    """Read a checkpoint in diffusers' folder layout; `variant`: of its weights' files, such as fp16.

    Raises EngineError as `describe`, or where there are no weights.
    """
    exporter, parts, described, sampling = describe(folder, options)
    specs = tried(parts, described)
    variants = {name: variant_of(folder / name, variant) for name in parts.networks}
    tokenizers = {
        name: _tokenizer_json(parts.tokenizer(name), length, described.lowercased)
        for name, length in described.lengths.items()
    }
    manifest = Manifest(
        family=exporter.name,
        prediction_type=sampling.prediction_type,
        schedule=sampling.schedule,
        latent_shape=described.latent_shape,
        latent_std=latent_std,
        precision="float32",
        tokenizer={f"{name}.json": hashlib.sha256(text.encode()).hexdigest() for name, text in tokenizers.items()},
        components={
            name: Component(_hashes(folder, network.part), network.inputs, specs[name])
            for name, network in described.networks.items()
        },
        source={"checkpoint": folder.resolve().name},
        versions={name: version(name) for name in ("torch", "diffusers", "transformers")},
        grids=sampling.grids,
        fixed=described.fixed,
    )
    return Checkpoint(manifest, tokenizers, parts, described.networks, variants)


def _hashes(folder: Path, name: str) -> dict[str, str]:
    """Every file that weights may be read from, and the configuration."""
    weights = sorted(file for file in (folder / name).iterdir() if file.suffix in WEIGHTS)
    return {f"{name}/{file.name}": sha256(file) for file in [*weights, folder / name / "config.json"]}


def _tokenizer_json(tokenizer: Any, length: int, lowercased: bool) -> str:
    """The tokenizer as the pipeline uses it: padded and truncated to a length, at its sides."""
    backend = copy.deepcopy(tokenizer.backend_tokenizer)
    if lowercased:
        own = [] if backend.normalizer is None else [backend.normalizer]
        backend.normalizer = normalizers.Sequence([*SMALL_LETTERS, *own])
    backend.enable_truncation(length, direction=tokenizer.truncation_side)
    backend.enable_padding(
        length=length, pad_id=tokenizer.pad_token_id, pad_token=tokenizer.pad_token, direction=tokenizer.padding_side
    )
    return str(written_out(backend).to_str())
