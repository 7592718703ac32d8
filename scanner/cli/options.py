"""Options that more than one command takes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from engines import BACKENDS

SCAN_OPTIONS = (
    click.option(
        "--model", required=True, type=click.Path(path_type=Path), help="Bundle, or a diffusers folder with torch."
    ),
    click.option("--store", required=True, type=click.Path(path_type=Path), help="Folder that keeps the scores."),
    click.option("--column", help="Column or key of the captions.  [default: guessed]"),
    click.option(
        "--reference", type=click.Path(path_type=Path), help="Ordinary captions, for the _ref and _white scores."
    ),
    click.option("--seeds", type=click.IntRange(1), default=2, show_default=True, help="Starting noises per prompt."),
    click.option("--first-steps", type=click.IntRange(1), default=1, show_default=True, help="Denoising steps to run."),
    click.option("--guidance-scale", type=float, default=7.5, show_default=True, help="1 = no guidance."),
    click.option("--batch-size", type=click.IntRange(1), help="UNet samples per run.  [default: by latent size]"),
    click.option("--backend", type=click.Choice(["auto", *BACKENDS]), default="auto", show_default=True),
    click.option("--limit", type=click.IntRange(1), help="Only the first rows."),
    click.option("--strict", is_flag=True, help="A file that cannot be read is an error, and not left out."),
)


def scan_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The inputs and options of everything that scores captions."""
    for option in reversed(SCAN_OPTIONS):
        command = option(command)
    return command
