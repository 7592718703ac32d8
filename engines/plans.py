"""TensorRT plans on disk: which batches one serves, all that it depends on, and where it may lie.

A plan is code that runs with the user's rights, and fits one version of TensorRT and one kind of GPU. So it is never
read from a bundle, only from a folder of the user's own that nobody else can read or write.
"""

import os
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from engines.cache import cache_folder, key_of, own_folder
from engines.interface import EngineError
from engines.manifest import Manifest

SMALLEST = 4  # samples; a scan's first batches are small, and each profile costs minutes
WAY_OUT = "use --backend cuda or cpu"


@dataclass(frozen=True)
class Profile:
    """The batch sizes that a plan runs: fastest at `opt`, none above `max`."""

    min: int
    opt: int
    max: int

    def shapes(self, shape: Sequence[int | None]) -> tuple[tuple[int, ...], ...]:
        """Least, best and largest shape of a tensor whose first axis is the batch."""
        rest = tuple(size or 1 for size in shape[1:])
        return tuple((batch, *rest) for batch in (self.min, self.opt, self.max))


@dataclass(frozen=True)
class Gpu:
    """What a plan fits: the version of TensorRT, the GPU's name and its compute capability."""

    tensorrt: str
    name: str
    capability: str


def profile_for(batch: int) -> Profile:
    """The profile of the power of two, at least SMALLEST, that takes `batch`."""
    largest = max(SMALLEST, 1 << (batch - 1).bit_length())
    return Profile(1, largest, largest)


def plan_key(manifest: Manifest, component: str, gpu: Gpu, profile: Profile) -> str:
    """blake2b-128 of all that a plan depends on: weights, graph and exporter (the manifest), TensorRT, GPU, profile."""
    facts = [manifest.fingerprint, component, asdict(gpu), asdict(profile)]
    return key_of(facts)


def plan_folder() -> Path:
    """$XDG_CACHE_HOME/overscan/tensorrt, made with mode 0700.

    Raises EngineError where it cannot be made, is a link, or where another user owns it or may write to it.
    """
    try:
        return own_folder("tensorrt")
    except PermissionError as error:
        if error.strerror is not None:  # the system's own
            raise _cannot_be_made(error) from error
        raise EngineError(
            f"{error}; a plan is code, so needed a folder of user {os.getuid()} with mode 0700: remove it, set "
            f"XDG_CACHE_HOME to a folder of yours, or {WAY_OUT}"
        ) from error
    except OSError as error:
        raise _cannot_be_made(error) from error


def _cannot_be_made(error: OSError) -> EngineError:
    return EngineError(
        f"{cache_folder() / 'tensorrt'}: cannot be made ({error.strerror}), and plans are kept there: set "
        f"XDG_CACHE_HOME to a folder of yours, or {WAY_OUT}"
    )


def write_plan(path: Path, plan: bytes) -> None:
    """Write a plan whole or not at all, for its user alone. Raises EngineError."""
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:  # mode 0600
            file.write(plan)
        Path(file.name).replace(path)
    except OSError as error:
        raise EngineError(f"{path}: cannot be written ({error.strerror}): make room, or {WAY_OUT}") from error
