"""What verifying a prompt found: its images, how alike they are, the denoising path in numbers, and a verdict."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from scanner.diffusion.prediction import Array
from scanner.evidence.decomposition import Branches, Deviation, Floats, Weights

AGREE = 0.9  # correlation of images above which one copies the other: docs/verify.md


class Similarity(NamedTuple):
    """Of images with one another [S, S], or of the seeds' with a given one [S]; float64. `descriptor`: None unless
    one was named."""

    correlation: Floats
    ssim: Floats
    descriptor: Floats | None


class Fit(NamedTuple):
    """The path against one image x_0 per seed: weights [K, S], D1 and D2 of all seeds together.

    `loss`, `cosine`: [K, S] each, of the clean estimate against x_0, and of the predicted noise with x_0.
    """

    weights: Weights
    deviation: Deviation
    loss: Branches
    cosine: Branches


@dataclass(frozen=True)
class Given:
    """An image to compare with: as the model's VAE reconstructs it, [3, h, w]; else its blur would hide true copies.

    `fit`: None where only what was generated is compared with it, and not the path.
    """

    image: Array
    similarity: Similarity
    fit: Fit | None


@dataclass(frozen=True)
class Verification:
    """One prompt at one guidance scale. `images`: [S, 3, h, w]; `path`: guided clean estimates, decoded, small,
    [M, S, 3, h', w'], at `path_steps`.

    Float64 over the steps: `signal_rate, noise_rate` [K]; `norm_hat, norm_cond, norm_uncond` [K, S], RMS of the clean
    estimate with guidance, for the prompt and for the empty prompt at the same latents; `norm_final` [S], of the clean
    latents; `distance` [K + 1], between seeds, the last of the clean latents; `cosine_x_T` [K, S] each, of the
    predicted noise with the starting noise. `fit_uncond`, `distance_uncond`: the same of the empty prompt's path
    without guidance, what to compare with. `swept`: the same prompt at other guidance scales.
    """

    prompt: str
    seeds: tuple[int, ...]
    guidance_scale: float
    images: Array
    among_seeds: Similarity
    path: Array
    path_steps: tuple[int, ...]
    timesteps: tuple[float, ...]
    signal_rate: Floats
    noise_rate: Floats
    fit: Fit
    given: Given | None
    norm_hat: Floats
    norm_cond: Floats
    norm_uncond: Floats
    norm_final: Floats
    distance: Floats
    cosine_x_T: Branches
    fit_uncond: Fit
    distance_uncond: Floats
    swept: tuple["Verification", ...] = ()

    @cached_property
    def agreeing(self) -> int:
        """Seeds in the largest set around one of them, itself included, that it resembles above AGREE."""
        return max(1, int((self.among_seeds.correlation > AGREE).sum(1).max()))

    @property
    def copying(self) -> int | None:
        """Seeds whose image resembles the given one above AGREE."""
        return None if self.given is None else int((self.given.similarity.correlation > AGREE).sum())

    @property
    def fit_given(self) -> Fit | None:
        """The path against the given image, where there is one."""
        return None if self.given is None else self.given.fit

    @property
    def by_scale(self) -> tuple["Verification", ...]:
        """Itself among those at other guidance scales, from the smallest up; none where there are no others."""
        return tuple(sorted((self, *self.swept), key=lambda of: of.guidance_scale)) if self.swept else ()

    @property
    def mean_correlation(self) -> float:
        """Between the images of two different seeds, mean over pairs."""
        pairs = self.among_seeds.correlation[np.triu_indices(len(self.seeds), 1)]
        return float(pairs.mean())


def verdict(found: Verification) -> str:
    """What the images say, and no more."""
    total = len(found.seeds)
    if np.isnan(found.among_seeds.correlation).any():
        return "An image is of one flat colour: correlation says nothing here; look at the images."
    agree = "The seeds agree" if found.agreeing == total else f"{found.agreeing} of {total} seeds agree"
    agree = "The seeds differ" if found.agreeing == 1 else agree
    if found.copying is None:
        unknown = ". Whether they reproduce a training image is not known: no image was given"
        return agree + (unknown if found.agreeing > 1 else "") + "."
    if found.copying:
        whom = "every seed reproduces" if found.copying == total else f"{found.copying} of {total} seeds reproduce"
        return f"{agree}; {whom} the given image."
    return f"{agree}; none reproduces the given image."


def headline(found: Sequence[Verification]) -> str:
    """The verdicts of several prompts, counted: of one flat colour none agrees."""
    same = sum(one.agreeing == len(one.seeds) for one in found)
    return f"{same} of {len(found)}: all seeds give the same picture"


def seeds_in_words(found: Verification) -> str:
    """How many of a prompt's seeds agree, in the fewest words."""
    total, agreeing = len(found.seeds), found.agreeing
    if agreeing == total:
        return f"all {total} seeds give the same picture"
    return f"each of {total} seeds gives another picture" if agreeing == 1 else f"{agreeing} of {total} seeds agree"
