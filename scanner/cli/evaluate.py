"""`overscan evaluate`."""

from dataclasses import replace
from pathlib import Path

import click
import polars as pl

from scanner.cli import options, places
from scanner.cli.progress import progress
from scanner.cli.signals import stoppable
from scanner.config import ScanConfig
from scanner.dataset import captions
from scanner.diffusion.scores import best_score
from scanner.evidence import compared, evaluated
from scanner.evidence import evaluate as evaluation
from scanner.evidence import screens as screened
from scanner.evidence.labels import of_lists, read_labels
from scanner.model import Model


@click.command(
    epilog=options.examples(
        "overscan evaluate labels.parquet -m bundle -o evaluation",
        "overscan evaluate --memorized known.txt --ordinary others.txt -m bundle -o evaluation --peers",
    )
)
@click.argument("labels", required=False, type=places.FILE)
@click.option("--memorized", multiple=True, type=places.INPUT, help="Instead of LABELS: captions, in any form.")
@click.option("--ordinary", multiple=True, type=places.INPUT, help="With --memorized: captions that are not.")
@options.model
@click.option("-o", "--out", required=True, type=places.OUT_HERE, help="Folder for the tables and plots.")
@click.option("--peers", is_flag=True, help="Also the detectors of the literature, and what the text alone tells.")
@click.option("--screens", is_flag=True, help="Also what first passes keep, for scan --screen auto --screen-curves.")
@click.option(
    "--screen-model", multiple=True, type=places.MODEL, help="With --screens: the model for a smaller --size, too."
)
@options.reference
@options.base_model
@options.timesteps
@options.batch_size
@options.backend
@options.precision
def evaluate(
    labels: Path | None,
    memorized: tuple[Path | str, ...],
    ordinary: tuple[Path | str, ...],
    model: Path,
    out: Path,
    peers: bool,
    screens: bool,
    screen_model: tuple[Path, ...],
    reference: Path | str | None,
    base_model: Path | str | None,
    timesteps: tuple[int, ...] | None,
    batch_size: int | None,
    backend: str,
    precision: str,
) -> None:
    """Measure how well each score tells memorized prompts, given LABELS (columns prompt, label, ...) or two lists.

    Interrupted or killed, the same command goes on from where it was.
    """
    if screen_model and not screens:
        raise click.UsageError("--screen-model is for --screens: add it")
    labelled = _labelled(labels, memorized, ordinary)
    usual = () if reference is None else tuple(captions.reference(reference))
    opened = Model(model, backend, precision, ScanConfig(timesteps=timesteps), usual, batch_size, base_model)
    with stoppable() as stop, progress() as watch:
        scores = evaluation.score(opened, labelled["prompt"].to_list(), watch, stop, out)
        theirs = compared.measure(opened, labelled, watch, stop, out) if peers else None
        smaller = [replace(opened, path=path) for path in screen_model]
        first = screened.measure(opened, smaller, labelled, watch, stop, out) if screens else None
    found = evaluation.evaluate(scores, labelled)
    beside = None if theirs is None else compared.table(theirs, scores, labelled, opened.settled, bool(usual))
    default = best_score(opened.settled, bool(usual))
    paths = evaluated.write(out, found, Path(model).name, default, beside, first)
    click.echo(evaluated.markdown(found, beside), nl=False)
    click.echo("Written: " + ", ".join(map(str, paths)), err=True)


def _labelled(labels: Path | None, memorized: tuple[Path | str, ...], ordinary: tuple[Path | str, ...]) -> pl.DataFrame:
    if labels is not None and not memorized and not ordinary:
        return read_labels(labels)
    if labels is None and memorized and ordinary:
        return of_lists(memorized, ordinary)
    raise click.UsageError("needed LABELS, or both --memorized and --ordinary")
