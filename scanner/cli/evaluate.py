"""`overscan evaluate`."""

from pathlib import Path

import click

from engines import BACKENDS, open_bundle
from scanner.cli.console import progress
from scanner.dataset import captions
from scanner.evidence import detection_report
from scanner.evidence import evaluate as evaluation


@click.command()
@click.argument("labels", type=click.Path(path_type=Path))
@click.option(
    "--model", required=True, type=click.Path(path_type=Path), help="Bundle, or a diffusers folder with torch."
)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder for the tables and plots.")
@click.option("--reference", type=click.Path(path_type=Path), help="Ordinary captions, for the _ref and _white scores.")
@click.option("--batch-size", type=click.IntRange(1), help="UNet samples per run.  [default: by latent size]")
@click.option("--backend", type=click.Choice(["auto", *BACKENDS]), default="auto", show_default=True)
def evaluate(
    labels: Path, model: Path, out: Path, reference: Path | None, batch_size: int | None, backend: str
) -> None:
    """Measure how well each score tells memorized prompts, given LABELS (columns prompt, label, ...)."""
    labelled = evaluation.read_labels(labels)
    ordinary = [] if reference is None else captions.reference(reference)
    with progress() as observe:
        scores = evaluation.score(
            open_bundle(model, backend), labelled["prompt"].to_list(), ordinary, batch_size, observe
        )
    found = evaluation.evaluate(scores, labelled)
    paths = detection_report.write(out, found, model.name)
    click.echo(detection_report.markdown(found), nl=False)
    click.echo("Written: " + ", ".join(map(str, paths)), err=True)
