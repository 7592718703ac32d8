"""`overscan report`."""

from datetime import UTC, datetime
from pathlib import Path

import click

from scanner.audit.flag import Rule, rank, sources
from scanner.audit.report import Contents, facts_of, redact, rule_in_words, table, write
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
@click.option("--redact", "redacted", is_flag=True, help="Keep only the first words of each caption, everywhere.")
def report(
    store: Path, out: Path, score: str, redacted: bool, top: int | None, quantile: float | None, threshold: float | None
) -> None:
    """Rank the store's newest scan and write report.html, summary.md and the flagged prompts and rows as data."""
    if top is None and threshold is None and quantile is None:
        quantile = DEFAULT_QUANTILE
    rule = Rule(score, top, quantile, threshold)
    stored = read_store(store)
    ranked = rank(stored.scores, rule)
    contents = Contents(
        score=score,
        rule=rule_in_words(score, {"top": top, "quantile": quantile, "threshold": threshold}),
        made=datetime.now(UTC),
        facts=facts_of(stored.scan_id, stored.record),
        ranked=ranked,
        flagged=sources(ranked, stored.captions),
        threshold=threshold,
    )
    if redacted:
        contents = redact(contents)
    paths = write(out, contents)
    out_console.print(table(contents.ranked, score))
    if unscored := ranked["status"].null_count():
        click.echo(
            f"{unscored:,} prompts of the inputs are newer than the scan and have no score: scan again", err=True
        )
    click.echo("A ranking: flagged is not memorized. Written: " + ", ".join(map(str, paths)), err=True)
