"""The command line, a module per command: parse, call one function, print."""

import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import click
import polars as pl

from engines import EngineError
from scanner.cli import config as settings
from scanner.cli.accept import accept
from scanner.cli.calibrate import calibrate
from scanner.cli.compact import compact
from scanner.cli.demo import demo
from scanner.cli.diff import diff
from scanner.cli.doctor import doctor
from scanner.cli.evaluate import evaluate
from scanner.cli.evidence import evidence
from scanner.cli.explain import explain
from scanner.cli.export import export
from scanner.cli.gate import gate
from scanner.cli.images import images
from scanner.cli.init import init
from scanner.cli.recheck import recheck
from scanner.cli.report import report
from scanner.cli.scan import scan
from scanner.cli.signals import interruptible
from scanner.cli.status import status
from scanner.cli.streams import OutputError, guarded
from scanner.cli.threshold import threshold
from scanner.cli.verify import verify
from scanner.errors import ScannerError, disk_error, printable

SECTIONS: Mapping[str, Sequence[click.Command]] = {  # in the order of work
    "Try it": (demo,),
    "Prepare": (export, init, settings.config, doctor),
    "Scan": (scan, status, compact),
    "Decide": (calibrate, threshold, report, accept, diff, recheck),
    "Look closer": (verify, images, explain),
    "Measure": (evaluate,),
    "Hand over": (evidence, gate),
}
COMMANDS = tuple(command for commands in SECTIONS.values() for command in commands)


class Sections(click.Group):
    """Commands by what they are for, each with its whole first sentence."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write a list for each of SECTIONS."""
        for title, commands in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(str(command.name), _sentence(command)) for command in commands], col_max=12)


def _sentence(command: click.Command) -> str:
    text = " ".join((command.help or "").split("\n\n")[0].split())
    return text.partition(". ")[0].removesuffix(".")


@click.group(
    cls=Sections,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "auto_envvar_prefix": "OVERSCAN",
        "max_content_width": 100,
    },
)
@click.version_option(package_name="overscan")
@settings.option
def cli(config: Path | None) -> None:
    """Find the captions that a text-to-image diffusion model has likely memorized, without generating an image."""


for command in COMMANDS:
    cli.add_command(command)


def _words(error: Exception) -> str:
    """An error as it is shown: whatever it names, no line of it moves the cursor or speaks to a program."""
    return "\n".join(map(printable, f"error: {error}".split("\n")))


def main() -> None:
    """Run the command line and exit: 0 done, 2 usage, configuration or input, 3 interrupted, 4 environment or engine.

    1 is the policy's alone (`report --fail-on`): a crash, which Python would end with 1, is 4. What stderr cannot take
    is dropped; what stdout cannot take makes a 4 of a 0.
    """
    interruptible()
    code: int | str | None = 0
    try:
        with guarded():
            code = _run()
    except OutputError as error:  # of the last words
        click.echo(f"error: {error}", err=True)
        code = code or error.exit_code
    sys.exit(code)


def _run() -> int | str | None:
    """The exit code of the command."""
    try:
        return cast(int | None, cli.main(standalone_mode=False))
    except (KeyboardInterrupt, click.Abort):
        click.echo("interrupted: what was committed stays; run the same command again", err=True)
        return 3
    except click.ClickException as error:
        error.show()
        if isinstance(error, click.NoSuchOption) and error.option_name in ("--config", "--version"):
            click.echo(f"{error.option_name} goes before the command: overscan {error.option_name} ...", err=True)
        return error.exit_code
    except ScannerError as error:
        click.echo(_words(error), err=True)
        return error.exit_code
    except EngineError as error:
        click.echo(_words(error), err=True)
        return 4
    except SystemExit as ended:  # click's way out of a closed pipe, with 1, and of shell completion
        return 4 if ended.code == 1 else ended.code
    except OSError as error:
        click.echo(_words(disk_error(error.filename or "disk", error) or error), err=True)
        return 4
    except (Exception, pl.exceptions.PanicException):
        traceback.print_exc()
        click.echo("error: a bug in overscan, or a broken installation; please report the lines above", err=True)
        return 4
