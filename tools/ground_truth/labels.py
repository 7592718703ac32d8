"""Labels by generation, never by role: four seeds, 50 DDIM steps, guidance scale 7.5.

Captions shown at most once get two seeds and 25 steps first, a quarter of the price, and all only where these agree
with one another or with a training picture (`similarity.suspicious`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from scanner.diffusion.denoiser import Denoiser
from scanner.diffusion.start import start
from scanner.diffusion.trace import denoise

from .dataset import Dataset
from .similarity import Gauge, copy_threshold, copy_vectors, label, suspicious, unit
from .towers import ImageTower

SEEDS = (1000, 1001, 1002, 1003)  # not the seeds that a scan uses
STEPS, CHEAP_STEPS, GUIDANCE_SCALE = 50, 25, 7.5
CHUNK = 32
# prompts by number, seeds, steps, a name for progress -> of each prompt both similarities
Look = Callable[[Sequence[int], Sequence[int], int, str], Mapping[int, dict[str, dict]]]


def scaled(images: np.ndarray) -> np.ndarray:
    """uint8 to float32 in [-1, 1]."""
    return (images / np.float32(127.5) - 1).astype(np.float32)


def generate(
    denoiser: Denoiser, prompts: Sequence[str], seeds: Sequence[int], steps: int, scale: float = GUIDANCE_SCALE
) -> np.ndarray:
    """Pictures of all seeds by full guided sampling: uint8 [B, S, 3, h, w]."""
    first = start(denoiser, seeds, steps)
    *_, last = denoise(denoiser, denoiser.encode(prompts), first, scale, steps)
    images = denoiser.decode(last.x_t.reshape(-1, *denoiser.latent_shape))
    pixels = ((np.clip(images, -1, 1) + 1) * 127.5).round().astype(np.uint8)
    return pixels.reshape(len(prompts), len(seeds), *pixels.shape[1:])


def generated(
    denoiser: Denoiser, prompts: Sequence[str], seeds: Sequence[int], steps: int, folder: Path,
    scale: float = GUIDANCE_SCALE,
) -> np.ndarray:  # fmt: skip
    """`generate` in chunks that stay in `folder`, where an interrupted run goes on."""
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for at in range(0, len(prompts), CHUNK):
        path = folder / f"{at:05}.npz"
        if not path.exists():
            images = generate(denoiser, list(prompts[at : at + CHUNK]), seeds, steps, scale)
            np.savez_compressed(path.with_suffix(".tmp.npz"), images=images)
            path.with_suffix(".tmp.npz").replace(path)
            print(f"{folder.name}: {at + len(images)}/{len(prompts)} prompts", flush=True)
        found.append(np.load(path)["images"])
    return np.concatenate(found)


@dataclass(frozen=True)
class Painter:
    """Looks at prompts through an engine; pictures stay in `work`, where an interrupted run goes on."""

    denoiser: Denoiser
    prompts: Sequence[str]
    tower: ImageTower
    pixels: Gauge
    vectors: Gauge
    work: Path

    def look(self, prompts: Sequence[int], seeds: Sequence[int], steps: int, what: str) -> dict[int, dict[str, dict]]:
        """Both similarities of each prompt's pictures."""
        asked = [str(self.prompts[i]) for i in prompts]
        images = generated(self.denoiser, asked, seeds, steps, self.work / what)
        return {i: measure(p, self.tower, self.pixels, self.vectors) for i, p in zip(prompts, images, strict=True)}


def gauges(denoiser: Denoiser, tower: ImageTower, shown: np.ndarray, never_shown: np.ndarray) -> tuple[Gauge, Gauge]:
    """Both similarities for training pictures uint8 [n, ...]; `never_shown`: other real pictures, for thresholds."""
    training, other = (denoiser.decode(denoiser.encode_images(scaled(images))) for images in (shown, never_shown))
    pixels = Gauge(unit(training), copy_threshold(unit(other), unit(training)))
    vectors = copy_vectors(tower, training)
    return pixels, Gauge(vectors, copy_threshold(copy_vectors(tower, other), vectors))


def measure(images: np.ndarray, tower: ImageTower, pixels: Gauge, vectors: Gauge) -> dict[str, dict]:
    """Both similarities of one prompt's pictures uint8 [S, 3, h, w]."""
    pictures = scaled(images)
    return {"pixel": pixels.measure(unit(pictures)), "tower": vectors.measure(copy_vectors(tower, pictures))}


def table(data: Dataset, look: Look, pixel: float, vector: float, steps: int = STEPS) -> pl.DataFrame:
    """A row per prompt: role, both similarities, labels. `pixel`, `vector`: similarities above which a copy is one."""
    print(f"copies: pixels > {pixel:.3f}, tower > {vector:.3f}", flush=True)
    rarely = [int(i) for i in np.flatnonzero(data.duplicates <= 1)]
    found = dict(look(rarely, SEEDS[:2], CHEAP_STEPS, "cheap"))
    cleared = {i for i, m in found.items() if not suspicious(m["pixel"], m["tower"], pixel, vector)}
    closer = [i for i in range(len(data.prompts)) if i not in cleared]
    found |= look(closer, SEEDS, steps, "full")
    return pl.DataFrame([row(data, i, found[i], i in cleared, pixel) for i in range(len(data.prompts))])


def row(data: Dataset, prompt: int, found: dict[str, dict], cleared: bool, threshold: float) -> dict[str, object]:
    """One line of the table. `collapsed`: all seeds give one picture that is no copy."""
    pixel, tower = found["pixel"], found["tower"]
    return {
        "prompt": str(data.prompts[prompt]),
        "role": str(data.roles[prompt]),
        "duplicates": int(data.duplicates[prompt]),
        "group": int(data.group[prompt]),
        "copied_seeds": pixel["copied_seeds"],
        "similarity": pixel["similarity"],
        "cross_seed_similarity": pixel["cross_seed"],
        "image": pixel["image"],
        "tower_copied_seeds": tower["copied_seeds"],
        "tower_similarity": tower["similarity"],
        "tower_image": tower["image"],
        "two_seeds_only": cleared,
        "label": label(pixel["copied_seeds"]),
        "tower_label": label(tower["copied_seeds"]),
        "collapsed": pixel["cross_seed"] > threshold and pixel["copied_seeds"] == 0,
    }


def agreement(labels: pl.DataFrame) -> dict[str, float | int]:
    """Of the two similarities' labels where both decide: share that agrees, Cohen's kappa, memorized by each."""
    both = labels.drop_nulls(["label", "tower_label"])
    first, second = both["label"].to_numpy(), both["tower_label"].to_numpy()
    agree = float((first == second).mean())
    by_chance = float(first.mean() * second.mean() + (1 - first.mean()) * (1 - second.mean()))
    return {
        "prompts": len(both),
        "agree": agree,
        "kappa": (agree - by_chance) / (1 - by_chance) if by_chance < 1 else float("nan"),
        "memorized": int(first.sum()),
        "tower_memorized": int(second.sum()),
    }
