"""Lines of progress from the phases of a long build, as TensorRT tells of them."""

import threading
import time
from collections.abc import Callable

SECONDS = 10.0  # between two lines


class BuildProgress:
    """Hears of phases, which nest, and of their steps, from several threads; `report` gets a line now and then.

    `stopped`: whether a KeyboardInterrupt came while it was hearing. It must not reach the library, whose code knows no
    exceptions; `step` tells the library to give up.
    """

    def __init__(self, title: str, report: Callable[[str], None], clock: Callable[[], float] = time.monotonic):
        self.stopped = False
        self._title, self._report, self._clock = title, report, clock
        self._phases: dict[str, tuple[str | None, int, int]] = {}  # name: parent, steps done, steps
        self._lock = threading.Lock()
        self._began = self._told = clock()
        report(f"{title}: begun")

    def begin(self, phase: str, parent: str | None, steps: int) -> None:
        """A phase of so many steps begins, inside `parent`."""
        with self._lock:
            self._phases[phase] = (parent, 0, steps)

    def step(self, phase: str, step: int) -> bool:
        """Step number `step`, from 0, is done. Returns whether to go on."""
        try:
            with self._lock:
                if phase in self._phases:
                    parent, _, steps = self._phases[phase]
                    self._phases[phase] = (parent, step + 1, steps)
                self._tell()
        except KeyboardInterrupt:
            self.stopped = True
        return not self.stopped

    def end(self, phase: str) -> None:
        """A phase is over, whether or not all of its steps were done."""
        with self._lock:
            self._phases.pop(phase, None)

    def done(self) -> None:
        """The build is over."""
        self._report(f"{self._title}: done in {self._clock() - self._began:.0f} s")

    def _tell(self) -> None:
        now = self._clock()
        if now - self._told >= SECONDS:
            self._told = now
            said = ", ".join(f"{name} {done}/{steps}" for name, (_, done, steps) in self._phases.items())
            self._report(f"{self._title}: {now - self._began:.0f} s, {said}")
