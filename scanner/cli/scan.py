"""`overscan scan`."""

from dataclasses import asdict, fields
from json import dumps
from typing import Any

import click

from scanner.cli import shard as shards
from scanner.cli.console import dry_summary, summary
from scanner.cli.options import CREW, examples, executor, scan_config, scan_options
from scanner.cli.progress import progress
from scanner.cli.reading import listing
from scanner.cli.screens import scan_screen, screen_options
from scanner.cli.signals import stoppable
from scanner.dataset.reading import as_json
from scanner.dataset.shards import WHOLE, Shard
from scanner.scanning.dry_run import DryRun
from scanner.scanning.dry_run import dry_run as run_dry
from scanner.scanning.result import ScanResult
from scanner.scanning.run import scan as run_scan

HELD = ("captions", "record", "earlier", "gone", "work")  # of a result, and no fact of what the run did


@click.command(
    epilog=examples(
        "overscan scan captions.parquet -m bundle -s store",
        "overscan scan 'laion/*.parquet' -m bundle -s store --dry-run",
        "overscan scan captions.parquet -m bundle -s store --seeds 4 --screen auto",
    )
)
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...")
@scan_options
@screen_options
@shards.option
@click.option("--dry-run", is_flag=True, help="Only count what is pending and estimate its time; write nothing.")
@click.option("--files", is_flag=True, help="List the files read, with rows each, and what was passed over.")
@click.option("--json", is_flag=True, help="Print what was done as JSON.")
def scan(
    inputs: tuple[str, ...],
    seeds: int,
    first_steps: int,
    timesteps: tuple[int, ...] | None,
    prior_noises: int | None,
    guidance_scale: float,
    screen: float | str | None,
    shard: Shard | None,
    dry_run: bool,
    files: bool,
    json: bool,
    **options: Any,
) -> None:
    """Score every unique caption of INPUT: files of any format in docs/inputs.md, globs, folders, URLs.

    With --screen, every caption gets one pass, and those that stand out get all: see docs/screening.md.
    """
    config = scan_config(seeds, first_steps, timesteps, prior_noises, guidance_scale)
    options["screen"] = scan_screen(screen, options)
    crew = {name: options.pop(name) for name in CREW}
    options["shard"] = shard or WHOLE
    if dry_run:
        with stoppable() as stop, progress() as watch:
            plan = run_dry(inputs, config=config, watch=watch, stop=stop, **options)
        _say(dry_summary(plan), plan, files)
        click.echo(dumps(asdict(plan) | {"reading": as_json(plan.reading)}, indent=1) if json else plan.scan_id or "")
        return
    with stoppable() as stop, progress() as watch:
        result = run_scan(inputs, config=config, executor=executor(**crew), watch=watch, stop=stop, **options)
    _say(summary(result), result, files)
    click.echo(dumps(_facts(result), indent=1) if json else result.scan_id)


def _say(words: str, done: ScanResult | DryRun, files: bool) -> None:
    click.echo("\n".join([words, *(listing(done.reading) if files else ())]), err=True)


def _facts(result: ScanResult) -> dict[str, Any]:
    names = [item.name for item in fields(result) if item.name not in HELD]
    facts = {name: getattr(result, name) for name in names}
    left_out, screening = [asdict(problem) for problem in result.left_out], result.screening
    screened = None if screening is None else asdict(screening)
    done = {"store": str(result.store), "left_out": left_out, "screening": screened, "reading": as_json(result.reading)}
    return facts | done | {"shard": asdict(result.shard)}
