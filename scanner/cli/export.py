"""`overscan export`."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click

from engines import Bundle, EngineError, manifest
from engines.installed import install_line
from engines.partial import partial_folder, prefix, sweep
from scanner.cli.options import examples
from scanner.cli.places import ANY_PATH, CHECKPOINT, NEW
from scanner.cli.progress import progress
from scanner.errors import ScannerError
from scanner.model import Model


class Pixels(click.ParamType[Any]):
    """HEIGHTxWIDTH, or one number for both."""

    name = "HxW"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        """Both numbers."""
        parts = str(value).lower().split("x")
        if len(parts) > 2 or not all(part.isdecimal() for part in parts):
            self.fail(f"{value!r}: needed HEIGHTxWIDTH, such as 768x1024", param, ctx)
        return int(parts[0]), int(parts[-1])


@click.command(
    epilog=examples(
        "overscan export path/to/stable-diffusion bundle",
        "overscan export stable-diffusion-v1-5/stable-diffusion-v1-5 --dry-run",
        "overscan export finetune.safetensors bundle --layout path/to/stable-diffusion",
    )
)
@click.argument("source", type=CHECKPOINT)
@click.argument("out", type=NEW, required=False)
@click.option(
    "--dtype",
    type=click.Choice(["float32", "float16", "int8"]),
    default="float32",
    show_default=True,
    help="Of the weights.",
)
@click.option("--captions", metavar="INPUT", help="Captions like those to be scanned, to make int8 with.")
@click.option("--variant", metavar="NAME", help="Of the weights, such as fp16.  [default: the plain or only one]")
@click.option("--unet", type=ANY_PATH, help="Another UNet or transformer: a diffusers folder, or a single file.")
@click.option("--vae", type=ANY_PATH, help="Another VAE: a diffusers folder, or a single file.")
@click.option("--lora", multiple=True, metavar="FILE[:WEIGHT]", help="Fused into the weights; may be repeated.")
@click.option("--embedding", multiple=True, metavar="FILE[:WORD]", help="A textual inversion; may be repeated.")
@click.option("--layout", type=ANY_PATH, help="Of a single file: a diffusers folder, or sd1, sd2-base, sd2-v, sdxl.")
@click.option("--tokenizer", type=ANY_PATH, help="CLIP's, for a single file without a folder: a folder, or CLIP's BPE.")
@click.option("--size", type=Pixels(), help="Of the model's images, in pixels.  [default: the pipeline's]")
@click.option("--original-size", type=Pixels(), help="What SDXL is told its image was.  [default: the images' size]")
@click.option("--crop", type=Pixels(), help="Top and left of the crop that SDXL is told.  [default: 0x0]")
@click.option("--target-size", type=Pixels(), help="What SDXL is told to make.  [default: the images' size]")
@click.option("--max-sequence-length", type=int, help="Tokens of a T5 text encoder.  [default: the pipeline's]")
@click.option("--guidance", type=float, help="What FLUX dev is told of it.  [default: the pipeline's]")
@click.option("--dry-run", is_flag=True, help="Say what would be exported, or why not; read no weights.")
def export(source: Path, out: Path | None, dtype: str, captions: str | None, dry_run: bool, **asked: Any) -> None:
    """Export a checkpoint (SOURCE: diffusers folder, single file, or hub id) to a bundle OUT that runs without torch.

    Families: Stable Diffusion v1 and v2, Stable Diffusion XL, Stable Diffusion 3 and 3.5, PixArt alpha and sigma,
    FLUX.1 dev and schnell.

    int8 is for a scan's first pass, on the openvino backend; SOURCE may be a float32 bundle then.
    """
    if dry_run:
        _dry_run(source, dtype, asked)
        return
    if out is None:
        raise click.UsageError("Missing argument 'OUT': the bundle's folder, or --dry-run")
    if out.exists():
        raise ScannerError(f"{out} exists: remove it or name another folder")
    if dtype == "int8":
        _export_int8(source, out, captions, asked)
    elif captions is not None:
        raise ScannerError(f"captions are for --dtype int8, and {dtype} needs none: leave one of them out")
    elif (source / manifest.FILE).is_file():
        raise ScannerError(f"{source}: a bundle already, which --dtype int8 alone takes; needed a diffusers checkpoint")
    else:
        _export(source, out, dtype, asked)
    click.echo(str(out))


def _say(line: str) -> None:
    click.echo(line, err=True)


def _options(asked: Mapping[str, Any]) -> Any:
    from engines.families import Options

    return Options(**{item.name: asked[item.name] for item in fields(Options)})


def _changes(asked: Mapping[str, Any]) -> Any:
    from engines.embedding import Embedding
    from engines.forms import Changes
    from engines.lora import Lora

    loras, embeddings = tuple(map(Lora.of, asked["lora"])), tuple(map(Embedding.of, asked["embedding"]))
    return Changes(asked["unet"], asked["vae"], loras, embeddings, asked["layout"], asked["tokenizer"])


@contextmanager
def _extra() -> Iterator[None]:
    """Say what to install where an import fails."""
    try:
        yield
    except ImportError as error:
        raise EngineError(f"{error}: exporting needs {install_line('cpu', 'export')}") from error


def _dry_run(source: Path, dtype: str, asked: Mapping[str, Any]) -> None:
    with _extra():
        from engines.forms import configured
        from engines.outlook import outlook
    with TemporaryDirectory() as work:
        folder = configured(source, _changes(asked), Path(work)) if source.is_file() else source
        for line in outlook(folder, dtype, _options(asked)):
            click.echo(line)


def _export(source: Path, out: Path, dtype: str, asked: Mapping[str, Any]) -> None:
    with _extra():
        from engines.export import export as export_bundle
    from scanner.fidelity.check import check

    def check_scores(checkpoint: Bundle, bundle: Bundle) -> None:
        click.echo(
            "comparing the scores of a few prompts with torch: 20 UNet passes, or minutes on a large model", err=True
        )
        with progress() as watch:
            found = check(Model.of(checkpoint), Model.of(bundle), watch)
        for row in found.iter_rows(named=True):
            _say(f"{row['score']}: largest {row['kind']} error {row['largest_error']:.1e}")

    given = {"options": _options(asked), "variant": asked["variant"], "changes": _changes(asked)}
    export_bundle(source, out, dtype, check=check_scores, say=_say, **given)


def _export_int8(source: Path, out: Path, captions: str | None, asked: Mapping[str, Any]) -> None:
    """From a float32 bundle, which a checkpoint becomes first."""
    from scanner.fidelity.int8 import export_int8, prompts_of

    if captions is None:
        raise ScannerError("int8 is made by running the UNet on captions: needed --captions, such as the dataset")
    prompts = prompts_of(captions)  # first, as an export takes minutes
    if (source / manifest.FILE).is_file():
        export_int8(source, out, prompts, _say)
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    sweep(out.parent, prefix(out))
    with partial_folder(out.parent, prefix(out)) as folder:
        bundle = folder / "float32"
        _export(source, bundle, "float32", asked)
        export_int8(bundle, out, prompts, _say)
