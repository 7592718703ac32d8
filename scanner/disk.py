"""Local disks: what is a place on one, folders for work files, and what is wrong where something cannot be written."""

import errno
import math
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from engines.left_behind import sweep_unlocked
from engines.partial import partial_folder, prefix, sweep
from scanner.errors import DiskError, ScannerError, disk_error, errno_of, first_line

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

WORK = "overscan-work-"  # how folders of work files begin, in the temporary directory
FIRST_WORK, WORK_FILES = "overscan-", re.compile(r".+\.parquet")  # of the first editions
URL = re.compile(r"\s*[A-Za-z][A-Za-z0-9+.-]+:/")  # also as pathlib leaves it; one letter is a drive of Windows
TRIED = 65_536  # bytes
HERE_INSTEAD = "name a local path, and copy from or to there"


def local(place: str | Path, remedy: str = HERE_INSTEAD) -> Path:
    """The place as a path. Raises ScannerError for a URL, of which pathlib would make a folder `s3:`."""
    if URL.match(str(place)):
        raise ScannerError(f"{place}: a URL, and a local path is needed here: {remedy}")
    return Path(place)


@contextmanager
def work_folder() -> Iterator[Path]:
    """A folder for work files in the temporary directory, gone afterwards; those that killed runs left go first.

    Nobody but its user can read it: captions lie in it. Raises DiskError where there is no room for it.
    """
    try:
        parent = Path(tempfile.gettempdir())
    except FileNotFoundError as error:  # it has tried several
        raise DiskError(f"no folder for work files ({first_line(error)}): set TMPDIR to one that has room") from error
    sweep(parent, WORK)
    sweep_unlocked(parent, FIRST_WORK, WORK_FILES)
    with ExitStack() as stack:
        with work_files(parent):
            folder = stack.enter_context(partial_folder(parent, WORK, 0o700))
        yield folder


@contextmanager
def work_files(folder: Path) -> Iterator[None]:
    """Blame what only writing can suffer from on the work files, and not on what they are made from: DiskError."""
    try:
        yield
    except ScannerError:
        raise
    except BaseException as error:  # that of a Rust library's panic, too
        where = f"{folder} (work files: TMPDIR says where)"
        said = disk_error(where, error, only_writing=True) or _tried(where, folder, error)
        if said is not None:
            raise said from error
        raise


def refuses_links(folder: Path) -> bool:
    """Whether the disk of a folder has no hard links, tried and not guessed. False where nothing can be tried."""
    try:
        with partial_folder(folder, prefix(folder)) as tried:
            (tried / "one").touch()
            try:
                (tried / "two").hardlink_to(tried / "one")
            except OSError:
                return True
    except OSError:
        return False
    return False


@contextmanager
def writing(path: Path, partial: Path | None = None) -> Iterator[None]:
    """Say what is wrong with the disk where `path` is written, in the folder `partial` so far: DiskError."""
    try:
        yield
    except ScannerError:
        raise
    except BaseException as error:
        if said := disk_error(path, error) or (partial and _tried(path, partial, error)):
            raise said from error
        raise


def _tried(where: object, folder: Path, error: BaseException) -> DiskError | None:
    """The refusal if the folder that was written to takes no more: libraries may fail there without saying why."""
    if not isinstance(error, Exception) or errno_of(error) is not None:
        return None
    try:
        if any(file.stat().st_size >= _largest() for file in folder.rglob("*")):
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(TRIED))
    except OSError as found:
        return disk_error(where, found, only_writing=True)
    return None


def _largest() -> float:
    """Bytes of the largest file that this process may write."""
    if resource is None:
        return math.inf
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    return math.inf if limit == resource.RLIM_INFINITY else limit
