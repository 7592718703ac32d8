"""What can stop a run, each with its exit code."""


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


class DiskError(ScannerError):
    """A folder cannot be written: full, read-only or somebody else's."""

    exit_code = 4


DISK_FULL = ("os error 28", "StorageFull", "[Errno 28]")  # how Rust libraries and Python say it
DISK_CLOSED = (
    "os error 30",
    "os error 13",
    "[Errno 30]",
    "[Errno 13]",
    "ReadOnlyFilesystem",
    "PermissionDenied",
    "Could not create local directory",
)


def disk_full(where: object, error: BaseException) -> DiskError | None:
    """The refusal if `error`, of whatever library, says that a disk is full; else None."""
    if any(words in str(error) for words in DISK_FULL):
        return DiskError(f"{where}: no space left on that disk: make room or name another folder, then run again")
    return None


def disk_error(where: object, error: BaseException) -> DiskError | None:
    """The refusal if `error`, of whatever library, comes from a folder that cannot be written; else None."""
    if full := disk_full(where, error):
        return full
    if any(words in str(error) for words in DISK_CLOSED):
        return DiskError(f"{where}: cannot be written ({first_line(error)}): name a folder that is yours to write")
    return None


def first_line(error: BaseException) -> str:
    """What a library said, without its stack trace."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def printable(text: str) -> str:
    """A caption or name that cannot move the cursor, colour the terminal or end a line: such characters as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
