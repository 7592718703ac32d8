"""`overscan export`."""

from pathlib import Path

import click

from engines import EngineError, open_bundle
from scanner.cli.options import ANY_PATH


@click.command()
@click.argument("source", type=ANY_PATH)
@click.argument("out", type=ANY_PATH)
@click.option("--dtype", type=click.Choice(["float32", "float16"]), default="float32", show_default=True)
def export(source: Path, out: Path, dtype: str) -> None:
    """Export a diffusers checkpoint (SOURCE: a folder or a hub id) to a bundle OUT that runs without torch."""
    try:
        from engines.export import export as export_bundle
    except ImportError as error:
        raise EngineError(f'{error}: exporting needs pip install "overscan[cpu,export]"') from error
    from scanner.evidence.fidelity import check

    def check_scores(checkpoint: Path, bundle: Path) -> None:
        click.echo(
            "comparing the scores of a few prompts with torch: 80 UNet passes, or minutes on a large model", err=True
        )
        for row in check(open_bundle(checkpoint, "torch"), open_bundle(bundle, "cpu")).iter_rows(named=True):
            click.echo(f"{row['score']}: largest {row['kind']} error {row['largest_error']:.1e}", err=True)

    export_bundle(source, out, dtype, check=check_scores, report=lambda line: click.echo(line, err=True))
    click.echo(str(out))
