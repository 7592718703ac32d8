"""`overscan calibrate`."""

from datetime import UTC, datetime
from json import dumps
from pathlib import Path
from typing import Any

import click

from scanner import copies
from scanner.audit import calibrate as calibrations
from scanner.cli.console import summary
from scanner.cli.options import CREW, examples, executor, scan_config, scan_options
from scanner.cli.places import OUT_FILE
from scanner.cli.progress import progress
from scanner.cli.signals import stoppable
from scanner.diffusion.scores import SCORES
from scanner.places import Place
from scanner.scanning.run import scan
from scanner.store.stored import canaries_of


@click.command(
    epilog=examples(
        "overscan calibrate benign.parquet -m bundle -s store -o calibration.parquet",
    )
)
@click.argument("inputs", nargs=-1, required=True, metavar="NULL_INPUT...")
@click.option("-o", "--out", required=True, type=OUT_FILE, help="Calibration file to write.")
@scan_options
@click.option("--json", is_flag=True, help="Print what was written as JSON.")
def calibrate(
    inputs: tuple[str, ...],
    out: Place,
    seeds: int,
    first_steps: int,
    timesteps: tuple[int, ...] | None,
    prior_noises: int | None,
    guidance_scale: float,
    json: bool,
    **options: Any,
) -> None:
    """Score benign captions (NULL_INPUT, read like a scan's INPUT) and keep the distribution of every score.

    Take captions of the same kind as the dataset's that the model cannot have memorized, with the scan's model and
    settings. Run again, only new captions are scored.
    """
    crew = {name: options.pop(name) for name in CREW}
    config = scan_config(seeds, first_steps, timesteps, prior_noises, guidance_scale)
    copies.check(out, calibrations.check_place)
    with stoppable() as stop, progress() as watch:
        result = scan(
            inputs,
            config=config,
            executor=executor(**crew),
            purpose="calibration",
            watch=watch,
            stop=stop,
            **options,
        )
    source = {"date": f"{datetime.now(UTC):%Y-%m-%d}", "inputs": list(inputs), "model": str(options["model"])}
    names = list(SCORES)
    canaries = canaries_of([result.record], names)

    def write(path: Path) -> int:
        return calibrations.write(path, result.scan_id, result.scores, names, canaries, source)

    n = copies.change(out, write)
    click.echo(f"{summary(result)}\n{calibrations.reach(n)}", err=True)
    facts = {"calibration": str(out), "scan_id": result.scan_id, "null_captions": n}
    click.echo(dumps(facts, indent=1) if json else str(out))
