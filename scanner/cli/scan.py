"""`overscan scan`."""

from dataclasses import asdict, fields
from json import dumps
from typing import Any

import click

from scanner.cli.console import dry_summary, progress, summary
from scanner.cli.options import scan_config, scan_options
from scanner.cli.signals import stoppable
from scanner.scan import ScanResult
from scanner.scan import dry_run as run_dry
from scanner.scan import scan as run_scan


@click.command()
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...")
@scan_options
@click.option("--dry-run", is_flag=True, help="Only count what is pending and estimate its time; write nothing.")
@click.option("--json", is_flag=True, help="Print what was done as JSON.")
def scan(
    inputs: tuple[str, ...],
    seeds: int,
    first_steps: int,
    guidance_scale: float,
    dry_run: bool,
    json: bool,
    **options: Any,
) -> None:
    """Score every unique caption of INPUT: files of any format in docs/inputs.md, globs, folders, URLs."""
    config = scan_config(seeds, first_steps, guidance_scale)
    if dry_run:
        with stoppable() as stop:
            plan = run_dry(inputs, config=config, stop=stop, **options)
        click.echo(dry_summary(plan), err=True)
        click.echo(dumps(asdict(plan), indent=1) if json else plan.scan_id)
        return
    with stoppable() as stop, progress() as observe:
        result = run_scan(inputs, config=config, progress=observe, stop=stop, **options)
    click.echo(summary(result), err=True)
    click.echo(dumps(_facts(result), indent=1) if json else result.scan_id)


def _facts(result: ScanResult) -> dict[str, Any]:
    names = [item.name for item in fields(result) if item.name not in ("captions", "record")]
    facts = {name: getattr(result, name) for name in names}
    return facts | {"store": str(result.store), "left_out": [asdict(problem) for problem in result.left_out]}
