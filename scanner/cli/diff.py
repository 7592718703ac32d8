"""`overscan diff`."""

from json import dumps
from pathlib import Path

import click

from scanner.audit import diff as nights
from scanner.cli.options import examples
from scanner.cli.places import FOLDER
from scanner.report.read import read_night
from scanner.report.terminal import change_lines


@click.command(
    epilog=examples(
        "overscan diff --from monday --to tuesday",
    )
)
@click.option("--from", required=True, type=FOLDER, metavar="REPORT", help="Report folder of one night.")
@click.option("--to", required=True, type=FOLDER, metavar="REPORT", help="Report folder of a later night.")
@click.option("--json", is_flag=True, help="Print the changes as JSON.")
def diff(json: bool, **reports: Path) -> None:
    """Say what changed between two nights' flagged lists: new, flagged, unflagged, gone, moved, with source rows."""
    first, second = read_night(reports["from"]), read_night(reports["to"])
    changes, notes = nights.diff(first, second), nights.notes(first, second)
    if json:
        click.echo(dumps({"notes": notes, "changes": changes.to_dicts()}, indent=1, ensure_ascii=False))
    else:
        for line in change_lines(changes):
            click.echo(line)
    for note in notes:
        click.echo(f"note: {note}", err=True)
    click.echo(nights.count(changes), err=True)
