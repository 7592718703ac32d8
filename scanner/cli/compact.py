"""`overscan compact`."""

from pathlib import Path

import click

from scanner.cli.options import examples
from scanner.cli.places import STORE
from scanner.scanning.shared import sweep
from scanner.store.ledger import Ledger
from scanner.store.status import RETENTION
from scanner.store.status import compact as compact_store


@click.command(
    epilog=examples(
        "overscan compact -s store",
    )
)
@click.option("-s", "--store", required=True, type=STORE, help="Folder that a scan filled.")
def compact(store: Path) -> None:
    """Merge a store's small files and delete replaced ones older than a week; safe beside scans and reports."""
    for name, done in compact_store(Ledger(store)).items():
        click.echo(f"{name}: {done['merged']} files merged, {done['deleted']} deleted (kept {RETENTION.days} days)")
    if left := sweep(store, RETENTION):
        click.echo(f"{left} scans whose shards never all finished: their split captions are deleted")
