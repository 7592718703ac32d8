"""`overscan evidence`."""

from json import dumps
from pathlib import Path

import click

from scanner.cli import places
from scanner.cli.options import examples
from scanner.copies import change
from scanner.errors import ScannerError
from scanner.files import replacing
from scanner.places import Place
from scanner.report import attestation
from scanner.report.read import read_summary
from scanner.store.stored import read_store

SHOWN = 20  # differences that a message names


@click.command(
    epilog=examples(
        'overscan evidence report -s store -o evidence.json --by "Data governance"',
        "overscan evidence report --check evidence.json",
    )
)
@click.argument("report", type=places.FOLDER)
@click.option("-s", "--store", type=places.FILLED_STORE, help="Folder that the report's scan filled.")
@click.option("-o", "--out", type=places.OUT_FILE, help="File for the statement.")
@click.option("--by", help="Who ran it, in your words.")
@click.option("--check", type=places.FILE, help="Instead: whether all is still as this statement says.")
def evidence(report: Path, store: Place | None, out: Place | None, by: str | None, check: Path | None) -> None:
    """State what REPORT rests on, with hashes of its files, the dataset's and the model's; or check such a statement.

    The form is in-toto's, for whoever signs or archives it. It holds paths, no captions.
    """
    if check is not None:
        found = attestation.read(check)
        changed = attestation.differences(found, report)
        if changed:
            more = f"\n  and {len(changed) - SHOWN:,} more" if len(changed) > SHOWN else ""
            raise ScannerError(f"{check}: not as stated:\n  " + "\n  ".join(changed[:SHOWN]) + more)
        click.echo(f"{attestation.count(found):,} files are as stated", err=True)
        return
    if store is None or out is None:
        raise click.UsageError("needed --store and --out, or --check")
    stored = read_store(store, read_summary(report).scan_id)
    made = attestation.statement(report, stored, by)
    text = dumps(made, indent=1, ensure_ascii=False) + "\n"

    def write(path: Path) -> None:
        with replacing(path) as partial:
            partial.write_text(text, encoding="utf-8")

    change(out, write)
    click.echo(f"{attestation.count(made):,} files hashed", err=True)
    click.echo(str(out))
