"""Scores of an evaluation while it runs: a file per chunk of prompts beside its results, which then take their place.

A killed evaluation goes on from there. What is read back is what was written, bit for bit, or is computed again.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scanner.files import replacing
from scanner.model.cache import packed, read_packed

FOLDER = ".scores"  # in the folder of the results


@dataclass(frozen=True)
class Kept:
    """Chunks under `key`, which names all that their values depend on; `folder` None keeps nothing."""

    folder: Path | None
    key: str

    def chunk(self, number: int, compute: Callable[[], NDArray[np.float64]]) -> NDArray[np.float64]:
        """The values of a chunk, kept from now on. Raises DiskError."""
        if self.folder is None:
            return compute()
        path = self.folder / FOLDER / f"{self.key}-{number}.array"
        found = read_packed(path)
        if found is not None:
            return found.astype(np.float64, copy=False)
        values = compute()
        with replacing(path) as partial:
            partial.write_bytes(packed(values))
        return values
