"""`overscan status`."""

from dataclasses import asdict
from json import dumps
from pathlib import Path

import click

from scanner.audit.choice import possible
from scanner.cli.console import status_table
from scanner.cli.options import filled_store
from scanner.store.ledger import Ledger
from scanner.store.status import status as read_status


@click.command()
@filled_store
@click.option("--json", is_flag=True, help="Print JSON.")
def status(store: Path, json: bool) -> None:
    """Tell what a store holds: its scans with their models and counts, table versions, size on disk."""
    found = read_status(Ledger(store), possible)
    click.echo(dumps(asdict(found), indent=1) if json else status_table(found))
