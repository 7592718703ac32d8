"""Files and folders that appear whole or not at all.

What is written lies first in a hidden folder of `engines.partial`, `.NAME.partial-XXXXXXXX` beside its place, which its
writer keeps locked as long as it lives: the next writer to the same place removes those that nobody holds.
"""

import ctypes
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from engines.partial import locked, partial_folder, prefix, sweep
from scanner.disk import local, writing

READY = ".ready"  # in a folder: its next edition, whole, whose files are being put into place
NAMES = ".names"  # in that one, a line each: files to put into place (+) and former ones to remove (-)
EXCHANGE = 2  # RENAME_EXCHANGE of Linux and RENAME_SWAP of macOS
HERE = -100  # AT_FDCWD of Linux


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a path to write to, beside `path`, whose folder it makes; when written, it takes the place of `path`.

    Several processes may do so at once: the last one's file stays. What fails leaves `path` as it was.
    """
    local(path)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        sweep(path.parent, prefix(path))
        with partial_folder(path.parent, prefix(path)) as folder:
            partial = folder / path.name
            with writing(path, folder):
                yield partial
            partial.replace(path)


@contextmanager
def replacing_folder(out: Path, ours: Callable[[str], bool]) -> Iterator[Path]:
    """Yield an empty folder to write to; when written, its files take the place of all of `ours` in `out`, together.

    `ours`: whether an entry of that name is of the kind that is written; all others in `out` stay as they are.
    What fails leaves `out` as it was; of several processes at once, the last one's files stay. A writer may be killed
    at any moment:

    - Linux and macOS exchange the two folders: who looks finds the files of before or those of after.
    - A folder that cannot be exchanged (of another system; a mount; in a closed folder; with folders of others in it;
      the working directory) gets its files one by one, after all were written. Who is killed between two of them leaves
      READY, from which the next writer, and every reader by `reading`, puts the rest into place first.
    """
    asked, out = out, local(out).resolve()
    with writing(asked):
        out.parent.mkdir(parents=True, exist_ok=True)
        sweep(out.parent, prefix(out))
        if out.is_dir():
            settle(out)
            sweep(out, prefix(out))
        inside = not _exchangeable(out, ours)
        if inside:
            out.mkdir(exist_ok=True)
        with partial_folder(out if inside else out.parent, prefix(out)) as partial:
            with writing(asked, partial):
                yield partial
            if inside or not _exchange(partial, out, ours):
                _put(partial, out, ours)


@contextmanager
def reading(folder: Path) -> Iterator[None]:
    """Finish a folder of `replacing_folder` that is READY, and keep its writers waiting while it is read."""
    settle(folder)
    with locked(folder, exclusive=False):
        yield


def settle(folder: Path) -> None:
    """Finish a folder that is READY, if it is. Raises OSError where that cannot be done."""
    if (folder / READY).is_dir():
        with locked(folder):
            _place(folder)


def _exchangeable(out: Path, ours: Callable[[str], bool]) -> bool:
    """Whether another folder can take the place of `out`, which may not be there yet, without harm to others."""
    if not os.access(out.parent, os.W_OK):
        return False
    if not out.exists():
        return True
    if os.path.ismount(out) or Path.cwd().is_relative_to(out):
        return False
    return not any(item.is_dir() and not ours(item.name) for item in out.iterdir())


def _exchange(partial: Path, out: Path, ours: Callable[[str], bool]) -> bool:
    """Put the written folder into the place of `out` at once; false where the system or the folder refuses."""
    with suppress(OSError):
        partial.rename(out)  # where there is none yet, or an empty one
        return True
    with locked(out):
        others = [item.name for item in out.iterdir() if not ours(item.name)]
        try:
            for name in others:
                os.link(out / name, partial / name, follow_symlinks=False)
            _like(partial, out)
            _exchange_names(partial, out)
        except OSError:
            for name in others:
                (partial / name).unlink(missing_ok=True)
            return False
        for item in partial.iterdir():  # what others wrote there meanwhile
            kept = out / item.name
            if not ours(item.name) and not (kept.exists() and kept.samefile(item)):
                item.replace(kept)
    return True


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Keep others who ask the same waiting, while a file in the folder is read and written again."""
    with locked(folder):
        yield


def _like(folder: Path, other: Path) -> None:
    """Give a folder the mode and the owner of another. Raises OSError where it may not."""
    shutil.copystat(other, folder)
    owner = other.stat()
    if (owner.st_uid, owner.st_gid) != (folder.stat().st_uid, folder.stat().st_gid):
        os.chown(folder, owner.st_uid, owner.st_gid)


def _exchange_names(first: Path, second: Path) -> None:
    """Exchange two folders of one file system at once. Raises OSError where that is not to be had."""
    names = os.fsencode(first), os.fsencode(second)
    if sys.platform == "win32":
        raise OSError("Windows exchanges no folders")
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        failed = (
            libc.renamex_np(*names, EXCHANGE)
            if sys.platform == "darwin"
            else libc.renameat2(HERE, names[0], HERE, names[1], EXCHANGE)
        )
    except AttributeError as error:
        raise OSError(f"this system exchanges no folders ({error})") from error
    if failed:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(second))


def _put(partial: Path, out: Path, ours: Callable[[str], bool]) -> None:
    """Put the files of a written folder into `out` one by one; once it is READY, nothing can take them back."""
    names = sorted(item.name for item in partial.iterdir())
    stale = sorted(item.name for item in out.iterdir() if ours(item.name) and item.name not in names)
    lines = [f"+{name}\n" for name in names] + [f"-{name}\n" for name in stale]
    (partial / NAMES).write_text("".join(lines))
    with locked(out):
        _place(out)  # another writer's, who was killed
        partial.rename(out / READY)
        _place(out)


def _place(out: Path) -> None:
    """Finish a folder that is READY, if it is."""
    ready = out / READY
    if (ready / NAMES).exists():
        for line in (ready / NAMES).read_text(encoding="utf-8").splitlines():
            sign, name = line[0], line[1:]
            if sign == "-" or (ready / name).is_dir():
                _remove(out / name)
            if (ready / name).exists():
                (ready / name).replace(out / name)
    _remove(ready)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
