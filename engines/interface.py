"""What a backend is: named arrays in, named arrays out.

Engines know nothing of captions, guidance or scores. Floats are float32 at this seam, whatever an engine computes in.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from numpy.typing import NDArray

Arrays = Mapping[str, NDArray[Any]]


class EngineError(Exception):
    """An engine or a bundle cannot do what was asked; the message says what was found, needed, and what to do.

    >>> Model("nowhere").scan_id
    Traceback (most recent call last):
        ...
    engines.interface.EngineError: nowhere: no such folder; needed a bundle (made by `overscan export`)
    """


class BundleError(EngineError):
    """The folder itself is at fault: another backend would not help."""


@dataclass(frozen=True)
class TensorSpec:
    """Type and shape of one input or output; every first axis is the batch (None), the others are fixed."""

    dtype: str
    shape: tuple[int | None, ...]


class Engine(Protocol):
    """One network, ready to run."""

    @property
    def inputs(self) -> Mapping[str, TensorSpec]:
        """What `run` needs."""
        ...

    @property
    def outputs(self) -> Mapping[str, TensorSpec]:
        """What `run` gives."""
        ...

    @property
    def provider(self) -> str:
        """What truly runs it, in the runtime's words."""
        ...

    @property
    def rebuilds(self) -> bool:
        """Whether a batch size that it has not run before costs a build of minutes, and not just its run."""
        ...

    def run(self, feeds: Arrays) -> dict[str, NDArray[Any]]:
        """Run one batch; the feeds match `inputs`, the result matches `outputs`."""
        ...
