"""`overscan evaluate`."""

from pathlib import Path

import click

from scanner.cli import options, places
from scanner.cli.console import progress
from scanner.cli.signals import stoppable
from scanner.dataset import captions
from scanner.evidence import evaluate as evaluation
from scanner.evidence import evaluated
from scanner.model import Model


@click.command()
@click.argument("labels", type=places.FILE)
@options.model
@click.option("--out", required=True, type=places.OUT_FOLDER, help="Folder for the tables and plots.")
@options.reference
@options.batch_size
@options.backend
@options.precision
def evaluate(
    labels: Path,
    model: Path,
    out: Path,
    reference: Path | str | None,
    batch_size: int | None,
    backend: str,
    precision: str,
) -> None:
    """Measure how well each score tells memorized prompts, given LABELS (columns prompt, label, ...).

    Interrupted or killed, the same command goes on from the chunk of prompts it was at.
    """
    labelled = evaluation.read_labels(labels)
    ordinary = () if reference is None else tuple(captions.reference(reference))
    opened = Model(model, backend, precision, reference=ordinary, batch_size=batch_size)
    with stoppable() as stop, progress() as watch:
        scores = evaluation.score(opened, labelled["prompt"].to_list(), watch, stop, out)
    found = evaluation.evaluate(scores, labelled)
    paths = evaluated.write(out, found, model.name)
    click.echo(evaluated.markdown(found), nl=False)
    click.echo("Written: " + ", ".join(map(str, paths)), err=True)
