"""What the checks are asked, and what they answer."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from engines import BundleError, is_checkpoint
from scanner.copies import here
from scanner.demo import BUNDLE
from scanner.errors import ScannerError
from scanner.places import Place

Status = Literal["ok", "note", "problem"]


@dataclass(frozen=True)
class Asked:
    """The scan that should run; the bundled model where none is named."""

    model: Place | None = None
    store: Place | None = None
    backend: str = "auto"

    @property
    def folder(self) -> Path:
        """The model's, on this machine. Raises BundleError where it cannot be fetched."""
        try:
            return BUNDLE if self.model is None else here(self.model)
        except ScannerError as error:
            raise BundleError(str(error)) from error

    @property
    def checkpoint(self) -> Path | None:
        """What the backends of checkpoints are tried on. Raises BundleError."""
        return self.folder if is_checkpoint(self.folder) else None

    @property
    def bundle(self) -> Path:
        """What the other backends are tried on. Raises BundleError."""
        return self.folder if self.checkpoint is None else BUNDLE


@dataclass(frozen=True)
class Finding:
    """One answer: what was found, and what to do about it."""

    name: str
    status: Status
    found: str
    remedy: str = ""
