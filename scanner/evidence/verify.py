"""From flagged to verified: generate a prompt's images from several seeds, and measure images and denoising paths.

The loop is `scanner.diffusion.trace.denoise()`, that of a scan; it only goes on to its end.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import polars as pl

from scanner.dataset import images
from scanner.diffusion.prediction import Array, Prediction
from scanner.diffusion.start import Start, Watch, start, unwatched
from scanner.diffusion.trace import Step, denoise
from scanner.evidence.decomposition import (
    Branches,
    Floats,
    cosine,
    decompose,
    deviation,
    latent_norm,
    loss,
    seed_distance,
)
from scanner.evidence.similarity import Descriptor, correlation, ssim
from scanner.evidence.verification import Fit, Given, Similarity, Verification

if TYPE_CHECKING:
    from scanner.diffusion.denoiser import Denoiser
    from scanner.diffusion.families import Conditioning

FIRST_SEED = 1000  # scans count theirs from 0
THUMBNAIL = 128  # pixels at most, about: of the path's images
SHOWN_STEPS = 8  # of the denoising path, as images


@dataclass(frozen=True)
class Sampling:
    """How images are generated. One seed has nothing to agree with: two or more."""

    seeds: tuple[int, ...] = tuple(range(FIRST_SEED, FIRST_SEED + 4))
    guidance_scale: float = 7.5
    num_inference_steps: int = 50


Generate = Callable[[], Verification]
Kept = Callable[[str, Array | None, Sampling, Generate], Verification]  # of a prompt, its given image and the sampling


def generated(prompt: str, given: Array | None, sampling: Sampling, generate: Generate) -> Verification:
    """A prompt of which nothing is kept."""
    return generate()


class _Path(NamedTuple):
    """All steps of one prompt: latents [K, S, C, H, W], what is predicted at each of them, and the clean latents."""

    x_t: Array
    hat: Sequence[Prediction]
    cond: Sequence[Prediction]
    uncond: Sequence[Prediction]
    last: Array

    def each(self, measure: Callable[[Prediction], Floats]) -> Branches:
        """A measure [S] of every prediction: [K, S]."""
        return Branches(*(np.stack([measure(of) for of in side]) for side in (self.hat, self.cond, self.uncond)))

    @property
    def distance(self) -> Floats:
        """Between seeds, [K + 1]."""
        return np.append(seed_distance(self.x_t), seed_distance(self.last))


class Sampler:
    """A denoiser and how to sample with it; what all prompts share is computed once.

    `descriptor`: a copy detector to compare images with, beside correlation and SSIM.
    """

    def __init__(self, denoiser: "Denoiser", sampling: Sampling, descriptor: Descriptor | None = None):
        self._denoiser, self._sampling, self._descriptor = denoiser, sampling, descriptor
        self._timesteps = denoiser.schedule.timesteps(sampling.num_inference_steps)
        self._told = tuple(map(denoiser.schedule.told, self._timesteps))
        self._rates = (denoiser.schedule.signal_rate[self._timesteps], denoiser.schedule.noise_rate[self._timesteps])

    @cached_property
    def _start(self) -> Start:
        return start(self._denoiser, self._sampling.seeds, self._sampling.num_inference_steps)

    @cached_property
    def _uncond(self) -> tuple[Fit, Floats]:
        """The empty prompt's path without guidance: its fit, and the distance between seeds, [K + 1]."""
        path = self._path(self._denoiser.null, 1.0)
        return self._fit(path, path.last), path.distance

    def verify(
        self,
        prompt: str,
        given: Array | None = None,
        heard: Callable[[int], None] = lambda done: None,
        guidance_scale: float | None = None,
    ) -> Verification:
        """Generate a prompt's images and measure them; `given`: an image [3, h, w] to compare with.

        `heard` is told how many steps are done: none at first, and after each. `guidance_scale`: another than the
        sampling's.
        """
        g = self._sampling.guidance_scale if guidance_scale is None else guidance_scale
        path = self._path(self._denoiser.encode([prompt]), g, heard)
        generated, shown = self._denoiser.decode(path.last), _shown(len(path.hat))
        estimates = np.concatenate([path.hat[step].x0 for step in shown])  # [M*S, C, H, W]
        small = thumbnails(self._denoiser.decode(estimates))
        norm = path.each(lambda of: latent_norm(of.x0))
        return Verification(
            prompt=prompt, seeds=self._sampling.seeds, guidance_scale=g, images=generated,
            among_seeds=self._similarity(generated, generated),
            path=small.reshape(len(shown), len(generated), *small.shape[1:]), path_steps=shown,
            timesteps=self._told, signal_rate=self._rates[0], noise_rate=self._rates[1],
            fit=self._fit(path, path.last), given=None if given is None else self._compare(given, generated, path),
            norm_hat=norm.hat, norm_cond=norm.cond, norm_uncond=norm.uncond, norm_final=latent_norm(path.last),
            distance=path.distance, cosine_x_T=path.each(lambda of: cosine(of.eps, self._start.x_T)),
            fit_uncond=self._uncond[0], distance_uncond=self._uncond[1],
        )  # fmt: skip

    def verify_all(
        self,
        chosen: Mapping[str, Path | None],
        watch: Watch = unwatched,
        kept: Kept = generated,
        sweep: Sequence[float] = (),
    ) -> list[Verification]:
        """Every prompt, with the image of its file, if any; `kept` may know one already.

        `sweep`: other guidance scales to sample each at too. Raises InputError, before it generates any.
        """
        blank = np.zeros((1, *self._denoiser.latent_shape), np.float32)
        images.png(self._denoiser.decode(blank)[0])  # a missing decoder or Pillow is said before hours of work
        size = self._denoiser.image_size
        given = [None if path is None else images.read(path, *size) for path in chosen.values()]
        steps, own = self._sampling.num_inference_steps, self._sampling.guidance_scale
        scales = [own, *(g for g in dict.fromkeys(sweep) if g != own)]
        total = len(chosen) * len(scales) * steps

        def heard(before: int, done: int) -> None:
            watch("verify", before + done, total)

        found, before = list[Verification](), 0
        for prompt, image in zip(chosen, given, strict=True):
            each = []
            for g in scales:
                generate = partial(self.verify, prompt, image, partial(heard, before), g)
                each.append(kept(prompt, image, replace(self._sampling, guidance_scale=g), generate))
                before += steps
                watch("verify", before, total)
            found.append(replace(each[0], swept=tuple(each[1:])))
        return found

    def _path(
        self, conditioning: "Conditioning", guidance_scale: float, heard: Callable[[int], None] = lambda done: None
    ) -> _Path:
        """Of one prompt."""
        taken, k, guided = list[Step](), self._sampling.num_inference_steps, self._denoiser.schedule.guided
        heard(0)
        for step in denoise(self._denoiser, conditioning, self._start, guidance_scale, k):
            taken.append(_of_prompt(step))
            heard(min(len(taken), k))  # the last one is the clean latent
        *steps, last = taken
        return _Path(
            np.stack([step.x_t for step in steps]),
            [guided(step.x_t, step.cond, step.uncond, guidance_scale, step.timestep) for step in steps],
            [step.cond for step in steps],
            [step.uncond for step in steps],
            last.x_t,
        )

    def _fit(self, path: _Path, x_0: Array) -> Fit:
        weights = decompose(path.x_t, x_0, self._start.x_T)
        return Fit(
            weights,
            deviation(weights, *self._rates),
            path.each(lambda of: loss(of.x0, x_0)),
            path.each(lambda of: cosine(of.eps, x_0)),
        )

    def _compare(self, given: Array, generated: Array, path: _Path) -> Given:
        latent = self._denoiser.encode_images(given[None])
        image = self._denoiser.decode(latent)
        columns = (None if kind is None else kind[:, 0] for kind in self._similarity(generated, image))
        return Given(image[0], Similarity(*columns), self._fit(path, latent[0]))  # type: ignore[arg-type]

    def _similarity(self, these: Array, others: Array) -> Similarity:
        described = None if self._descriptor is None else self._descriptor.similarity(these, others)
        return Similarity(correlation(these, others), ssim(these, others), described)

    def deviations(
        self,
        prompts: Sequence[str],
        chunk: int = 16,
        watch: Watch = unwatched,
    ) -> pl.DataFrame:
        """[D1, D2], a row for each prompt in their order.

        x_0 is each seed's own generated latent; nothing is decoded. Memory: `chunk` prompts times all steps and seeds.
        """
        parts = []
        for i in range(0, len(prompts), chunk):
            watch("generate", i, len(prompts))
            part = prompts[i : i + chunk]
            g, k = self._sampling.guidance_scale, self._sampling.num_inference_steps
            steps = denoise(self._denoiser, self._denoiser.encode(part), self._start, g, k)
            x_t = np.stack([step.x_t for step in steps])  # [K + 1, B, S, C, H, W]
            parts.append(deviation(decompose(x_t[:-1], x_t[-1], self._start.x_T), *self._rates))
        watch("generate", len(prompts), len(prompts))
        return pl.concat([pl.DataFrame({"D1": part.D1, "D2": part.D2}) for part in parts])


def _of_prompt(step: Step) -> Step:
    """The step of one prompt: [S, C, H, W]."""
    return Step(step.timestep, step.x_t[0], step.cond.at(0), step.uncond.at(0))


def thumbnails(images: Array) -> Array:
    """Images [N, 3, h, w] made smaller by a whole factor, as means of square blocks, where they exceed THUMBNAIL."""
    factor = max(1, min(images.shape[2:]) // THUMBNAIL)
    h, w = (size // factor for size in images.shape[2:])
    blocks = images[:, :, : h * factor, : w * factor].reshape(*images.shape[:2], h, factor, w, factor)
    return np.asarray(blocks.mean((3, 5)), np.float32)


def _shown(steps: int) -> tuple[int, ...]:
    """Steps to look at: dense at the start, where a memorized path is decided, to the last."""
    spread = np.linspace(0, 1, min(SHOWN_STEPS, steps)) ** 1.7
    return tuple(sorted({round(float(share) * (steps - 1)) for share in spread}))
