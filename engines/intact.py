"""Whether a bundle's files are what its manifest says; gigabytes that were found intact need not be read every night.

Remembered is all that a system changes with a file: its size, times, inode. A disk that loses bytes changes none of it:
that `overscan doctor` finds, which reads every file, and a scan's canaries, whose scores are no longer those of before.
"""

import hashlib
import json
import os
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from engines.cache import own_folder
from engines.interface import BundleError
from engines.manifest import FILE, sha256

SETTLED = 2.0  # seconds after a change, from which another one changes a file's times on any file system


def check_files(folder: Path, files: Mapping[str, str], again: bool = True) -> None:
    """Compare a bundle's files, by name, with their sha256; `again`: also those that were found intact before.

    Raises BundleError where one is missing, lies elsewhere or differs.
    """
    with ThreadPoolExecutor() as pool:
        for checked in [pool.submit(_check, folder, name, expected, again) for name, expected in files.items()]:
            checked.result()


def _check(folder: Path, name: str, expected: str, again: bool) -> None:
    path = folder / name
    if Path(name).name != name:
        raise BundleError(f"{folder / FILE}: file {name!r} lies outside the bundle: do not use this bundle")
    if not path.is_file():
        raise BundleError(f"{path}: missing, though {FILE} names it: copy the whole bundle, or export again")
    mark = _mark(path, expected)
    if not again and mark is not None and mark.exists():
        return
    if (found := sha256(path)) != expected:
        raise BundleError(f"{path}: sha256 {found[:12]}, {FILE} says {expected[:12]}: damaged; copy or export it again")
    if mark is not None:
        with suppress(OSError):  # costs time on the next run, nothing else
            mark.touch()


def _mark(path: Path, expected: str) -> Path | None:
    """What lies in the cache once a file is known as it is now; None where it may change and not show it."""
    found = path.stat()
    if os.name != "posix" or time.time() - found.st_ctime < SETTLED:
        return None
    facts = [str(path.resolve()), expected, found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino]
    try:
        return own_folder("intact") / hashlib.blake2b(json.dumps(facts).encode(), digest_size=16).hexdigest()
    except OSError:
        return None
