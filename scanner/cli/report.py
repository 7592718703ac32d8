"""`overscan report`."""

from pathlib import Path

import click

from scanner.audit.flag import Rule, rank, sources
from scanner.audit.report import table, write
from scanner.cli.console import out_console
from scanner.diffusion.scores import DEFAULT_SCORE, SCORES
from scanner.scan import read_store

DEFAULT_QUANTILE = 0.99


@click.command()
@click.option("--store", required=True, type=click.Path(path_type=Path), help="Folder that a scan filled.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder for the report's files.")
@click.option("--top", type=int, help="Flag the N highest prompts.")
@click.option("--quantile", type=float, help=f"Flag from this quantile up.  [default: {DEFAULT_QUANTILE}]")
@click.option("--threshold", type=float, help="Flag from this score up.")
@click.option("--score", type=click.Choice(list(SCORES)), default=DEFAULT_SCORE, show_default=True)
def report(
    store: Path, out: Path, score: str, top: int | None, quantile: float | None, threshold: float | None
) -> None:
    """Rank the store's newest scan and write scores.parquet and flagged.parquet, .csv, .jsonl."""
    if top is None and threshold is None and quantile is None:
        quantile = DEFAULT_QUANTILE
    rule = Rule(score, top, quantile, threshold)
    stored = read_store(store)
    ranked = rank(stored.scores, rule)
    paths = write(out, ranked, sources(ranked, stored.captions))
    out_console.print(table(ranked, score))
    if unscored := ranked["status"].null_count():
        click.echo(
            f"{unscored:,} prompts of the inputs are newer than the scan and have no score: scan again", err=True
        )
    click.echo("A ranking: flagged is not memorized. Written: " + ", ".join(map(str, paths)), err=True)
