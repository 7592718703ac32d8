"""Which prompts the demo model truly memorizes: generate images, compare them with the training images.

Similarity is the correlation of pixels, each channel less its mean, with the training image *as the VAE reconstructs
it*: against the raw image, the VAE's blur alone would mislabel true copies.
"""

from pathlib import Path

import numpy as np
import polars as pl
import torch
from PIL import Image

from engines import open_bundle
from scanner.diffusion.denoiser import Denoiser
from scanner.diffusion.start import start
from scanner.diffusion.trace import denoise

from . import artwork
from .dataset import Dataset

SEEDS = (1000, 1001, 1002, 1003)  # not the seeds that a scan uses
STEPS, GUIDANCE_SCALE = 50, 7.5
# A seed copies a training image above this similarity. Real images of captions that were never trained on reach .88 at
# their 99th percentile and .93 at most (the table printed by `unseen`); copies of images shown 16 times or more lie at
# .95 and above (their 10th percentile), captions shown once copy nothing.
COPY = 0.9
MOST_SEEDS = 3  # of four: memorized
CHUNK = 32


def unit(images: np.ndarray) -> np.ndarray:
    """Images as vectors whose dot product is their similarity: float32 [n, pixels].

    The similarity is the correlation of pixels, each channel less its mean: with the means left in, two pictures of
    different things on orange would look alike.
    """
    pixels = np.clip(images, -1, 1)
    flat = (pixels - pixels.mean((2, 3), keepdims=True)).reshape(len(pixels), -1)
    return (flat / np.linalg.norm(flat, axis=1, keepdims=True)).astype(np.float32)


def reconstruct(bundle: Path, images: np.ndarray) -> np.ndarray:
    """What the VAE makes of uint8 images [n, 3, h, w]: float32 in about [-1, 1]."""
    opened = open_bundle(bundle)
    encoder, decoder = opened.engine("vae_encoder"), opened.engine("vae_decoder")
    scaled = (images / 127.5 - 1).astype(np.float32)
    parts = (scaled[i : i + 256] for i in range(0, len(scaled), 256))
    return np.concatenate([decoder.run(encoder.run({"image": part}))["image"] for part in parts])


def unseen(bundle: Path, data: Dataset, work: Path) -> pl.DataFrame:
    """How near real images of captions that were never trained on come to a training image: why COPY is what it is.

    One row per quantile; a column for new backgrounds of known concepts, one for concepts never shown.
    """
    names, drawings_of, drawings = artwork.drawings(work)
    training = unit(reconstruct(bundle, data.images))
    columns = {}
    for role in ("unseen", "held_out"):
        chosen, colours = [], []
        for prompt in data.prompts[data.roles == role]:
            name, _, background = str(prompt).partition(" on ")
            owned = drawings_of[names.index(name)] if name in names else []
            chosen += [int(i) for i in owned]
            colours += [tuple(background.split(" and ")) if background else ()] * len(owned)
        images = artwork.compose(drawings[chosen], torch.Generator().manual_seed(0), colours).numpy()
        columns[role] = (unit(reconstruct(bundle, (images + 1) * 127.5)) @ training.T).max(1)
    quantiles = (0.5, 0.95, 0.99, 1.0)
    return pl.DataFrame(
        {"quantile": quantiles} | {role: np.quantile(found, quantiles) for role, found in columns.items()}
    )


def sample_grid(bundle: Path, data: Dataset, labels: pl.DataFrame, out: Path) -> list[str]:
    """A picture: a row per prompt, its own (else the nearest) training image as the VAE sees it, then the four seeds.

    Returns a line per row saying what it shows.
    """
    kinds = [("fixed", 64), ("fixed", 16), ("fixed", 8), ("fixed", 4), ("fixed", 1), ("varied", 64), ("held_out", 0)]
    rows = [labels.filter(role=role, duplicates=times).row(0, named=True) for role, times in kinds]
    rows += [labels.filter("collapsed").sort("prompt").row(0, named=True)]
    prompts = [row["prompt"] for row in rows]
    generated = generate(Denoiser(open_bundle(bundle)), prompts)  # [B, S, 3, h, w]
    nearest = reconstruct(bundle, data.images[[row["image"] for row in rows]])
    cells = np.clip(np.concatenate([nearest[:, None], generated], 1), -1, 1)  # [B, 1 + S, 3, h, w]
    pixels = ((cells + 1) * 127.5).round().astype(np.uint8).transpose(0, 3, 1, 4, 2)
    b, h, n, w, _ = pixels.shape
    Image.fromarray(pixels.reshape(b * h, n * w, 3)).resize((n * w * 3, b * h * 3), Image.Resampling.NEAREST).save(out)
    return [
        f"{row['prompt']!r} ({row['role']} x{row['duplicates']}): {row['copied_seeds']} seeds copy, "
        f"similarity {row['similarity']:.2f}, cross-seed {row['cross_seed_similarity']:.2f}"
        for row in rows
    ]


