"""Ending what comes before the first prompt, when asked to."""

from collections.abc import Callable

from scanner.diffusion.start import Watch
from scanner.errors import Interrupted


def stopping(watch: Watch, stop: Callable[[], bool]) -> Watch:
    """The watch, which raises Interrupted once `stop()` is true."""

    def watched(what: str, done: int, total: int) -> None:
        if stop():
            raise Interrupted(
                "interrupted while preparing, before this pass scored anything; what is committed stays: run it again"
            )
        watch(what, done, total)

    return watched
