"""The formats of inputs by their names, what a search for them found, and why one cannot be read."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from scanner.errors import InputError, PlaceError, RemoteError, ScannerError, chain, printable
from scanner.places import unread

PACKED = (".gz", ".zst", ".bz2", ".xz", ".lz4", ".zip", ".7z")
IMAGES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif", ".jxl", ".heic")
DELTA = "Delta table"  # the format of a folder
BESIDE = ".caption"  # the format of a text that is one caption, as trainers keep it beside an image


@dataclass
class Found:
    """`files`: path or URL -> its format, in order, each once; `walked`: those that a folder was searched for.

    `passed_over`: what a folder holds that is no dataset, and why; `refused`: what cannot be read as it should be.
    """

    files: dict[str, str] = field(default_factory=dict)
    walked: set[str] = field(default_factory=set)
    passed_over: dict[str, str] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.files or self.refused)


def suffix(source: str, known: Sequence[str]) -> str:
    """The longest known suffix of a file's name. Raises InputError where there is none."""
    name = source.rpartition("/")[2].lower()
    fitting = [end for end in known if name.endswith(end)]
    if fitting:
        return max(fitting, key=len)
    what = Path(name).suffix
    if is_known(name, known):
        raise InputError(f"{printable(source)}: packed as {what}; needed one of {named(known)}: unpack it")
    raise InputError(f"{printable(source)}: format {printable(what) or 'without suffix'}; needed one of {named(known)}")


def named(known: Sequence[str]) -> str:
    """The formats in words."""
    plain = ", ".join(end for end in known if not end.endswith(PACKED))
    return f"{plain} (text also .gz, .zst)"


def is_known(name: str, known: Sequence[str]) -> bool:
    """Whether a file is of a known format, or would be if it were not packed in a way that cannot be streamed."""
    lower = name.lower()
    return lower.endswith(tuple(known)) or (lower.endswith(PACKED) and Path(lower).stem.endswith(tuple(known)))


def shown(file: str) -> str:
    """A path as text; bytes of it that are no UTF-8 as escapes."""
    return file if file.isascii() else file.encode(errors="surrogateescape").decode(errors="backslashreplace")


def unreadable(what: str, error: BaseException) -> ScannerError:
    """The error for a file that the reader gave up on; an InputError says it already.

    An object store that refuses or cannot be reached is none of the file's: RemoteError, as its other files fare alike.
    """
    if known := next((found for found in chain(error) if isinstance(found, RemoteError | PlaceError)), None):
        return known
    if of_store := unread(what, error):
        return of_store
    if isinstance(error, InputError):
        return error
    reason = (str(error).splitlines() or [type(error).__name__])[0][:200] or type(error).__name__
    return InputError(f"{printable(what)}: cannot be read ({printable(reason)}): repair or leave out the file")
