"""What happens where stdout or stderr cannot be written: a full disk behind them, a closed terminal, a closed handle.

Words for people on stderr may be lost: there is nowhere to say so, the work is what was asked for, and its exit code
tells of it. Data on stdout may not: that is OutputError, once the work is done and kept.
"""

import codecs
import errno
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO, cast

from scanner.errors import ScannerError


class OutputError(ScannerError):
    """The data for stdout found no room there."""

    exit_code = 4


class _Stream:
    """A text stream whose failed writes are dropped, or raised as OutputError."""

    def __init__(self, stream: TextIO, needed: bool):
        self._stream, self._needed = stream, needed

    def write(self, text: str) -> int:
        """Write, or drop. Nothing is not written: click tries streams so, and takes any failure for another reason."""
        if text or not isinstance(text, str):
            with self._told():
                self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush, or drop."""
        with self._told():
            self._stream.flush()

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError:  # `| head`: click ends the program quietly
            _to_nowhere(self._stream)
            if self._needed:
                raise
        except OSError as error:
            _to_nowhere(self._stream)
            if self._needed:
                raise OutputError(
                    f"stdout cannot be written ({error.strerror}): the work is done and kept, but not what stdout "
                    "was to say: give it room, and run the same command again"
                ) from error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _to_nowhere(stream: TextIO) -> None:
    """Send what comes next, and what is left in buffers, to where it can be written: Python flushes at its end, too."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
    with suppress(OSError, ValueError):
        stream.flush()


@contextmanager
def guarded() -> Iterator[None]:
    """Both streams as this module has them, flushed at the end. Raises OutputError."""
    _open_closed()
    before = sys.stdout, sys.stderr
    out, err = (_nowhere() if stream is None else _of_captions(stream) for stream in before)
    sys.stdout = cast(TextIO, _Stream(out, needed=True))
    sys.stderr = cast(TextIO, _Stream(err, needed=False))
    try:
        yield
        with suppress(BrokenPipeError):
            sys.stdout.flush()
    finally:
        sys.stdout, sys.stderr = before


def _open_closed() -> None:
    """Occupy closed handles (`2>&-`): the next file opened, a store's, would get their numbers, and the messages."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError as error:
            if error.errno == errno.EBADF:
                os.open(os.devnull, os.O_RDWR)  # the lowest free number


def _of_captions(stream: TextIO) -> TextIO:
    """The stream in UTF-8 where it is in ASCII, which holds no captions: click would write past this module there."""
    if isinstance(stream, io.TextIOWrapper) and codecs.lookup(stream.encoding).name == "ascii":
        stream.reconfigure(encoding="utf-8", errors="replace")
    return stream


def _nowhere() -> TextIO:
    return open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123 (for as long as the program runs)
