"""`overscan scan`."""

from typing import Any

import click

from scanner.cli.console import progress, summary
from scanner.cli.options import scan_options
from scanner.config import ScanConfig
from scanner.scan import scan as run_scan


@click.command()
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...")
@scan_options
def scan(inputs: tuple[str, ...], seeds: int, first_steps: int, guidance_scale: float, **options: Any) -> None:
    """Score every unique caption of INPUT (parquet, CSV, TSV, JSONL, text lines; files, globs, folders)."""
    config = ScanConfig(guidance_scale=guidance_scale, first_steps=first_steps, seeds=tuple(range(seeds)))
    with progress() as observe:
        result = run_scan(inputs, config=config, progress=observe, **options)
    click.echo(summary(result), err=True)
    click.echo(result.scan_id)
