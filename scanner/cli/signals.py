"""SIGINT and SIGTERM: the first asks a scan to stop after the batch in hand, the second ends the process at once."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

from scanner.errors import Interrupted

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def stoppable() -> Iterator[Callable[[], bool]]:
    """Yield whether a signal has asked to stop.

    A thread hears of signals through a pipe, so that a second one works even while an engine's long native call keeps
    Python from running handlers. Commits are atomic: ending at once loses nothing committed.
    """
    asked = threading.Event()
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)

    def listen() -> None:
        while heard := os.read(read_end, 1):
            if heard[0] not in SIGNALS:
                continue
            if asked.is_set():
                os._exit(Interrupted.exit_code)
            asked.set()
            click.echo("stopping after the batch in hand; once more to stop at once", err=True)

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    previous_pipe = signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
    previous = {number: signal.signal(number, lambda *_: None) for number in SIGNALS}
    try:
        yield asked.is_set
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(previous_pipe)
        os.close(write_end)
        listener.join()
        os.close(read_end)
