"""`overscan images`."""

import click

from scanner.audit.choice import best
from scanner.cli import closer, options, places
from scanner.cli.progress import progress
from scanner.copies import written
from scanner.disk import work_folder
from scanner.evidence import images as paired_images
from scanner.evidence import images_page
from scanner.model import Model
from scanner.places import Place, inside
from scanner.store.stored import read_store


@click.command(
    epilog=options.examples(
        "overscan images -s store -m bundle --images path -o images",
        "overscan images -s store -m bundle --images members -o images --top 500",
    )
)
@options.filled_store
@click.option("--scan-id", help="Scan to look at, 8 or more first characters.  [default: the one that began last]")
@options.model
@click.option(
    "--images",
    required=True,
    metavar="COLUMN|members",
    help="Column of local paths in the captions' files; members: the image of each webdataset sample.",
)
@click.option("--top", type=click.IntRange(1), default=100, show_default=True, help="Prompts to look at.")
@options.score
@click.option("-o", "--out", required=True, type=places.OUT_FOLDER, help="Folder for the page and the numbers.")
@options.batch_size
@options.backend
@options.precision
def images(
    store: Place,
    scan_id: str | None,
    model: Place,
    images: str,
    top: int,
    score: str | None,
    out: Place,
    batch_size: int | None,
    backend: str,
    precision: str,
) -> None:
    """Measure how much of their paired images the first steps of a scan's highest prompts hold.

    Also names the nearest of all images looked at: a caption may be memorized with another image than its own.
    """
    work = click.get_current_context().with_resource(work_folder())
    stored = read_store(store, scan_id, work=work)
    score = best(stored) if score is None else score
    opened = Model(model, backend, precision, batch_size=batch_size)
    with written(out) as folder, progress() as watch:
        found = paired_images.look(stored, opened, images, score, top, watch)
        paths = [inside(out, path.name) for path in images_page.write(folder, found, stored.scan_id)]
        reported = closer.reported(folder)
    for status, count in found["status"].value_counts(sort=True).iter_rows():
        click.echo(f"{status:<11} {count:,}")
    click.echo(images_page.headline(found))
    click.echo(f"Written: {', '.join(map(str, paths))}", err=True)
    if reported:
        click.echo(closer.AGAIN, err=True)
