"""Whether a bundle's files are what its manifest says; gigabytes that were found intact need not be read every night.

Remembered is all that a system changes with a file: its size, times, inode. A disk that loses bytes, and a file system
that keeps no time of its own for changes, show none of it: `overscan doctor` and an export read every file.
"""

import os
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from engines.cache import key_of, own_folder
from engines.interface import BundleError
from engines.manifest import FILE, sha256

SETTLED = 2.0  # seconds after a change, from which another one changes a file's times on any file system


def check_files(folder: Path, files: Mapping[str, str], reread: bool = True) -> None:
    """Compare a bundle's files, by name, with their sha256; `reread`: also those that were found intact before.

    Raises BundleError where one is missing, lies elsewhere or differs.
    """
    for name in files:
        if Path(name).name != name:
            raise BundleError(f"{folder / FILE}: file {name!r} lies outside the bundle: do not use this bundle")
        if not (folder / name).is_file():
            raise BundleError(
                f"{folder / name}: missing, though {FILE} names it: copy the whole bundle, or export again"
            )
    pool = ThreadPoolExecutor()
    try:
        for checked in [pool.submit(_check, folder / name, files[name], reread) for name in files]:
            checked.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _check(path: Path, expected: str, reread: bool) -> None:
    mark = _mark(path, expected)
    if not reread and mark is not None and mark.exists():
        return
    found = sha256(path)
    if mark is not None:
        with suppress(OSError):  # costs time on the next run, nothing else
            if found == expected:
                mark.touch()
            else:
                mark.unlink(missing_ok=True)
    if found != expected:
        raise BundleError(f"{path}: sha256 {found[:12]}, {FILE} says {expected[:12]}: damaged; copy or export it again")


def _mark(path: Path, expected: str) -> Path | None:
    """What lies in the cache once a file is known as it is; None where nothing can, or a change would not show."""
    found = path.stat()
    if os.name != "posix" or time.time() - found.st_ctime < SETTLED:
        return None
    facts = [str(path.resolve()), expected, found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino]
    try:
        folder = own_folder("intact")
    except (OSError, RuntimeError):  # no home
        return None
    usable = os.access(folder, os.R_OK | os.W_OK | os.X_OK)
    return folder / key_of(facts) if usable else None
