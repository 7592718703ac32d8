"""Where what can be made again is kept."""

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from stat import S_ISDIR

from engines.partial import locked


def cache_folder() -> Path:
    """$XDG_CACHE_HOME/overscan, or ~/.cache/overscan."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "overscan"


def key_of(facts: Sequence[object]) -> str:
    """blake2b-128 of facts that JSON can hold: a name for what depends on all of them."""
    return hashlib.blake2b(json.dumps(facts, sort_keys=True).encode(), digest_size=16).hexdigest()


@contextmanager
def making(path: Path) -> Iterator[None]:
    """Keep other processes of this machine that would make the same file waiting: they find it made."""
    lock = path.with_name(f"{path.name}.lock")
    with suppress(OSError):  # where nothing can be written, each makes its own
        lock.touch(mode=0o600)
    with locked(lock):
        yield


def own_folder(name: str) -> Path:
    """A folder of the cache with mode 0700, made: for what runs with the user's rights once it is read back.

    Raises OSError where it cannot be made, PermissionError where it is a link or no folder, or where another user owns
    it or may read or write it.
    """
    folder = cache_folder() / name
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    found = folder.lstat()
    mode = found.st_mode & 0o777
    if not S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or mode & 0o077:
        kind = "a folder" if S_ISDIR(found.st_mode) else "no folder"
        raise PermissionError(f"{folder}: {kind} of user {found.st_uid} with mode {mode:04o}")
    return folder
