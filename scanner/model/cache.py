"""Arrays computed once per model and kept in the user's cache folder, found by a hash of all that they depend on.

On a large model the UNet passes behind a prior or a reference cost minutes on a CPU. What is read back
must be what was written, bit for bit: a damaged file would move scores under the same scan_id.
"""

import io
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.cache import cache_folder
from scanner.diffusion.prediction import Array
from scanner.files import replacing
from scanner.identity import digest

HEAD = 32  # characters of the checksum before the array


def cached(kind: str, key: Sequence[str], shape: tuple[int, ...], compute: Callable[[], Array]) -> Array:
    """The float32 array of `shape` that the cache holds intact, else a computed one, which it then holds.

    `key`: strings that name all that it depends on: model, backend, and so on.
    """
    path = cache_folder() / f"{kind}-{digest(chr(0).join(key).encode())}.array"
    found = read_packed(path)
    if found is not None and found.shape == shape and found.dtype == np.float32:
        return found
    computed = compute()
    # a folder that cannot be written costs time on the next run, nothing else
    with suppress(OSError), replacing(path) as partial:
        partial.write_bytes(packed(computed))
    return computed


def packed(array: NDArray[Any]) -> bytes:
    """An array's bytes with their checksum."""
    stream = io.BytesIO()
    np.save(stream, array)
    return digest(stream.getvalue()).encode() + stream.getvalue()


def read_packed(path: Path) -> NDArray[Any] | None:
    """The array of a file; None where there is none, or a damaged one."""
    with suppress(OSError, ValueError, EOFError):
        data = path.read_bytes()
        if data[:HEAD] == digest(data[HEAD:]).encode():
            return np.asarray(np.load(io.BytesIO(data[HEAD:]), allow_pickle=False))
    return None
