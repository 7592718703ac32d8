"""`overscan verify`."""

from dataclasses import replace
from pathlib import Path

import click

from scanner.cli import options, places
from scanner.cli.numbers import Numbers
from scanner.cli.progress import progress
from scanner.config import unet_passes
from scanner.copies import written
from scanner.evidence import generated, verify_page
from scanner.evidence.chosen import check_model, choose, with_images
from scanner.evidence.verification import verdict
from scanner.evidence.verify import FIRST_SEED, Sampling
from scanner.model import Model
from scanner.model.scorer import EVERYDAY
from scanner.places import Place, inside
from scanner.report.read import read_night


@click.command(
    epilog=options.examples(
        "overscan verify --report report -m bundle -o verified --top 5",
        'overscan verify --prompt "christmas tree" --image tree.png -m bundle -o verified',
        'overscan verify --prompt "christmas tree" -m bundle -o verified --sweep 1,3,5,10',
    )
)
@options.model
@click.option(
    "-o", "--out", required=True, type=places.OUT_FOLDER, help="Folder for the page, the images and the numbers."
)
@click.option("--prompt", multiple=True, allow_from_autoenv=False, help="Prompt to verify; repeatable.")
@click.option("--image", multiple=True, type=places.FILE, help="Image for each --prompt, in their order.")
@click.option("--report", type=places.FOLDER, help="Report folder: verify its highest-ranked prompts.")
@options.ids
@click.option("--top", type=click.IntRange(1), default=10, show_default=True, help="With --report: the N highest.")
@click.option("--seeds", type=click.IntRange(2), default=4, show_default=True, help=f"Seeds, from {FIRST_SEED} up.")
@click.option("--guidance-scale", type=float, help="1 = no guidance.  [default: 7.5; 1 where it is distilled]")
@click.option(
    "--sweep",
    type=Numbers(float, "guidance scales by commas, such as 1,3,5,10"),
    default=(),
    metavar="G,...",
    help="Guidance scales to sample each prompt at too: does it copy more as they grow?",
)
@click.option("--num-inference-steps", type=click.IntRange(1), default=50, show_default=True, help="Of each image.")
@click.option("--descriptor", type=places.FILE, help="ONNX copy detector (image in, embedding out), such as SSCD.")
@options.batch_size
@options.backend
@options.precision
def verify(
    model: Place,
    out: Place,
    prompt: tuple[str, ...],
    image: tuple[Path, ...],
    report: Path | None,
    ids: tuple[str, ...],
    top: int,
    seeds: int,
    guidance_scale: float | None,
    sweep: tuple[float, ...],
    num_inference_steps: int,
    descriptor: Path | None,
    batch_size: int | None,
    backend: str,
    precision: str,
) -> None:
    """Generate images of chosen prompts over several seeds; compare them, and look at how they came about.

    Images need the extra "images". A page, the images, and verify.json and verify.parquet with the numbers. What was
    generated is kept in the cache: the same command goes on from there.
    """
    chosen = with_images([options.as_text(text) for text in prompt], image)
    if report is not None:
        night = read_night(report)
        for text in choose(night, ids, top):
            chosen.setdefault(text)
    elif ids or not prompt:
        raise click.UsageError("--ids needs --report" if ids else "needed --prompt or --report")
    opened = Model(model, backend, precision, batch_size=batch_size)
    if report is not None:
        check_model(night.summary, model, opened.bundle.manifest.fingerprint)
    scales = list(dict.fromkeys(map(opened.denoiser.guidance, (guidance_scale, *sweep))))
    sampling = Sampling(tuple(range(FIRST_SEED, FIRST_SEED + seeds)), scales[0], num_inference_steps)
    click.echo(_announced(len(chosen), len(scales), sampling), err=True)
    with written(out) as folder, progress() as watch:
        found = generated.verify_all(opened, sampling, chosen, descriptor, watch, scales[1:])
        usual = {g: generated.ordinary(opened, replace(sampling, guidance_scale=g), watch) for g in scales}
        files = verify_page.write(folder, found, sampling, Path(model).name, usual)
        paths = [inside(out, path.name) for path in files]
    for one in found:
        click.echo(f"{one.mean_correlation:.3f}  {verdict(one)}  {one.prompt}")
    click.echo("Written: " + ", ".join(map(str, paths)), err=True)


def _announced(prompts: int, scales: int, sampling: Sampling) -> str:
    """What it costs at most: each prompt and everyday caption at each scale, and the empty prompt without guidance."""
    passes = ((prompts + len(EVERYDAY)) * scales + 1) * unet_passes(len(sampling.seeds), sampling.num_inference_steps)
    at = "" if scales == 1 else f" at each of {scales} guidance scales"
    return (
        f"Generates {prompts:,} {'prompt' if prompts == 1 else 'prompts'}, and {len(EVERYDAY)} everyday captions to "
        f"compare with{at}: at most {passes:,} UNet passes; what the cache holds is not run again."
    )
