"""A checkpoint from the hub: its files that an export reads, and no others."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from engines.bundle import is_checkpoint
from engines.checkpoint import find_exporter
from engines.interface import EngineError
from engines.weights import NAMED

INDEX = "model_index.json"


def fetched(source: Path, variant: str | None = None) -> Path:
    """The checkpoint's folder: `source`, or that of a hub id like org/name, fetched. Raises EngineError."""
    if is_checkpoint(source):
        return source
    if source.exists() or len(source.parts) != 2:
        raise EngineError(f"{source}: no {INDEX} there; needed a diffusers folder or a hub id like org/name")
    from huggingface_hub import HfApi, hf_hub_download, snapshot_download

    try:
        index = json.loads(Path(hf_hub_download(str(source), INDEX)).read_text(encoding="utf-8"))
        files = needed(HfApi().list_repo_files(str(source)), index, source, variant)
        return Path(snapshot_download(str(source), allow_patterns=files))
    except EngineError:
        raise
    except Exception as error:
        said = str(error).strip().splitlines() or [repr(error)]
        raise EngineError(
            f"{source}: no such folder, and as a hub id it cannot be fetched ({said[0][:200]}): check its spelling and "
            "the network, or fetch it elsewhere and name its folder"
        ) from error


def needed(files: Iterable[str], index: Mapping[str, Any], source: Path, variant: str | None) -> list[str]:
    """Of a repository's files those that an export reads: configurations, tokenizers, one set of weights per network.

    Raises EngineError for a family that overscan does not read.
    """
    exporter = find_exporter(source, index)
    held = sorted(files)
    wanted = [INDEX, *(file for file in held if file.startswith("scheduler/"))]
    for part in exporter.held(index):
        inside = [file for file in held if file.startswith(f"{part}/")]
        if part.startswith("tokenizer"):
            wanted += inside
            continue
        wanted += [file for file in inside if file.endswith("/config.json")]
        wanted += _weights([file for file in inside if Path(file).parent == Path(part)], variant)
    return wanted


def _weights(files: list[str], variant: str | None) -> list[str]:
    """One set of weights: the variant asked for, else the plain one, else all of the others; safetensors first."""
    named = {file: match for file in files if (match := NAMED.fullmatch(Path(file).name.removesuffix(".index.json")))}
    sets = [
        [file for file, match in named.items() if match["variant"] == kind and ending in file]
        for kind in dict.fromkeys([variant, None])
        for ending in (".safetensors", ".bin")
    ]
    return next((found for found in sets if found), list(named))
