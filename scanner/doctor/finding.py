"""What the checks are asked, and what they answer."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from engines import is_checkpoint
from scanner.demo import BUNDLE

Status = Literal["ok", "note", "problem"]


@dataclass(frozen=True)
class Asked:
    """The scan that should run; the bundled model where none is named."""

    model: Path | None = None
    store: Path | None = None
    backend: str = "auto"

    @property
    def bundle(self) -> Path:
        """What the backends are tried on."""
        return self.model if self.model is not None and not is_checkpoint(self.model) else BUNDLE


@dataclass(frozen=True)
class Finding:
    """One answer: what was found, and what to do about it."""

    name: str
    status: Status
    found: str
    remedy: str = ""
