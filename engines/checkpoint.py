"""A diffusers folder, looked at before any work: what can be done as its pipeline does it, and what not.

Every refusal says what was found, where, and what to do.
"""

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from engines.families import ABSENT, EXPORTERS, Exporter
from engines.families.refused import REFUSED
from engines.interface import EngineError
from engines.parts import Parts, read_json, renamed

LIBRARIES = ("diffusers", "transformers")
ADDON = re.compile(r"lora|adapter|lycoris|learned_embeds|textual_inversion|hypernet|controlnet", re.IGNORECASE)
ADDON_TENSOR = re.compile(r"lora|lokr|hada_|loha|oft_|ia3|ip_adapter|image_proj\.|emb_params|controlnet", re.IGNORECASE)
WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt")
LONGEST = 4096  # tokens
DIVERGED = "the weights are damaged or their training diverged; take another copy or an earlier checkpoint"


def find_exporter(folder: Path, index: Mapping[str, Any]) -> Exporter:
    """The family that a checkpoint's pipeline is of. Raises EngineError, with the reason where it is known."""
    found = index.get("_class_name")
    for exporter in EXPORTERS:
        if found in exporter.pipelines:
            return exporter
    known = ", ".join(pipeline for exporter in EXPORTERS for pipeline in exporter.pipelines)
    if reason := REFUSED.get(str(found)):
        raise EngineError(f"{folder}: of a {found}: {reason}; overscan reads {known}")
    raise EngineError(
        f"{folder}: model_index.json has _class_name = {found}; overscan reads {known}: if it makes images from text "
        "alone with the networks of one of these, load it with that one's class, such as "
        "StableDiffusionPipeline.from_pretrained and save it to another folder"
    )


def read_index(folder: Path) -> tuple[Exporter, Parts]:
    """A checkpoint's family and parts, once nothing in its folder says that the pipeline would do otherwise.

    Raises EngineError.
    """
    index = read_json(folder / "model_index.json")
    exporter = find_exporter(folder, index)
    _refuse_parts(folder, index, exporter)
    parts = Parts(folder, exporter.held(index), index)
    needed = [*(f"{name}/config.json" for name in parts.networks), "scheduler/scheduler_config.json"]
    if missing := [name for name in needed if not (folder / name).is_file()]:
        raise EngineError(f"{folder}: no {', '.join(missing)}: copy the whole checkpoint again")
    for name in parts.classes.keys() - set(parts.networks):
        if not any((folder / name).glob("*.json")):
            raise EngineError(f"{folder}: no {name}/*.json: copy the whole checkpoint again")
    _refuse_addons(folder, exporter)
    return exporter, parts


def _refuse_parts(folder: Path, index: Mapping[str, Any], exporter: Exporter) -> None:
    """By what the pipeline is made of."""
    pipeline = index["_class_name"]
    parts = {name: value for name, value in index.items() if isinstance(value, list | tuple | dict)}
    for name in (*exporter.held(index), "scheduler"):
        entry: Any = index.get(name)
        known = isinstance(entry, list) and len(entry) == 2 and all(isinstance(text, str) for text in entry)
        known = known and entry[0] in LIBRARIES  # others hold code of their own
        found, needed = entry[1] if known else entry, exporter.parts.get(name, "a scheduler")
        if not known or (name in exporter.parts and renamed(found).removesuffix("Fast") != needed):
            raise EngineError(
                f"{folder}: {pipeline} has {name} = {found}; overscan reads {exporter.title} checkpoints, "
                f"with {name} = {needed}: mend model_index.json if that is what it is"
            )
    for name, value in parts.items():
        if name not in (*exporter.parts, "scheduler", *exporter.without) and value != ABSENT:
            raise EngineError(
                f"{folder}: model_index.json has {name} = {value}, which changes what is generated; overscan reads "
                f"{', '.join((*exporter.parts, 'scheduler'))}: save the pipeline without it"
            )


def _refuse_addons(folder: Path, exporter: Exporter) -> None:
    """Weights that are loaded on top of the pipeline's: nobody can tell whether they are meant to be audited."""
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        if inside.parts[0].startswith(".") or inside.parts[0] in exporter.without or not path.is_file():
            continue
        if path.name == "adapter_config.json" or (path.suffix in WEIGHTS and is_addon(path, inside)):
            raise EngineError(
                f"{path}: a LoRA, an adapter, an embedding or other weights that are added to a model: to scan both, "
                "export with --lora or --embedding, or load it into the pipeline, fuse it and save the pipeline; to "
                "scan the model alone, move it to another folder"
            )


def is_addon(path: Path, inside: Path) -> bool:
    """By the tensors' names where they can be read, else by the file's."""
    if path.suffix != ".safetensors":
        return bool(ADDON.search(str(inside)))
    try:
        with path.open("rb") as file:
            names = json.loads(file.read(min(int.from_bytes(file.read(8), "little"), 2**27)))
    except ValueError:  # damaged: loading it will say so
        return bool(ADDON.search(str(inside)))
    return any(map(ADDON_TENSOR.search, names)) or (len(names) < 3 and bool(ADDON.search(path.name)))


def check_tokenizer(path: Path, tokenizer: Any, config: Any, length: int) -> None:
    """Refuse a tokenizer whose ids, length or padding its text encoder cannot take. Raises EngineError."""
    most = getattr(config, "max_position_embeddings", LONGEST)  # T5's positions are relative
    if not 2 <= length <= most:
        raise EngineError(
            f"{path}/tokenizer_config.json: model_max_length {'absent' if length > 1e9 else length}; needed 2 to "
            f"{most}, the text encoder's: write it"
        )
    if tokenizer.pad_token_id is None:
        raise EngineError(f"{path}/tokenizer_config.json: no pad_token; needed one to fill {length} tokens: write it")
    vocabulary = tokenizer.get_vocab()
    if beyond := sorted((number, token) for token, number in vocabulary.items() if number >= config.vocab_size):
        number, token = beyond[0]
        raise EngineError(
            f"{path}: {_many(len(beyond), 'token')} without an embedding, such as {token!r} with id {number}; the text "
            f"encoder has {config.vocab_size}: resize_token_embeddings, with the tokens' vectors, and save again"
        )


def check_loaded(path: Path, kind: str, info: Mapping[str, Any]) -> None:
    """Raise EngineError where weights and configuration are not of one network, by the libraries' loading info."""
    keys = {
        kind: sorted(key if isinstance(key, str) else str(key[0]) for key in info.get(f"{kind}_keys", ()))
        for kind in ("missing", "unexpected", "mismatched")
    }
    said = [f"{_many(len(names), 'tensor')} {kind} ({_first(names)})" for kind, names in keys.items() if names]
    if errors := info.get("error_msgs"):
        said.append(str(errors))
    if said:
        raise EngineError(
            f"{path}: {', '.join(said)}: weights and config.json are not of one {kind}, and "
            "what is missing would be random; save it again with save_pretrained, or copy the whole checkpoint again"
        )


def check_finite(what: str, module: torch.nn.Module, remedy: str) -> None:
    """Raise EngineError where a weight is NaN or infinite, with its name."""
    if bad := [key for key, tensor in module.state_dict().items() if not torch.isfinite(tensor).all()]:
        raise EngineError(f"{what}: {_many(len(bad), 'tensor')} with NaN or infinity ({_first(bad)}): {remedy}")


def _many(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _first(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
