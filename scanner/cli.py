"""The command line: parse, call one function, print. Data goes to stdout, words for people to stderr."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
from rich.progress import Task as ProgressTask
from rich.text import Text

from engines import BACKENDS, EngineError, open_bundle
from scanner import demo as demos
from scanner.audit.flag import Rule, rank, sources
from scanner.audit.report import table, write
from scanner.config import ScanConfig
from scanner.diffusion.scores import DEFAULT_SCORE, SCORES
from scanner.errors import ScannerError
from scanner.scan import ScanResult, read_store, scan

PLAIN_SECONDS = 10.0  # between progress lines where there is no terminal
DEFAULT_QUANTILE = 0.99

out_console = Console()
err_console = Console(stderr=True)


class Speed(ProgressColumn):
    """Prompts per second."""

    def render(self, task: ProgressTask) -> Text:
        """Render the column."""
        return Text(f"{task.speed or 0:.1f} prompts/s")


@contextmanager
def progress() -> Iterator[Callable[[int, int], None]]:
    """A bar on a terminal, a line now and then elsewhere."""
    if err_console.is_terminal:
        columns = (TextColumn("scan"), BarColumn(), MofNCompleteColumn(), Speed(), TimeRemainingColumn())
        with Progress(*columns, console=err_console) as bar:
            task = bar.add_task("scan", total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)
        return
    started = last = time.monotonic()

    def line(done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= PLAIN_SECONDS:
            last = now
            click.echo(f"scan: {done:,}/{total:,} prompts, {done / (now - started):.1f}/s", err=True)

    yield line


def summary(result: ScanResult) -> str:
    """What a scan did, in words."""
    rate = result.scored / result.seconds if result.seconds else 0.0
    lines = [
        f"rows            {result.rows:,}",
        f"unique prompts  {result.unique:,}",
        f"already scored  {result.already_scored:,}",
        f"scored now      {result.scored:,} in {result.seconds:.1f} s ({rate:.1f} prompts/s, {result.provider})",
    ]
    lines += [f"skipped         {count:,} {status}" for status, count in result.skipped.items()]
    if result.other_scans:
        lines.append(f"store also holds {result.other_scans:,} scores of other models or settings, left alone")
    return "\n".join(lines)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="overscan")
def cli() -> None:
    """Find the captions that a text-to-image diffusion model has likely memorized, without generating an image."""


@cli.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--dtype", type=click.Choice(["float32", "float16"]), default="float32", show_default=True)
def export(source: Path, out: Path, dtype: str) -> None:
    """Export a diffusers checkpoint (SOURCE: a folder or a hub id) to a bundle OUT that runs without torch."""
    try:
        from engines.export import export as export_bundle
    except ImportError as error:
        raise EngineError(f'{error}: exporting needs pip install "overscan[cpu,export]"') from error
    from scanner.evidence.fidelity import check

    def check_scores(bundle: Path) -> None:
        for row in check(open_bundle(source, "torch"), open_bundle(bundle, "cpu")).iter_rows(named=True):
            click.echo(f"{row['score']}: largest {row['kind']} error {row['largest_error']:.1e}", err=True)

    export_bundle(source, out, dtype, check=check_scores, report=lambda line: click.echo(line, err=True))
    click.echo(str(out))


@cli.command("scan")
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
def scan_command(inputs: tuple[str, ...], seeds: int, first_steps: int, guidance_scale: float, **options: Any) -> None:
    """Score every unique caption of INPUT (parquet, CSV, TSV, JSONL, text lines; files, globs, folders)."""
    config = ScanConfig(guidance_scale=guidance_scale, first_steps=first_steps, seeds=tuple(range(seeds)))
    with progress() as observe:
        result = scan(inputs, config=config, progress=observe, **options)
    click.echo(summary(result), err=True)
    click.echo(result.scan_id)


@cli.command()
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


@cli.command()
@click.option("--out", type=click.Path(path_type=Path), default=Path("overscan-demo"), show_default=True)
def demo(out: Path) -> None:
    """Scan the bundled captions with the bundled model, offline, and compare with what the model truly memorized."""
    with progress() as observe:
        done = demos.run(out, observe)
    click.echo(summary(done.result), err=True)
    out_console.print(table(done.ranked, demos.RULE.score))
    click.echo(
        f"\nGenerating all prompts in full had shown which are memorized. Of {done.labelled} flagged prompts that it "
        f"decided, {done.memorized} are:\nprecision {done.precision:.3f}, recall {done.recall:.3f}, "
        f"AUROC {done.auroc:.4f} (over all labelled prompts).\nReports and store: {out}"
    )


def main() -> None:
    """Run the command line; exit codes: 0 done, 2 usage or input, 3 interrupted (resumable), 4 engine."""
    try:
        code = cli.main(standalone_mode=False)
    except (KeyboardInterrupt, click.Abort):
        click.echo("interrupted: what was computed is committed; the same command goes on from there", err=True)
        code = 3
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except ScannerError as error:
        click.echo(f"error: {error}", err=True)
        code = error.exit_code
    except EngineError as error:
        click.echo(f"error: {error}", err=True)
        code = 4
    sys.exit(code)
