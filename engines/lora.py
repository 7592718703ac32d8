"""Low-rank adapters (LoRA, Hu et al., 2021), fused into the weights: W + weight * (alpha / rank) * B A.

diffusers knows the layouts that trainers write them in.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from inspect import signature
from pathlib import Path
from typing import Any, NamedTuple

import torch
from diffusers.loaders.single_file_utils import load_single_file_checkpoint
from safetensors import safe_open

from engines.interface import EngineError
from engines.parts import Parts

A, B = ".lora_A.weight", ".lora_B.weight"
NAMES = {  # in what diffusers makes of other layouts: as it names them today
    r"\.processor\.(to_[qkv])_lora\.": r".\1.lora.",
    r"\.processor\.to_out_lora\.": ".to_out.0.lora.",
    r"\.self_attn\.to_(q|k|v|out)_lora\.": r".self_attn.\1_proj.lora.",
    r"\.(?:lora_linear_layer|lora)[._]down\.weight": A,
    r"\.(?:lora_linear_layer|lora)[._]up\.weight": B,
}
UNREAD = ("dora_scale", "hada_", "lokr_", "oft_", "ia3")


class Layer(NamedTuple):
    """What a LoRA adds to one module's weight: `scale` * B A."""

    module: str
    down: torch.Tensor  # A
    up: torch.Tensor  # B
    scale: float


@dataclass(frozen=True)
class Lora:
    """A file, and how much of it is added."""

    file: Path
    weight: float = 1.0

    @classmethod
    def of(cls, text: str) -> "Lora":
        """FILE or FILE:WEIGHT. Raises EngineError."""
        path, _, weight = text.rpartition(":")
        try:
            return cls(Path(text)) if not path or Path(text).exists() else cls(Path(path), float(weight))
        except ValueError as error:
            raise EngineError(f"--lora {text}: needed FILE or FILE:WEIGHT, such as style.safetensors:0.8") from error


def layers(lora: Lora, name: str, parts: Parts, pipeline: Any) -> list[Layer]:
    """What a LoRA adds to a part. Raises EngineError where it is no LoRA, or not one of this part's network."""
    if not hasattr(pipeline, "lora_state_dict"):
        raise EngineError(f"{lora.file}: a {pipeline.__name__} takes no LoRA: leave it out, or fuse it first")
    found = list(_layers(lora, name, *_read(lora, parts, pipeline)))
    if parts.classes[name] == "CLIPTextModel":  # of which transformers has left a level out
        found = [layer._replace(module=layer.module.removeprefix("text_model.")) for layer in found]
    modules = dict(parts.module(name).named_modules())
    if other := [layer.module for layer in found if layer.module not in modules]:
        raise EngineError(
            f"{lora.file}: {len(other)} of its {len(found)} layers for the {name} are of modules that it does not "
            f"have, such as {other[0]}: a LoRA of another model; name the one that it was trained on as SOURCE"
        )
    return found


def fuse(module: Any, lora: Lora, added: list[Layer]) -> None:
    """Add layers to a part's weights, in place. Raises EngineError where a shape differs."""
    for layer in added:
        weight = module.get_submodule(layer.module).weight
        change = layer.up.to(weight.dtype).flatten(1) @ layer.down.to(weight.dtype).flatten(1)
        if change.numel() != weight.numel():
            raise EngineError(
                f"{lora.file}: changes {layer.module} by {list(change.shape)}, whose weight is {list(weight.shape)}: a "
                "LoRA of another model; name the one that it was trained on as SOURCE"
            )
        weight.data += lora.weight * layer.scale * change.reshape(weight.shape)


def _layers(
    lora: Lora, name: str, state: Mapping[str, Any], alphas: Mapping[str, float], said: Mapping[str, Any]
) -> Iterator[Layer]:
    for key, down in state.items():
        if not (key.startswith(f"{name}.") and key.endswith(A)):
            continue
        whole = key.removesuffix(A)
        if (up := state.get(whole + B)) is None:
            raise EngineError(f"{lora.file}: has {key} and no {whole + B}: damaged; take another copy")
        module, rank = whole.removeprefix(f"{name}."), len(down)
        alpha = said.get(f"{name}.alpha_pattern", {}).get(module, said.get(f"{name}.lora_alpha", rank))
        yield Layer(module, down, up, alphas.get(whole, alpha) / rank)


@lru_cache(4)
def _read(lora: Lora, parts: Parts, pipeline: Any) -> tuple[dict[str, Any], dict[str, float], dict[str, Any]]:
    """Its tensors by part and module, alphas by module, and its header: whichever trainer wrote them."""
    if not lora.file.is_file():
        raise EngineError(f"{lora.file}: no such file; needed a LoRA")
    try:
        held = dict(load_single_file_checkpoint(str(lora.file)))
        kind = next((kind for kind in UNREAD if any(kind in key for key in held)), None)
        state, alphas = _known(held, parts, pipeline)
    except Exception as error:  # the libraries' errors share no base class
        raise EngineError(f"{lora.file}: not read as a LoRA ({error}): needed one in safetensors") from error
    if kind is not None:
        raise EngineError(
            f"{lora.file}: an adapter with {kind.strip('_')}, which is no plain LoRA and is not read: fuse it in the "
            "program that made it, and save the model"
        )
    state = {_named(key): tensor for key, tensor in state.items()}
    alphas = {_named(key.removesuffix(".alpha")).removesuffix(A): float(alpha) for key, alpha in (alphas or {}).items()}
    if not any(key.endswith(A) for key in state):
        raise EngineError(f"{lora.file}: holds no LoRA: an embedding, or another kind of adapter?")
    said = _header(lora.file)
    if any(said.get(f"{name}.use_rslora") for name in parts.classes):
        raise EngineError(
            f"{lora.file}: its scale is by the root of the rank (rsLoRA), which is not read: fuse it first"
        )
    return state, alphas, said


def _known(held: Mapping[str, Any], parts: Parts, pipeline: Any) -> tuple[dict[str, Any], Mapping[str, Any] | None]:
    """Tensors as diffusers names them, and alphas, where they are not in the tensors already."""
    asked = {"unet_config": parts.config("unet")} if "unet" in parts else {}
    if "return_alphas" in signature(pipeline.lora_state_dict).parameters:
        asked["return_alphas"] = True
    found = pipeline.lora_state_dict(dict(held), **asked)
    return found if isinstance(found, tuple) else (found, None)


def _named(key: str) -> str:
    for old, new in NAMES.items():
        key = re.sub(old, new, key)
    return key


def _header(file: Path) -> dict[str, Any]:
    """What diffusers writes of an adapter beside its tensors."""
    if file.suffix != ".safetensors":
        return {}
    with safe_open(str(file), "pt") as opened:
        return dict(json.loads((opened.metadata() or {}).get("lora_adapter_metadata", "{}")))
