"""Options that more than one command takes."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from engines import BACKENDS, PRECISIONS
from scanner.cli import places
from scanner.cli.numbers import Numbers
from scanner.cli.scores import ScoreName
from scanner.config import PRIOR_NOISES, ScanConfig
from scanner.dataset import captions
from scanner.diffusion.scores import SCORES
from scanner.errors import ScannerError
from scanner.model import Model
from scanner.scanning.execute import VISIBLE, Executor, local, processes
from scanner.scanning.on_ray import on_ray


class Threshold(click.types.FloatParamType):
    """A number, or else the path of a file of `overscan threshold`."""

    name = "number or file"

    def __init__(self, file: places.Place = places.FILE):
        """`file`: what a path is."""
        self.file = file

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The number, or the path."""
        try:
            return float(value)
        except (TypeError, ValueError):
            return self.file.convert(value, param, ctx)


PRECISION = click.Choice(["auto", *PRECISIONS])
CREW = ("workers", "devices", "executor", "ray_address", "cpus_per_worker", "gpus_per_worker")  # of `executor`
STRENGTH = (ParameterSource.COMMANDLINE, ParameterSource.ENVIRONMENT, ParameterSource.DEFAULT_MAP)

filled_store = click.option("-s", "--store", required=True, type=places.FILLED_STORE, help="Folder that a scan filled.")
model = click.option(
    "-m", "--model", required=True, type=places.MODEL, help="Bundle, or a diffusers folder with torch."
)
ids = click.option(
    "--ids",
    multiple=True,
    help="With --report: prompt_id, or 8 or more first characters; several by commas, or repeated.",
)
reference = click.option("--reference", type=places.INPUT, help="Ordinary captions, for the _ref and _white scores.")
base_model = click.option(
    "--base-model", type=places.MODEL, help="The model that this one was made from, for the scores that compare."
)
score = click.option("--score", type=ScoreName(list(SCORES)), help="What to order by.  [default: the best of the scan]")
batch_size = click.option(
    "--batch-size", type=click.IntRange(1), help="UNet samples per run.  [default: by a trial, or by latent size]"
)
backend = click.option(
    "--backend",
    type=click.Choice(["auto", *BACKENDS]),
    default="auto",
    show_default=True,
    help="What runs the networks.",
)
seeds = click.option(
    "--seeds", type=click.IntRange(1), default=2, show_default=True, help="Starting noises per prompt."
)
first_steps = click.option(
    "--first-steps", type=click.IntRange(1), default=1, show_default=True, help="Denoising steps to run."
)
guidance_scale = click.option("--guidance-scale", type=float, default=7.5, show_default=True, help="1 = no guidance.")
TIMESTEPS = Numbers(int, "one or two timesteps by commas, such as 981,201, or first", {"first": ()})
timesteps = click.option(
    "--timesteps",
    type=TIMESTEPS,
    metavar="T[,T]",
    help="What the model is told at the starting noise, the noisier first; or: first, of the sampler.  "
    "[default: usual for its kind]",
)
prior_noises = click.option(
    "--prior-noises",
    type=click.IntRange(2, PRIOR_NOISES),
    help="Noises that the model's prior is made of, a pass each, once per model.  [default: 64, or 16 of large latents "
    "that are told what is usual]",
)
precision = click.option(
    "--precision", type=PRECISION, default="auto", show_default=True, help="What the networks compute in."
)

MODEL_OPTIONS = (
    model, reference, base_model, seeds, first_steps, timesteps, prior_noises, guidance_scale, batch_size, backend,
    precision,
)  # fmt: skip
SCAN_OPTIONS = (
    model,
    click.option("-s", "--store", required=True, type=places.STORE, help="Folder that keeps the scores."),
    click.option(
        "--column", help="Column or key of the captions; a.b: b inside a; several by commas.  [default: guessed]"
    ),
    click.option("--dialect", metavar="WORDS", help="Of CSV files, as in docs/inputs.md.  [default: guessed per file]"),
    reference,
    base_model,
    seeds,
    first_steps,
    timesteps,
    prior_noises,
    guidance_scale,
    batch_size,
    backend,
    precision,
    click.option("--workers", type=click.IntRange(1), default=1, show_default=True, help="Processes that score."),
    click.option(
        "--executor",
        type=click.Choice(["processes", "ray"]),
        default="processes",
        show_default=True,
        help="Where workers are: of this machine, or of a Ray cluster.",
    ),
    click.option("--ray-address", help="Of the cluster.  [default: RAY_ADDRESS, or one made of this machine]"),
    click.option("--cpus-per-worker", type=float, default=1, show_default=True, help="Cores of each worker on Ray."),
    click.option("--gpus-per-worker", type=float, default=0, show_default=True, help="GPUs of each worker on Ray."),
    click.option("--devices", metavar="0,1,...", help="GPUs that score, a process or more each."),
    click.option("--limit", type=click.IntRange(1), help="Only the first rows."),
    click.option("--strict", is_flag=True, help="A file that cannot be read is an error, and not left out."),
)


