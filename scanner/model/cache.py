"""Arrays computed once per model and kept in the user's cache folder, found by a hash of all that they depend on.

On a large model the hundred or more UNet passes behind a prior or a reference cost minutes on a CPU.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress

import numpy as np

from engines.cache import cache_folder
from scanner.diffusion.schedule import Array
from scanner.files import replacing
from scanner.identity import digest


def cached(kind: str, key: Sequence[str], shape: tuple[int, ...], compute: Callable[[], Array]) -> Array:
    """The float32 array of `shape` that the cache holds, else a computed one, which it then holds.

    `key`: strings that name all that it depends on: model, backend, and so on.
    """
    path = cache_folder() / f"{kind}-{digest(chr(0).join(key).encode())}.npy"
    try:
        found = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):  # none yet, or damaged
        found = None
    if found is not None and found.shape == shape and found.dtype == np.float32:
        return np.asarray(found)
    computed = compute()
    # a folder that cannot be written costs time on the next run, nothing else
    with suppress(OSError), replacing(path) as partial:
        np.save(partial, computed)
    return computed
