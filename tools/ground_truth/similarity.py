"""Two independent similarities between pictures: of pixels, and of the image tower's copy head.

Both compare with training pictures *as the VAE reconstructs them*: against the originals, the VAE's blur alone would
mislabel true copies.
"""

from dataclasses import dataclass

import numpy as np
import torch

from .towers import ImageTower

MOST_SEEDS = 3  # of four: memorized
REAL_QUANTILE = 0.995  # of never-shown real pictures' similarity to their nearest training picture: above is a copy


def unit(images: np.ndarray) -> np.ndarray:
    """Pictures float [n, 3, h, w] as vectors float32 [n, pixels] whose dot product is the correlation of their pixels.

    Each channel less its mean: with the means left in, two pictures of different things on orange would look alike.
    """
    pixels = np.clip(images, -1, 1)
    flat = (pixels - pixels.mean((2, 3), keepdims=True)).reshape(len(pixels), -1)
    return (flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6)).astype(np.float32)


@torch.no_grad()
def copy_vectors(tower: ImageTower, images: np.ndarray) -> np.ndarray:
    """The copy head's unit vectors, float32 [n, d], of pictures float [n, 3, 64, 64] in [-1, 1]."""
    parts = torch.from_numpy(np.clip(images, -1, 1).astype(np.float32)).split(256)
    return torch.cat([tower(part)[1] for part in parts]).numpy()


def copy_threshold(never_shown: np.ndarray, training: np.ndarray) -> float:
    """The similarity above which a picture is a copy; unit vectors [m, d] of real pictures, [n, d] of training."""
    nearest = np.concatenate(
        [(part @ training.T).max(1) for part in np.array_split(never_shown, 1 + len(never_shown) // 256)]
    )
    return float(np.quantile(nearest, REAL_QUANTILE))


@dataclass(frozen=True)
class Gauge:
    """One similarity: unit vectors [n, d] of the training pictures, and the value above which a picture is a copy."""

    training: np.ndarray
    threshold: float

    def measure(self, vectors: np.ndarray) -> dict[str, float | int]:
        """Of one prompt's pictures, unit vectors [S, d].

        `copied_seeds`: seeds that copy one and the same training picture; `similarity`: mean over seeds to the one
        training picture nearest to them all, `image`; `cross_seed`: mean over pairs of seeds.
        """
        return measured(vectors @ self.training.T, vectors @ vectors.T, self.threshold)


def measured(near: np.ndarray, between: np.ndarray, threshold: float) -> dict[str, float | int]:
    """What `Gauge.measure` tells, of similarities of S pictures to n training ones [S, n], and to each other [S, S]."""
    S = len(near)
    return {
        "copied_seeds": int((near > threshold).sum(0).max()),
        "nearest": float(near.max()),
        "similarity": float(near.mean(0).max()),
        "image": int(near.mean(0).argmax()),
        "cross_seed": float((between.sum() - S) / (S * (S - 1))),
    }


def suspicious(pixel: dict, tower: dict, pixel_threshold: float, tower_threshold: float, margin: float = 0.15) -> bool:
    """Whether two cheap seeds may belong to a memorized or collapsed prompt, by either similarity: look closer."""
    return bool(
        max(pixel["nearest"], pixel["cross_seed"]) > pixel_threshold - margin
        or max(tower["nearest"], tower["cross_seed"]) > tower_threshold
    )


def label(copied_seeds: int) -> bool | None:
    """Memorized where most of four seeds copy one training picture, not where none does, left out between."""
    return True if copied_seeds >= MOST_SEEDS else None if copied_seeds else False
