"""`overscan accept`."""

from datetime import UTC, datetime
from json import dumps
from pathlib import Path

import click

from scanner.audit import baseline as baselines
from scanner.audit.baseline import Accepted
from scanner.audit.decision import Night
from scanner.cli import options, places
from scanner.copies import change
from scanner.errors import ScannerError
from scanner.identity import LEAST
from scanner.places import Place
from scanner.report.read import read_night


@click.command(
    epilog=options.examples(
        "overscan accept --report tuesday --baseline baseline.json",
        'overscan accept --report tuesday --baseline baseline.json --ids 0f3c9a51 --reason "a licensed logo"',
    )
)
@click.option("--report", required=True, type=places.FOLDER, help="Report folder whose findings somebody has seen.")
@click.option("--baseline", required=True, type=places.OUT_FILE, help="File that the findings are added to.")
@options.ids
@click.option("--reason", help="Why they may stay.")
@click.option("--expires", type=click.DateTime(["%Y-%m-%d"]), help="Their last day; from then on they are new again.")
@click.option("--json", is_flag=True, help="Print what was done as JSON.")
def accept(
    report: Path,
    baseline: Place,
    ids: tuple[str, ...],
    reason: str | None,
    expires: datetime | None,
    json: bool,
) -> None:
    """Make a report's findings known: add them, or those with --ids, to a baseline. What it knows already stays."""
    now = datetime.now(UTC).date()
    if expires is not None and expires.date() < now:
        raise ScannerError(f"expires {expires:%Y-%m-%d}: has passed; needed today or a later day")
    night = read_night(report)
    last = None if expires is None else f"{expires:%Y-%m-%d}"
    entry = Accepted(now.isoformat(), night.summary.scan_id, night.summary.score, reason, last)
    chosen = _chosen(night, ids)
    grown, added = change(baseline, lambda path: baselines.accept(path, chosen, entry))
    held = len(grown.prompt_ids)
    click.echo(f"{len(chosen):,} accepted, {added:,} of them not known before; {baseline} holds {held:,}", err=True)
    if json:
        click.echo(dumps({"accepted": chosen, "new": added, "held": held}, indent=1))


def _chosen(night: Night, ids: tuple[str, ...]) -> list[str]:
    """Flagged prompts by the beginning of their ids; without ids, all but those that an allow-list allowed."""
    flagged = night.prompts
    if not ids:
        kept = flagged.filter(finding="allowed") if "finding" in flagged.columns else flagged.clear()
        return flagged.join(kept, on="prompt_id", how="anti")["prompt_id"].sort().to_list()
    chosen = set()
    for asked in (part.strip() for text in ids for part in text.split(",")):
        found = [i for i in flagged["prompt_id"] if i.startswith(asked)]
        if len(asked) < LEAST or len(found) != 1:
            raise ScannerError(
                f"prompt_id {asked!r}: {len(found):,} flagged prompts of the report begin so; needed {LEAST} or more "
                "first characters of one (prompt_id in its flagged.csv)"
            )
        chosen.add(found[0])
    return sorted(chosen)
