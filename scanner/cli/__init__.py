"""The command line, a module per command: parse, call one function, print."""

import sys

import click

from engines import EngineError
from scanner.cli.demo import demo
from scanner.cli.export import export
from scanner.cli.report import report
from scanner.cli.scan import scan
from scanner.errors import ScannerError


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="overscan")
def cli() -> None:
    """Find the captions that a text-to-image diffusion model has likely memorized, without generating an image."""


for command in (scan, report, export, demo):
    cli.add_command(command)


def main() -> None:
    """Run the command line; exit codes: 0 done, 2 usage or input, 3 interrupted (resumable), 4 engine."""
    try:
        code = cli.main(standalone_mode=False)
    except (KeyboardInterrupt, click.Abort):
        click.echo("interrupted: what was computed is committed; the same command goes on from there", err=True)
        code = 3
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except ScannerError as error:
        click.echo(f"error: {error}", err=True)
        code = error.exit_code
    except EngineError as error:
        click.echo(f"error: {error}", err=True)
        code = 4
    sys.exit(code)
