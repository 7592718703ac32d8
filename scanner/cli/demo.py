"""`overscan demo`."""

import os
import shlex
import shutil
import sys
from pathlib import Path

import click

from scanner import demo as demos
from scanner.audit.decision import Night
from scanner.cli import closer
from scanner.cli.console import out_console, summary
from scanner.cli.options import examples
from scanner.cli.places import NEW
from scanner.cli.progress import duration, progress
from scanner.config import unet_passes
from scanner.evidence.verify import Sampling
from scanner.model.scorer import EVERYDAY
from scanner.report import Beside, table
from scanner.scanning.dry_run import DryRun
from scanner.store.record import RunRecord

DEFAULT = Path("overscan-demo")
PICTURES = 6  # findings that the suggested command generates


@click.command(
    epilog=examples(
        "overscan demo",
        "overscan demo --verify 6",
    )
)
@click.option("-o", "--out", type=NEW, default=DEFAULT, show_default=True, help="Folder for store and report.")
@click.option("--verify", type=click.IntRange(1), metavar="N", help="Generate the N highest findings, for pictures.")
def demo(out: Path, verify: int | None) -> None:
    """Scan the bundled captions with the bundled model, offline, and compare with what the model truly memorized."""
    with progress() as watch:
        plan = demos.plan(out, watch)
    click.echo(_announced(plan, out, verify), err=True)

    def look(night: Night, record: RunRecord) -> tuple[Beside, str | None]:
        found = closer.look(night, record, out, verify, None, watch)
        again = ["demo", *([] if out == DEFAULT else ["--out", str(out)]), "--verify", str(PICTURES)]
        return found, closer.following(record, out, found, again)

    with progress() as watch:
        done = demos.run(out, watch, look)
    click.echo(summary(done.result), err=True)
    out_console.print(table(done.contents))
    fewest, seeds = done.copies
    click.echo(
        f"\nFor {done.confirmed} of {done.labelled} flagged captions the model copies a training image on at least "
        f"{fewest} of {seeds} seeds: {done.confirmed} of the {done.memorized} memorized ones are found.\n"
        f"Of the other {done.labelled - done.confirmed}, {done.collapsed} collapse: all seeds give one picture, which, "
        "measured, is no copy or not quite one. "
        f"Left out are {len(done.contents.prompts) - done.labelled} that fewer seeds copy.\n"
        f"That is by generating every caption in full, once, before: precision {done.precision:.3f}, recall "
        f"{done.recall:.3f}, AUROC {done.auroc:.4f}.\n\n"
        f"open {shlex.quote(str(out / 'report.html'))}\n"
        f"next: {_activated()}{done.contents.following or 'overscan export --help, for a model of your own'}"
    )


def _activated() -> str:
    """What a command begins with where the shell does not find `overscan`: its environment is not activated."""
    script = Path(sys.prefix, "bin", "activate")
    if shutil.which("overscan") is not None or not script.exists():
        return ""
    return f"source {shlex.quote(os.path.relpath(script))} && "


def _announced(plan: DryRun, out: Path, verify: int | None) -> str:
    """What will be done, and how long it takes, by a few prompts that were timed."""
    lines = [f"Scans {plan.unique:,} captions ({plan.rows:,} rows) with a bundled model, offline, into {out}/."]
    if plan.already_scored:
        lines.append(f"{plan.already_scored:,} of them are scored there already.")
    seconds = plan.seconds
    if verify is not None:
        sampling = Sampling()
        passes = (verify + len(EVERYDAY)) * unet_passes(len(sampling.seeds), sampling.num_inference_steps)
        lines.append(f"Then the {verify} highest findings are generated, and {len(EVERYDAY)} captions to compare with.")
        seconds += passes / (plan.prompts_per_second * unet_passes(2, 1)) if plan.prompts_per_second else 0
    if plan.prompts_per_second:
        lines.append(f"That takes about {duration(seconds)} here.")
    return " ".join(lines)
