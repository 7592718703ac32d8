"""The stages, each a function that keeps its result in the work folder and returns it, made or found there."""

import copy
import hashlib
import json
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTokenizer

from engines import open_bundle
from engines.export import export
from scanner.diffusion.denoiser import Denoiser

from . import checks, controls, dataset, diffusion, labels, sources, towers
from .dataset import Dataset
from .fit import fit
from .parallel import is_first, wait

KINDS = ("v_prediction", "epsilon")
CHECKED = 300  # prompts
NEVER_SHOWN = 3000  # real pictures of the pool, from which the threshold of a copy is read


@dataclass(frozen=True)
class Generator:
    """What generates the labels' pictures."""

    backend: str
    precision: str


@dataclass(frozen=True)
class Data:
    """The diffusion model's dataset; pictures and captions of the pool; drawings, by name and as pixels."""

    dataset: Dataset
    pool: tuple[np.ndarray, list[str]]


@dataclass(frozen=True)
class Frozen:
    """What is trained on the pool and then frozen."""

    towers: towers.Towers
    tokenizer: CLIPTokenizer
    vae: AutoencoderKL


@dataclass(frozen=True)
class Encoded(Frozen):
    """And what it makes of the dataset: `hidden` [p + 1, L, d], `latents` [n, 4, 16, 16]."""

    latents: torch.Tensor
    hidden: torch.Tensor
    pooled: torch.Tensor


def data(work: Path, seed: int, size: int) -> Data:
    """Fetch, rasterise, paint, write captions, assign roles; pictures of `size` pixels, 64 or 32.

    Raises SystemExit where the work folder holds weights that were trained on other pictures or captions.
    """
    if not is_first():
        wait()
    known, pixels = sources.drawings(work)
    pool = dataset.build_pool(work, known, pixels, seed)
    shown = dataset.build(work, known, pixels, seed)
    if is_first():
        belongs(work, {"seed": seed, "size": size, "captions": fingerprint(shown.prompts)})
        wait()
        print(
            f"{len(known)} drawings; pool: {len(pool[0])} pictures; {len(shown.images)} pictures in "
            f"{len(shown.rows)} rows, {len(shown.prompts)} captions", flush=True,
        )  # fmt: skip
    return Data(replace(shown, images=shrunk(shown.images, size)), (shrunk(pool[0], size), pool[1]))


def fingerprint(prompts: Iterable[str]) -> str:
    """Of a dataset's captions, in their order."""
    return hashlib.sha256("\n".join(map(str, prompts)).encode()).hexdigest()[:16]


def belongs(work: Path, these: Mapping[str, int | str]) -> None:
    """Note in `work/data.json` what the folder's weights are of. Raises SystemExit where they are of other data."""
    path = work / "data.json"
    noted = json.loads(path.read_text(encoding="utf-8")) if path.exists() else dict(these)
    if differing := [f"{name} {noted[name]}, here {value}" for name, value in these.items() if noted[name] != value]:
        raise SystemExit(f"{path}: what lies in {work} was made of {'; '.join(differing)}: name another work folder")
    work.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(noted, indent=1) + "\n", encoding="utf-8")


