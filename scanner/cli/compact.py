"""`overscan compact`."""

from pathlib import Path

import click

from scanner.dataset.ledger import Ledger
from scanner.dataset.status import RETENTION
from scanner.dataset.status import compact as compact_store


@click.command()
@click.option("--store", required=True, type=click.Path(path_type=Path), help="Folder that a scan filled.")
def compact(store: Path) -> None:
    """Merge a store's small files and delete replaced ones older than a week; safe beside scans and reports."""
    for name, done in compact_store(Ledger(store)).items():
        click.echo(f"{name}: {done['merged']} files merged, {done['deleted']} deleted (kept {RETENTION.days} days)")