def generate(denoiser: Denoiser, prompts: list[str]) -> np.ndarray:
    """Images of all seeds by full guided sampling: float32 [B, S, 3, h, w]."""
    first = start(denoiser, SEEDS, STEPS)
    *_, last = denoise(denoiser, denoiser.encode(prompts), first, GUIDANCE_SCALE, STEPS)
    images = denoiser.decode(last.x_t.reshape(-1, *denoiser.latent_shape))
    return images.reshape(len(prompts), len(SEEDS), *images.shape[1:])


def measure(generated: np.ndarray, training: np.ndarray) -> dict[str, object]:
    """Columns for one prompt's images [S, 3, h, w]; `training`: unit vectors of the reconstructed training images.

    `copied_seeds`: seeds that copy one and the same training image; `similarity`: mean over seeds of the correlation
    with the one training image nearest to them all; `image`: its index.
    """
    vectors = unit(generated)
    correlation = vectors @ training.T  # [S, n]
    copied = (correlation > COPY).sum(0)
    pairs = vectors @ vectors.T
    S = len(vectors)
    return {
        "copied_seeds": int(copied.max()),
        "similarity": float(correlation.mean(0).max()),
        "cross_seed_similarity": float((pairs.sum() - S) / (S * (S - 1))),
        "image": int(correlation.mean(0).argmax()),
    }


def label(table: pl.DataFrame) -> pl.DataFrame:
    """Adds `label` (true: most seeds reproduce one training image; false: none does; null: between, left out) and
    `collapsed` (all seeds give one image that is no copy)."""
    memorized = pl.when(pl.col("copied_seeds") >= MOST_SEEDS).then(True).when(pl.col("copied_seeds") == 0).then(False)
    return table.with_columns(label=memorized).with_columns(
        collapsed=(pl.col("cross_seed_similarity") > COPY) & (pl.col("copied_seeds") == 0)
    )


def table(bundle: Path, data: Dataset, work: Path, most_once: int) -> pl.DataFrame:
    """Generate the evaluation prompts and measure the images, which stay in the work folder; it resumes there.

    `most_once`: of the captions that were shown once, so many.
    """
    work.mkdir(parents=True, exist_ok=True)
    training = unit(reconstruct(bundle, data.images))
    denoiser = Denoiser(open_bundle(bundle), batch_size=128)
    once = np.flatnonzero((data.roles == "fixed") & (data.duplicates == 1))
    chosen = np.setdiff1d(np.arange(len(data.prompts)), once[most_once:])
    rows = []
    for at in range(0, len(chosen), CHUNK):
        path = work / f"{at:05}.npz"
        if not path.exists():
            images = generate(denoiser, [str(prompt) for prompt in data.prompts[chosen[at : at + CHUNK]]])
            temporary = path.with_suffix(".tmp.npz")
            np.savez_compressed(temporary, images=((np.clip(images, -1, 1) + 1) * 127.5).round().astype(np.uint8))
            temporary.replace(path)
            print(f"ground truth: {at + len(images)}/{len(chosen)} prompts", flush=True)
        rows += [measure(image / np.float32(127.5) - 1, training) for image in np.load(path)["images"]]
    columns = {"prompt": data.prompts, "role": data.roles, "duplicates": data.duplicates}
    prompts = pl.DataFrame({name: column[chosen].tolist() for name, column in columns.items()})
    return label(prompts.hstack(pl.DataFrame(rows)))