def shrunk(images: np.ndarray, size: int) -> np.ndarray:
    """Pictures uint8 [n, 3, 64, 64] averaged down to `size` pixels."""
    n, channels, side, _ = images.shape
    if size == side:
        return images
    return images.reshape(n, channels, size, side // size, size, side // size).mean((3, 5)).round().astype(np.uint8)


def initial_weights(stage: int, shown: Dataset) -> None:
    """Seed what a stage's networks start from: others for every stage and every dataset."""
    torch.manual_seed(stage + len(KINDS) * 8 * (shown.seed - dataset.SEED))


def text(work: Path, found: Data) -> tuple[towers.Towers, CLIPTokenizer]:
    """The frozen towers and their tokenizer."""
    images, texts = found.pool
    tokenizer = towers.train_tokenizer(texts, work / "tokenizer")
    initial_weights(0, found.dataset)
    both = towers.Towers(tokenizer)
    loss = towers.towers_loss(both, images, towers.tokenize(tokenizer, texts))
    fit("text", [both], loss, towers.STEPS, towers.LR, work)
    return both, tokenizer


def vae(work: Path, found: Data) -> AutoencoderKL:
    initial_weights(1, found.dataset)
    model = diffusion.new_vae(found.dataset.images.shape[-1])
    fit("vae", [model], diffusion.vae_loss(model, found.pool[0]), diffusion.VAE_STEPS, diffusion.VAE_LR, work)
    return model


def frozen(work: Path, found: Data) -> Encoded:
    """Towers and VAE, and what they make of the dataset."""
    both, tokenizer = text(work, found)
    model = vae(work, found)
    if not (cache := work / "latents.pt").exists() and is_first():
        latents, psnr = diffusion.encode(model, found.dataset.images)
        print(f"vae: PSNR {psnr:.2f} dB on the diffusion model's pictures", flush=True)
        torch.save((latents, model.config.scaling_factor), cache)
    wait()
    latents, scaling_factor = torch.load(cache)
    model.register_to_config(scaling_factor=scaling_factor)
    tokens = towers.tokenize(tokenizer, [*map(str, found.dataset.prompts), ""])
    with torch.no_grad():
        outputs = [both.text(part) for part in tokens.split(512)]
    hidden, pooled = (
        torch.cat(parts) for parts in zip(*((o.last_hidden_state, o.pooler_output) for o in outputs), strict=True)
    )
    return Encoded(both, tokenizer, model, latents, hidden, pooled)


def unet(work: Path, found: Data, parts: Encoded, kind: str) -> UNet2DConditionModel:
    """The denoiser: all rows first, then, until it has memorized, the focused ones; epsilon goes on from the v model's
    weights. Three states on the way stay in `work`."""
    initial_weights(2, found.dataset)
    if kind == "v_prediction":
        model = diffusion.new_unet(parts.latents.shape[-1])
        trainings = [(kind, found.dataset), ("focus", found.dataset.focused())]
    else:
        model = unet(work, found, parts, "v_prediction")
        trainings = [(kind, found.dataset.focused())]
    for name, shown in trainings:
        steps, lr = diffusion.TRAININGS[name]
        model.requires_grad_(True)
        loss = diffusion.diffusion_loss(shown.batch, parts.latents, parts.hidden, model, kind)
        fit(name, [model], loss, steps, lr, work, [steps * quarter // 4 for quarter in (1, 2, 3)])
    return model


def save(folder: Path, parts: Frozen, model: UNet2DConditionModel, kind: str) -> None:
    """A diffusers folder, weights in float16."""
    halves = [copy.deepcopy(part).half() for part in (parts.vae, parts.towers.text, model)]
    pipeline = StableDiffusionPipeline(
        halves[0], halves[1], parts.tokenizer, halves[2], diffusion.scheduler(kind),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    shutil.rmtree(folder, ignore_errors=True)
    pipeline.save_pretrained(folder)


def spread(latents: torch.Tensor) -> float:
    """Of training latents [n, 4, h, w] about their mean picture, which a bundle notes."""
    return round(float((latents - latents.mean(0)).square().mean().sqrt()), 4)


def bundle(work: Path, parts: Encoded, model: UNet2DConditionModel, kind: str) -> Path:
    """The checkpoint and its exported bundle, with the spread of its training latents."""
    checkpoint, out = work / f"checkpoint-{kind}", work / f"bundle-{kind}"
    if not out.exists():
        save(checkpoint, parts, model, kind)
        export(checkpoint, out, latent_std=spread(parts.latents), say=print)
    return out


def label(
    work: Path, found: Data, parts: Encoded, folder: Path, kind: str, generator: Generator, steps: int = labels.STEPS
) -> pl.DataFrame:
    """The labelled prompts, in `work/labels-KIND.parquet`; tables and controls are printed, and checks of all steps."""
    out, images = work / f"labels-{kind}.parquet", work / f"images-{kind}"
    denoiser = Denoiser(open_bundle(folder, generator.backend, generator.precision), batch_size=128)
    never_shown = found.pool[0][:: max(1, len(found.pool[0]) // NEVER_SHOWN)]
    pixels, vectors = labels.gauges(denoiser, parts.towers.image, found.dataset.images, never_shown)
    if not out.exists():
        tower, prompts = parts.towers.image, found.dataset.prompts
        painter = labels.Painter(denoiser, prompts, tower, pixels, vectors, images)
        table = labels.table(found.dataset, painter.look, pixels.threshold, vectors.threshold, steps)
        table.write_parquet(out)
    table = pl.read_parquet(out)
    report(table, parts)
    if steps < labels.STEPS:
        return table
    measured = checks.Measured(table, parts.towers.image, pixels, vectors)
    print("labels that two seeds and 25 steps miss:", checks.cheap(measured, denoiser, CHECKED, images))
    print("labels that float32 changes:", checks.precision(measured, folder, CHECKED // 5, images))
    print(*checks.sample_grid(denoiser, found.dataset, table, work / f"samples-{kind}.png"), sep="\n", flush=True)
    return table


def report(table: pl.DataFrame, parts: Encoded) -> None:
    """Print labels by role, the agreement of the two similarities, and what the text alone tells."""
    by_role = table.group_by("role", "duplicates").agg(
        pl.len(), pl.col("label", "tower_label").sum(), pl.col("label").null_count().alias("left_out"),
        pl.col("collapsed").sum(), pl.col("similarity", "tower_similarity", "cross_seed_similarity").mean().round(3),
    )  # fmt: skip
    with pl.Config(tbl_rows=-1, tbl_cols=-1, tbl_width_chars=120):
        print(by_role.sort("role", "duplicates"))
    print("two similarities:", {name: round(value, 3) for name, value in labels.agreement(table).items()})
    print("AUROC of the text alone:", {name: round(value, 3) for name, value in text_only(table, parts).items()})


def text_only(table: pl.DataFrame, parts: Encoded) -> dict[str, float]:
    """AUROCs of what the frozen text encoder alone tells of the labels: chance, as it must be."""
    decided = table.with_row_index("at").drop_nulls("label")
    at = decided["at"].to_numpy()
    memorized, group = decided["label"].to_numpy(), decided["group"].to_numpy()
    return controls.text_only(parts.pooled[at].numpy(), parts.hidden[at].numpy(), memorized, group)
