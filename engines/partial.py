"""Hidden folders that are written to before what is in them takes its place, locked as long as their writer lives.

The next writer removes those that nobody holds. Who owns one is known by the lock alone, never by its age: a folder
of a living process stays, also another user's, another machine's (where the file system tells of its locks) and one of
a program that locks nothing. On a system without locks of folders (Windows), what a killed writer left has to be
removed by hand. What first editions left, which locked nothing, is for `engines.left_behind`.
"""

import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

NAME = re.compile(r"[0-9a-f]{8}")  # what follows the prefix: other folders that begin alike are none of ours


def prefix(path: Path) -> str:
    """How the folders begin that lie beside `path` until they, or a file in them, take its place."""
    return f".{path.name}.partial-"


@contextmanager
def partial_folder(parent: Path, start: str, mode: int = 0o777) -> Iterator[Path]:
    """A new folder in `parent`, named `start` and eight digits, locked, that is gone afterwards unless it was moved."""
    while True:
        folder = parent / f"{start}{secrets.token_hex(4)}"
        folder.mkdir(mode)
        with locked(folder) as mine:
            if not mine:  # taken for one that nobody holds, before it was locked
                continue
            try:
                yield folder
            finally:
                shutil.rmtree(folder, ignore_errors=True)  # what failed must not be hidden
            return


def sweep(parent: Path, start: str) -> None:
    """Remove what killed writers of this user left in `parent`."""
    if fcntl is None:
        return
    with suppress(OSError):  # a folder that cannot be listed
        for left in [item for item in parent.iterdir() if item.name.startswith(start)]:
            if NAME.fullmatch(left.name.removeprefix(start)):
                with suppress(OSError):
                    _remove_unowned(left)


def _remove_unowned(folder: Path) -> None:
    """Raises OSError where it is no folder of this user, or a living process holds it."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        if os.fstat(handle).st_uid != os.getuid():
            return
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)  # a living writer holds it: BlockingIOError
        shutil.rmtree(folder)
    finally:
        os.close(handle)


@contextmanager
def locked(folder: Path, exclusive: bool = True) -> Iterator[bool]:
    """Hold a folder's lock, waiting for it; false where there is no such folder. Where there are no locks, all do."""
    if fcntl is None:
        yield folder.is_dir()
        return
    handle = _lock(folder, fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH)
    try:
        yield handle is not None
    finally:
        if handle is not None:
            os.close(handle)


def _lock(folder: Path, kind: int) -> int | None:
    """A handle of the folder at this path that holds its lock, until it is closed."""
    while True:
        try:
            handle = os.open(folder, os.O_RDONLY)
        except FileNotFoundError:
            return None
        with suppress(OSError):  # a file system without locks
            fcntl.flock(handle, kind)
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(handle), folder.stat()):
                return handle
        os.close(handle)  # another folder has taken its place while this process waited
