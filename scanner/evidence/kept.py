"""Values of an evaluation while it runs: files beside its results, which then take their place.

A killed evaluation goes on from there. What is read back is what was written, bit for bit, or is computed again.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scanner.diffusion.start import Watch
from scanner.errors import Interrupted
from scanner.files import replacing
from scanner.identity import identity
from scanner.model.cache import packed, read_packed

FOLDER = ".scores"  # in the folder of the results
SECONDS = 15.0  # of work that a kill can cost, beside the prompts in hand
SEEDS = 8  # of a prompt at most: as many as fill a batch with one or a few prompts
PROMPTS = 32  # in hand at most

Floats = NDArray[np.float64]


def keeping(
    folder: Path | None,
    what: str,
    made_of: object,
    prompts: Sequence[str],
    batch_size: int,
    compute: Callable[[Sequence[str]], Floats],
    watch: Watch,
    stop: Callable[[], bool],
) -> Floats:
    """Values of all prompts [n, ...] by `compute`, of a few at a time; kept in `folder` while they are made.

    `made_of`: all that they depend on beside the prompts. How many are in hand depends on `batch_size` alone, so that
    what was killed ends like what was not. Once `stop()` is true, the prompts in hand are finished and Interrupted
    raised. Raises DiskError.
    """
    kept = _Kept(folder, identity({"what": what, "made_of": made_of, "prompts": list(prompts)}))
    at_once, done, parts = min(PROMPTS, max(1, batch_size // SEEDS)), 0, list[Floats]()
    try:
        while done < len(prompts):
            if (part := kept.read(done)) is None:
                if stop():
                    raise Interrupted(
                        f"interrupted: what was computed is kept ({done:,} of {len(prompts):,} prompts); the same "
                        "command goes on from there"
                    )
                watch(what, done, len(prompts))
                part = compute(prompts[done : done + at_once])
                kept.add(done, part)
            else:
                kept.commit()  # what came before it
            parts.append(part)
            done += len(part)
    finally:
        kept.commit()
    watch(what, len(prompts), len(prompts))
    return np.concatenate(parts)


class _Kept:
    """Values under `key`; `folder` None keeps nothing."""

    def __init__(self, folder: Path | None, key: str):
        self._folder, self._key = folder, key
        self._parts: list[Floats] = []
        self._start, self._written = 0, time.monotonic()

    def read(self, start: int) -> Floats | None:
        """What is kept of the prompts from number `start` on: some of them, or None."""
        if self._folder is None:
            return None
        found = read_packed(self._path(start))
        return None if found is None else found.astype(np.float64, copy=False)

    def add(self, start: int, values: Floats) -> None:
        """The next prompts' values, the first of which has number `start`: kept now or soon."""
        if not self._parts:
            self._start = start
        self._parts.append(values)
        if time.monotonic() - self._written >= SECONDS:
            self.commit()

    def commit(self) -> None:
        """Keep now what was added."""
        if self._parts and self._folder is not None:
            with replacing(self._path(self._start)) as partial:
                partial.write_bytes(packed(np.concatenate(self._parts)))
        self._parts.clear()
        self._written = time.monotonic()

    def _path(self, start: int) -> Path:
        assert self._folder is not None
        return self._folder / FOLDER / f"{self._key}-{start}.array"
