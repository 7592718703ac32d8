"""`overscan status`."""

from dataclasses import asdict
from json import dumps

import click

from scanner.audit import stale
from scanner.audit.choice import possible
from scanner.cli.console import status_table
from scanner.cli.options import Threshold, examples, filled_store
from scanner.cli.places import FILLED_FILE
from scanner.places import Place, place_of
from scanner.store.ledger import Ledger
from scanner.store.status import status as read_status


@click.command(
    epilog=examples(
        "overscan status -s store",
    )
)
@filled_store
@click.option("--calibration", type=FILLED_FILE, help="Whether it is of the newest scan.  [default: as of `report`]")
@click.option("--threshold", type=Threshold(FILLED_FILE), metavar="FILE", help="The same of a kept threshold.")
@click.option("--baseline", type=FILLED_FILE, help="The same of accepted findings.")
@click.option("--json", is_flag=True, help="Print JSON.")
def status(
    store: Place, calibration: Place | None, threshold: Place | float | None, baseline: Place | None, json: bool
) -> None:
    """Tell what a store holds, and which kept files are stale: of another model or setting than the newest scan.

    The files are those that the settings of `overscan report` name, where no option does.
    """
    found = read_status(Ledger(store), possible)
    kept = None if isinstance(threshold, float) else threshold  # a bare number is of no scan
    named = {"calibration": calibration, "threshold": kept, "baseline": baseline}
    files = {what: _of_report(what) if path is None else path for what, path in named.items()}
    held, lacking = stale.examine(files, found), stale.uncalibrated(found)
    if json:
        click.echo(dumps(asdict(found) | {"files": [asdict(file) for file in held]}, indent=1))
        return
    click.echo(status_table(found))
    said = [*map(stale.sentence, held), *([] if lacking is None else [lacking])]
    if said:
        click.echo("\n" + "\n".join(said))


def _of_report(what: str) -> Place | None:
    """The file that the settings file's `report` names, if any."""
    settings = click.get_current_context().find_root().default_map or {}
    value = (settings.get("report") or {}).get(what)
    return place_of(value) if isinstance(value, str) else None
