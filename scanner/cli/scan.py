"""`overscan scan`."""

from pathlib import Path
from typing import Any

import click

from engines import BACKENDS
from scanner.cli.console import progress, summary
from scanner.config import ScanConfig
from scanner.scan import scan as run_scan


@click.command()
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...")
@click.option(
    "--model", required=True, type=click.Path(path_type=Path), help="Bundle, or a diffusers folder with torch."
)
@click.option("--store", required=True, type=click.Path(path_type=Path), help="Folder that keeps the scores.")
@click.option("--column", help="Column or key of the captions.  [default: guessed]")
@click.option("--seeds", type=click.IntRange(1), default=2, show_default=True, help="Starting noises per prompt.")
@click.option("--first-steps", type=click.IntRange(1), default=1, show_default=True, help="Denoising steps to run.")
@click.option("--guidance-scale", type=float, default=7.5, show_default=True, help="1 = no guidance.")
@click.option("--batch-size", type=click.IntRange(1), help="UNet samples per run.  [default: by latent size]")
@click.option("--backend", type=click.Choice(["auto", *BACKENDS]), default="auto", show_default=True)
@click.option("--limit", type=click.IntRange(1), help="Only the first rows.")
def scan(inputs: tuple[str, ...], seeds: int, first_steps: int, guidance_scale: float, **options: Any) -> None:
    """Score every unique caption of INPUT (parquet, CSV, TSV, JSONL, text lines; files, globs, folders)."""
    config = ScanConfig(guidance_scale=guidance_scale, first_steps=first_steps, seeds=tuple(range(seeds)))
    with progress() as observe:
        result = run_scan(inputs, config=config, progress=observe, **options)
    click.echo(summary(result), err=True)
    click.echo(result.scan_id)
