"""SIGINT, SIGTERM and SIGHUP (a closed terminal): the first asks a scan to stop after the batch in hand.

A second SIGINT or SIGTERM ends the process at once. A second SIGHUP does not: shell and system both send one.
"""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import click

from scanner.errors import Interrupted

HANG_UP = getattr(signal, "SIGHUP", None)  # Windows has none


def heeded() -> list[signal.Signals]:
    """The signals that ask to stop: SIGHUP not where it is ignored, as under nohup."""
    hang_up = [] if HANG_UP is None or signal.getsignal(HANG_UP) is signal.SIG_IGN else [HANG_UP]
    return [signal.SIGINT, signal.SIGTERM, *hang_up]


def interruptible() -> None:
    """SIGTERM and SIGHUP end every command in order, as Ctrl-C does."""
    for number in heeded():
        if number != signal.SIGINT:
            signal.signal(number, _end)


def _end(number: int, frame: FrameType | None) -> None:
    if number == HANG_UP:
        signal.signal(number, signal.SIG_IGN)  # its second shall not end the first one's tidying
    raise KeyboardInterrupt


@contextmanager
def stoppable() -> Iterator[Callable[[], bool]]:
    """Yield whether a signal has asked to stop.

    A thread hears of signals through a pipe, so that a second one works even while an engine's long native call keeps
    Python from running handlers. Commits are atomic: ending at once loses nothing committed.
    """
    asked, signals = threading.Event(), heeded()
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)

    def listen() -> None:
        hurried = False
        while heard := os.read(read_end, 1):
            if heard[0] not in signals:
                continue
            if heard[0] != HANG_UP:
                if hurried:
                    os._exit(Interrupted.exit_code)
                hurried = True
            if not asked.is_set():
                asked.set()
                click.echo("stopping after the batch in hand; once more to stop at once", err=True)

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    previous_pipe = signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
    previous = {number: signal.signal(number, lambda *_: None) for number in signals}
    try:
        yield asked.is_set
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(previous_pipe)
        os.close(write_end)
        listener.join()
        os.close(read_end)
