"""`overscan diff`."""

import json
from pathlib import Path

import click

from scanner.audit import diff as nights
from scanner.audit.report.terminal import change_lines

FOLDER = click.Path(path_type=Path, file_okay=False)


@click.command()
@click.option("--from", "before", required=True, type=FOLDER, metavar="REPORT", help="Report folder of one night.")
@click.option("--to", "after", required=True, type=FOLDER, metavar="REPORT", help="Report folder of a later night.")
@click.option("--json", "as_json", is_flag=True, help="Print the changes as JSON.")
def diff(before: Path, after: Path, as_json: bool) -> None:
    """Say what changed between two nights' flagged lists: new, flagged, unflagged, gone, moved, with source rows."""
    first, second = nights.read_night(before), nights.read_night(after)
    changes, notes = nights.diff(first, second), nights.notes(first, second)
    if as_json:
        click.echo(json.dumps({"notes": notes, "changes": changes.to_dicts()}, indent=1, ensure_ascii=False))
    else:
        for line in change_lines(changes):
            click.echo(line)
    for note in notes:
        click.echo(f"note: {note}", err=True)
    click.echo(nights.count(changes), err=True)
