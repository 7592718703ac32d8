"""Folders that killed writers of the first editions left: they locked nothing, so nobody's lock tells whose they are.

One goes only if all of this holds: it is named, owned and closed to others as Python's tempfile makes folders, holds
nothing but the files that such a writer writes, has not changed for a day (also a writer on another machine, or in
another container, would have changed it by then), and every process of this user that may be its writer began later.
Without Linux's /proc nobody knows that, and it stays.
"""

import os
import re
import shutil
import stat
import time
from contextlib import suppress
from pathlib import Path

NAME = re.compile(r"[a-z0-9_]{8}")  # tempfile's
QUIET = 86_400.0  # seconds
RUNTIMES = re.compile(rb"polars|onnxruntime|openvino|torch")  # one is mapped in every process that writes such folders
PROC = Path("/proc")


def sweep_unlocked(parent: Path, start: str, files: re.Pattern[str]) -> None:
    """Remove the folders in `parent` that are named `start` and eight characters, of files of these names alone."""
    with suppress(OSError):  # a folder that cannot be listed
        for left in [item for item in parent.iterdir() if item.name.startswith(start)]:
            if NAME.fullmatch(left.name.removeprefix(start)):
                with suppress(OSError):
                    _remove(left, files)


def _remove(folder: Path, files: re.Pattern[str]) -> None:
    """Raises OSError where something cannot be looked at."""
    made = folder.lstat()
    if not stat.S_ISDIR(made.st_mode) or made.st_uid != os.getuid() or stat.S_IMODE(made.st_mode) != 0o700:
        return
    changed = made.st_mtime
    for path in folder.rglob("*"):
        found = path.lstat()
        if not stat.S_ISDIR(found.st_mode) and not (stat.S_ISREG(found.st_mode) and files.fullmatch(path.name)):
            return
        changed = max(changed, found.st_mtime)
    if time.time() - changed > QUIET and PROC.joinpath("stat").is_file() and not _may_have_a_writer(changed):
        shutil.rmtree(folder)


def _may_have_a_writer(changed: float) -> bool:
    """Whether a living process of this user that began before that time has a runtime of ours."""
    booted = next(
        int(line.split()[1]) for line in (PROC / "stat").read_text("ascii").splitlines() if line[:6] == "btime "
    )
    for process in PROC.glob("[0-9]*"):
        with suppress(OSError):  # it has ended
            ticks = int((process / "stat").read_text("utf-8", "replace").rpartition(")")[2].split()[19])
            began = booted + ticks / os.sysconf("SC_CLK_TCK")
            if process.stat().st_uid == os.getuid() and began < changed and _has_runtime(process):
                return True
    return False


def _has_runtime(process: Path) -> bool:
    try:
        return RUNTIMES.search((process / "maps").read_bytes()) is not None
    except PermissionError:  # it hides what it holds, but not what it is
        return re.search(rb"python|overscan", (process / "cmdline").read_bytes()) is not None
