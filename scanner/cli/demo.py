"""`overscan demo`."""

from pathlib import Path

import click

from scanner import demo as demos
from scanner.cli.console import out_console, summary
from scanner.cli.options import examples
from scanner.cli.places import NEW
from scanner.cli.progress import progress
from scanner.report import table


@click.command(
    epilog=examples(
        "overscan demo",
    )
)
@click.option(
    "-o", "--out", type=NEW, default=Path("overscan-demo"), show_default=True, help="Folder for store and report."
)
def demo(out: Path) -> None:
    """Scan the bundled captions with the bundled model, offline, and compare with what the model truly memorized."""
    with progress() as watch:
        done = demos.run(out, watch)
    click.echo(summary(done.result), err=True)
    out_console.print(table(done.contents))
    click.echo(
        f"\nGenerating all prompts in full had shown which are memorized. Of {done.labelled} flagged prompts that it "
        f"decided, {done.memorized} are:\nprecision {done.precision:.3f}, recall {done.recall:.3f}, "
        f"AUROC {done.auroc:.4f} (over all labelled prompts).\nReports and store: {out}"
    )
