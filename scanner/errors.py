"""What can stop a run, each with its exit code."""

import errno
import re
from collections.abc import Iterator, Mapping


class ScannerError(Exception):
    """A bad run: what was found, what was needed, where, and what to do next.

    >>> ScanConfig(seeds=(0, 0))
    Traceback (most recent call last):
        ...
    scanner.errors.ScannerError: seeds (0, 0): needed one or more different numbers from 0 up
    """

    exit_code = 2


class InputError(ScannerError):
    """The captions cannot be read as asked."""


class ConfigError(ScannerError):
    """A configuration file cannot be read, or says something that no command knows."""


class StoreError(ScannerError):
    """The store is not ours, is damaged, or does not hold what was asked."""


class ModelError(ScannerError):
    """A bundle describes a model that this overscan does not know, or does so incompletely."""

    exit_code = 4


class Interrupted(ScannerError):  # noqa: N818 (it is no error)
    """Stopped when asked to; what was computed is committed."""

    exit_code = 3


class PlaceError(ScannerError):
    """A place that is not there, or of a kind that nothing is kept at."""


class RemoteError(ScannerError):
    """An object store refuses, or cannot be reached."""

    exit_code = 4


class DiskError(ScannerError):
    """A folder cannot be written: full, read-only or somebody else's."""

    exit_code = 4


SAID = re.compile(r"(?:os error |\[Errno )(\d+)")  # how Rust libraries and Python put the system's number in words
WORDS = {  # of Rust libraries that do not tell the number
    "StorageFull": errno.ENOSPC,
    "QuotaExceeded": errno.EDQUOT,
    "FileTooLarge": errno.EFBIG,
    "ReadOnlyFilesystem": errno.EROFS,
    "PermissionDenied": errno.EACCES,
    "Could not create local directory": errno.EACCES,
}
WRITING: Mapping[int, str] = {  # only what is written meets these
    errno.ENOSPC: "no space left on that disk: make room or name another folder, then run again",
    errno.EDQUOT: "the disk quota is used up: make room or name another folder, then run again",
    errno.EFBIG: "a file there grew to the limit for one file (`ulimit -f`, or the file system's): raise it or name "
    "another folder, then run again",
    errno.EROFS: "cannot be written ({said}): name a folder that is yours to write",
}
ANY: Mapping[int, str] = {
    errno.EACCES: "cannot be written ({said}): name a folder that is yours to write",
    errno.EPERM: "cannot be written ({said}): name a folder that is yours to write",
    errno.EMFILE: "this process may not open more files ({said}): raise `ulimit -n`, then run again",
    errno.ENFILE: "this machine may not open more files ({said}): end other programs, then run again",
    errno.EIO: "the disk does not work ({said}): look at the system's log, or name a folder on another disk",
    errno.ESTALE: "the network disk has lost this folder ({said}): mount it again, then run again",
}


def errno_of(error: BaseException) -> int | None:
    """The system's error number in an exception of whatever library, or in what led to it."""
    for seen in chain(error):
        if isinstance(seen, OSError) and seen.errno is not None:
            return seen.errno
        if found := SAID.findall(str(seen)):
            return int(found[-1])  # the innermost
        for words, number in WORDS.items():
            if words in str(seen):
                return number
    return None


def chain(error: BaseException) -> Iterator[BaseException]:
    """An exception and what led to it, each once: Polars' may lead to themselves."""
    seen: list[BaseException] = []
    found: BaseException | None = error
    while found is not None and found not in seen:
        yield found
        seen.append(found)
        found = found.__cause__ or found.__context__


def disk_error(where: object, error: BaseException, only_writing: bool = False) -> DiskError | None:
    """The refusal if `error`, of whatever library, comes from a disk or a folder; else None.

    `only_writing`: only what cannot come from reading, where one thing was read and another written.
    """
    said = (WRITING if only_writing else {**ANY, **WRITING}).get(errno_of(error) or 0)
    return None if said is None else DiskError(f"{where}: {said.format(said=first_line(error))}")


def first_line(error: BaseException) -> str:
    """What a library said, without its stack trace."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def printable(text: str) -> str:
    """A caption or name that cannot move the cursor, colour the terminal or end a line: such characters as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
