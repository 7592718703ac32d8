"""Options of a screened scan's first pass."""

from collections.abc import Callable
from typing import Any

import click

from scanner.cli.options import PRECISION, TIMESTEPS
from scanner.cli.places import FILE, MODEL
from scanner.cli.scores import ScoreName
from scanner.config import AutoScreen, Screen
from scanner.diffusion.scores import FIRST_PASS_SCORES
from scanner.errors import ScannerError

AUTO = "auto"


class Share(click.types.FloatParamType):
    """A number, or AUTO."""

    name = "share"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The number, or AUTO."""
        return AUTO if value == AUTO else super().convert(value, param, ctx)


NAMES = ("keep", "curves", "score", "told", "model", "precision", "sample")  # of the options, after --screen-
SCREEN_OPTIONS = (
    click.option(
        "--screen", type=Share(), metavar="SHARE|auto", help="All passes only for this share, highest after one pass."
    ),
    click.option(
        "--screen-keep",
        type=float,
        metavar="SHARE",
        help="With auto: of what all passes find, what the screen shall keep.  [default: 0.99]",
    ),
    click.option("--screen-curves", type=FILE, help="With auto: what screens keep, by evaluate --screens."),
    click.option(
        "--screen-score", type=ScoreName(FIRST_PASS_SCORES), help="Of that pass.  [default: the best of one seed]"
    ),
    click.option(
        "--screen-told", type=TIMESTEPS, metavar="T", help="What the model is told in it.  [default: the scan's]"
    ),
    click.option("--screen-model", type=MODEL, help="What makes the first pass.  [default: the scan's model]"),
    click.option(
        "--screen-precision", type=PRECISION, help="Of the first pass.  [default: the scan's, or its model's]"
    ),
    click.option(
        "--screen-sample",
        type=float,
        metavar="SHARE",
        help="All passes for so many, by chance, whatever the first finds: tells what is lost.  "
        "[default: none; with auto: 0.02]",
    ),
)


def screen_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--screen` and the options that go with it."""
    for option in reversed(SCREEN_OPTIONS):
        command = option(command)
    return command


def scan_screen(share: float | str | None, options: dict[str, Any]) -> Screen | AutoScreen | None:
    """The screen that SCREEN_OPTIONS ask for, which it takes out of a command's `options`. Raises ScannerError."""
    asked = {name: options.pop(f"screen_{name}") for name in NAMES}
    given = {name: value for name, value in asked.items() if value is not None}
    if share is None:
        if given:
            named = ", ".join(f"--screen-{name}" for name in given)
            raise ScannerError(f"{named} without a screen: needed --screen SHARE, such as 0.02, or --screen auto")
        return None
    of_auto = {"keep": "wanted", "curves": "curves"}
    wrong = given.keys() & (("score", "told") if share == AUTO else of_auto)
    if wrong:
        other = "--screen auto chooses it: leave it out" if share == AUTO else "it is for --screen auto"
        raise ScannerError(f"--screen-{min(wrong)} with --screen {share}: {other}")
    if isinstance(share, str):
        return AutoScreen(**{of_auto.get(name, name): value for name, value in given.items()})
    return Screen(share, **given)