def examples(*commands: str) -> str:
    """The end of a command's help."""
    return "\b\nExamples:\n" + "\n".join(f"  {command}" for command in commands)


def scan_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The inputs and options of everything that scores captions."""
    for option in reversed(SCAN_OPTIONS):
        command = option(command)
    return command


def model_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """A model and the settings that make a scan_id."""
    for option in reversed(MODEL_OPTIONS):
        command = option(command)
    return command


def as_text(argument: str) -> str:
    """An argument's text, with U+FFFD for bytes that are none, as the readers of files give it."""
    return os.fsencode(argument).decode(errors="replace")


def scan_config(
    seeds: int, first_steps: int, timesteps: tuple[int, ...] | None, prior_noises: int | None, guidance_scale: float
) -> ScanConfig:
    """The configuration that these options ask for: so many seeds are the numbers from 0 up. Raises ScannerError."""
    return ScanConfig(
        guidance_scale=guidance_scale, first_steps=first_steps, seeds=tuple(range(seeds)), timesteps=timesteps,
        prior_noises=prior_noises,
    )  # fmt: skip


def scan_model(
    path: Path,
    *,
    reference: Path | str | None,
    base_model: Path | str | None,
    seeds: int,
    first_steps: int,
    timesteps: tuple[int, ...] | None,
    prior_noises: int | None,
    guidance_scale: float,
    batch_size: int | None,
    backend: str,
    precision: str,
) -> Model:
    """The model that MODEL_OPTIONS ask for. Raises ScannerError."""
    ordinary = () if reference is None else tuple(captions.reference(reference))
    config = scan_config(seeds, first_steps, timesteps, prior_noises, guidance_scale)
    return Model(path, backend, precision, config, ordinary, batch_size, base_model)


def executor(
    workers: int,
    devices: str | None = None,
    executor: str = "processes",
    ray_address: str | None = None,
    cpus_per_worker: float = 1,
    gpus_per_worker: float = 0,
) -> Executor:
    """Where so many workers score, at least one per device; a single one is this process. Raises ScannerError.

    This process, too, sees only the named devices: it prepares the model on the first.
    """
    if executor == "ray":
        if devices is not None:
            raise ScannerError("devices with the executor ray: it gives out GPUs itself: name --gpus-per-worker")
        return on_ray(workers, ray_address, cpus_per_worker, gpus_per_worker)
    if devices is None:
        return local if workers == 1 else processes(workers)
    named = visible(devices, os.environ.get(VISIBLE))
    os.environ[VISIBLE] = ",".join(named)
    return processes(max(workers, len(named)), named)


def visible(devices: str, seen: str | None) -> list[str]:
    """Devices as CUDA_VISIBLE_DEVICES names them, numbers counting those that a process may see. Raises ScannerError.

    >>> visible("0,1", "4,5,6"), visible("0, 2", None)
    (['4', '5'], ['0', '2'])
    """
    named = [device.strip() for device in devices.split(",")]
    if not all(named) or len(set(named)) < len(named):
        raise ScannerError(f"devices {devices!r}: needed different numbers of GPUs by commas, such as 0,1")
    held = None if seen is None else [device.strip() for device in seen.split(",")]
    if held is None:
        return named
    if beyond := [device for device in named if device.isdigit() and int(device) >= len(held)]:
        raise ScannerError(f"device {beyond[0]}: {VISIBLE} is {seen}, so there are 0 to {len(held) - 1}")
    return [held[int(device)] if device.isdigit() else device for device in named]


def strongest(limits: dict[str, Any]) -> dict[str, Any]:
    """Those of the running command's options that the strongest source sets: a stronger one drops a weaker one's."""
    context = click.get_current_context()
    sources = {name: context.get_parameter_source(name) for name, limit in limits.items() if limit is not None}
    if not sources:
        return {}
    first = min(sources.values(), key=STRENGTH.index)
    return {name: limits[name] for name, source in sources.items() if source is first}
