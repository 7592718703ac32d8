"""A checkpoint's parts as their configurations describe them, made without weights.

So a configuration that does not fit shows in a second, and not after an export of minutes. Every refusal says what was
found, where, and what to do.
"""

import json
from collections.abc import Mapping
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers

from engines.installed import install_line
from engines.interface import EngineError

RENAMED = {"Transformer2DModel": "PixArtTransformer2DModel"}  # in PixArt's own checkpoints


class Parts:
    """`folder`: of the checkpoint; `classes`: of its parts, by name; `index`: its model_index.json.

    `module`, `tokenizer`: made when asked for, once.
    """

    def __init__(self, folder: Path, classes: Mapping[str, str], index: Mapping[str, Any]):
        self.folder, self.classes, self.index = folder, classes, index
        self.module = lru_cache(None)(self._module)
        self.tokenizer = lru_cache(None)(self._tokenizer)

    def __contains__(self, name: str) -> bool:
        return name in self.classes

    @property
    def networks(self) -> tuple[str, ...]:
        """The names of those with weights."""
        return tuple(name for name in self.classes if not name.startswith("tokenizer"))

    def config(self, name: str) -> Any:
        """A network's configuration, with all defaults."""
        return self.module(name).config

    def path(self, name: str) -> Path:
        """Where a network's configuration lies."""
        return self.folder / name / "config.json"

    def _module(self, name: str) -> Any:
        """A network as its configuration describes it, on the meta device: shapes without numbers."""
        path, kind = self.path(name), class_of(self.classes[name])
        config = read_json(path)
        if (said := renamed(config.get("_class_name", kind.__name__))) != kind.__name__:
            raise EngineError(f"{path}: of a {said}; needed {kind.__name__}: copy the whole checkpoint again")
        try:
            with torch.device("meta"):
                if hasattr(kind, "config_class"):  # of transformers
                    made = kind.config_class.from_pretrained(path.parent, local_files_only=True)
                    return kind(made).eval()
                return kind.from_config(config).eval()
        except Exception as error:  # whatever a constructor makes of a strange value
            raise EngineError(f"{path}: makes no {kind.__name__} ({error}): copy the whole checkpoint again") from error

    def _tokenizer(self, name: str) -> Any:
        spm = self.folder / name / "spiece.model"
        if spm.is_file() and not spm.with_name("tokenizer.json").is_file() and find_spec("sentencepiece") is None:
            raise EngineError(f"{spm}: reading it needs sentencepiece: {install_line('cpu', 'export')}")
        try:
            return class_of(self.classes[name]).from_pretrained(self.folder / name, local_files_only=True)
        except Exception as error:  # the libraries' errors for missing and damaged files share no base class
            raise EngineError(f"{self.folder}: cannot be loaded ({error}): copy the whole checkpoint again") from error


def renamed(name: Any) -> str:
    """What a class of an older release is called now."""
    return RENAMED.get(str(name), str(name))


def class_of(name: str) -> Any:
    """A class of diffusers or transformers."""
    return getattr(diffusers, name, None) or getattr(transformers, name)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object. Raises EngineError."""
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise EngineError(f"{path}: cannot be read ({error}): copy the whole checkpoint again") from error
