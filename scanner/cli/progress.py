"""Progress of long work, on stderr: a bar on a terminal, elsewhere a line now and then; both with the time left."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from scanner.diffusion.start import Watch

PLAIN_SECONDS = 10.0  # between progress lines where there is no terminal
UNITS: Mapping[str, str] = {  # what the parts of the work count; the others are start-up, whose speed tells nobody
    "captions": "rows",
    "scan": "prompts",
    "explain": "captions",
    "images": "prompts",
    "encode images": "images",
    "verify": "steps",
    "generate": "prompts",
    "evaluate": "prompts",
    "peers": "prompts",
    "ordinary runs": "prompts",
    "whole runs": "prompts",
    "text alone": "prompts",
}

err_console = Console(stderr=True)


def duration(seconds: float) -> str:
    """Seconds, minutes or hours, whichever reads best."""
    unit, size = next(((unit, size) for unit, size in (("h", 3600), ("min", 60)) if seconds >= size), ("s", 1))
    return f"{seconds / size:.1f} {unit}"


class Pace:
    """How fast a part of the work goes, and so how long it still takes: by all that was done since it began.

    What was done before it was first heard of, as of resumed work, costs no time and does not count.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock, self._what, self._done = clock, "", 0
        self._began, self._before = clock(), 0

    def __call__(self, what: str, done: int, total: int) -> str:
        """Speed and time left in words, or nothing while there is nothing to tell it by."""
        now = self._clock()
        if what != self._what or done < self._done:  # a screened scan goes over its captions twice
            self._began, self._before = now, done
        self._what, self._done = what, done
        made, gone = done - self._before, now - self._began
        if made <= 0 or gone <= 0:
            return ""
        speed, unit = made / gone, UNITS.get(what)
        words = [] if unit is None else [f"{speed:,.1f} {unit}/s"]
        return ", ".join(words + ([f"{duration((total - done) / speed)} left"] if done < total else []))


@contextmanager
def progress() -> Iterator[Watch]:
    """A Watch that shows what it hears."""
    yield from _bar() if err_console.is_terminal else _lines()


def _bar() -> Iterator[Watch]:
    pace, columns = Pace(), (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TextColumn("{task.fields[pace]}"), console=err_console) as bar:
        shown, task = "", bar.add_task("", total=None, pace="")

        def show(what: str, done: int, total: int) -> None:
            nonlocal shown, task
            if what != shown:  # a bar's total cannot become unknown again
                bar.remove_task(task)
                shown, task = what, bar.add_task(what, total=total or None, pace="")
            bar.update(task, completed=done, total=total or None, pace=pace(what, done, total))

        yield show


def _lines() -> Iterator[Watch]:
    pace, last = Pace(), time.monotonic()

    def line(what: str, done: int, total: int) -> None:
        nonlocal last
        words, now = pace(what, done, total), time.monotonic()
        if now - last >= PLAIN_SECONDS:
            last = now
            click.echo(f"{what}: {done:,}{f'/{total:,}' if total else ''}{words and ', '}{words}", err=True)

    yield line
