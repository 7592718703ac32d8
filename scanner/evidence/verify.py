"""From flagged to verified: generate a prompt's images from several seeds, and measure images and denoising paths.

The loop is `scanner.diffusion.trace.denoise()`, that of a scan; it only goes on to its end.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from scanner.dataset import captions, images
from scanner.diffusion.prediction import Array
from scanner.diffusion.start import Start, Watch, start, unwatched
from scanner.diffusion.trace import Step, denoise
from scanner.errors import InputError
from scanner.evidence.decomposition import Floats, decompose, deviation, latent_norm, seed_distance
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


Kept = Callable[[str, Array | None, Callable[[], Verification]], Verification]  # of a prompt and its given image


def generated(prompt: str, given: Array | None, generate: Callable[[], Verification]) -> Verification:
    """A prompt of which nothing is kept."""
    return generate()


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
        x_t = np.stack([step.x_t[0] for step in self._loop(self._denoiser.null, 1.0)])
        return self._fit(x_t[:-1], x_t[-1]), seed_distance(x_t)

    def verify(
        self, prompt: str, given: Array | None = None, heard: Callable[[int], None] = lambda done: None
    ) -> Verification:
        """Generate a prompt's images and measure them; `given`: an image [3, h, w] to compare with.

        `heard` is told how many steps are done: none at first, and after each.
        """
        *steps, last = (_of_prompt(step) for step in self._loop(self._denoiser.encode([prompt]), None, heard))
        x_t = np.stack([step.x_t for step in steps])  # [K, S, C, H, W]
        generated = self._denoiser.decode(last.x_t)
        x0_hat = self._guided(steps)
        x0_cond = np.stack([step.cond.x0 for step in steps])
        x0_uncond = np.stack([step.uncond.x0 for step in steps])
        shown = _shown(len(steps))
        flat = x0_hat[list(shown)].reshape(-1, *x0_hat.shape[2:])  # [M*S, C, H, W]
        path = thumbnails(self._denoiser.decode(flat))
        return Verification(
            prompt=prompt, seeds=self._sampling.seeds, images=generated,
            among_seeds=self._similarity(generated, generated),
            path=path.reshape(len(shown), len(generated), *path.shape[1:]), path_steps=shown,
            timesteps=self._told, signal_rate=self._rates[0], noise_rate=self._rates[1],
            fit=self._fit(x_t, last.x_t), given=None if given is None else self._compare(given, generated, x_t),
            norm_hat=latent_norm(x0_hat), norm_cond=latent_norm(x0_cond), norm_uncond=latent_norm(x0_uncond),
            norm_final=latent_norm(last.x_t),
            distance=np.append(seed_distance(x_t), seed_distance(last.x_t)),
            fit_uncond=self._uncond[0], distance_uncond=self._uncond[1],
        )  # fmt: skip

    def verify_all(
        self, chosen: Mapping[str, Path | None], watch: Watch = unwatched, kept: Kept = generated
    ) -> list[Verification]:
        """Every prompt, with the image of its file, if any; `kept` may know one already.

        Raises InputError, before it generates any.
        """
        blank = np.zeros((1, *self._denoiser.latent_shape), np.float32)
        images.png(self._denoiser.decode(blank)[0])  # a missing decoder or Pillow is said before hours of work
        size = self._denoiser.image_size
        given = [None if path is None else images.read(path, *size) for path in chosen.values()]
        steps = self._sampling.num_inference_steps

        def of(i: int) -> Callable[[int], None]:
            return lambda done: watch("verify", i * steps + done, len(chosen) * steps)

        found = []
        for i, (prompt, image) in enumerate(zip(chosen, given, strict=True)):
            found.append(kept(prompt, image, partial(self.verify, prompt, image, of(i))))
            watch("verify", (i + 1) * steps, len(chosen) * steps)
        return found

    def _loop(
        self,
        conditioning: "Conditioning",
        guidance_scale: float | None,
        heard: Callable[[int], None] = lambda done: None,
    ) -> list[Step]:
        g = self._sampling.guidance_scale if guidance_scale is None else guidance_scale
        steps, k = list[Step](), self._sampling.num_inference_steps
        heard(0)
        for step in denoise(self._denoiser, conditioning, self._start, g, k):
            steps.append(step)
            heard(min(len(steps), k))  # the last one is the clean latent
        return steps

    def _guided(self, steps: Sequence[Step]) -> Array:
        """Clean estimates of every step with guidance, [K, S, C, H, W]."""
        schedule, g = self._denoiser.schedule, self._sampling.guidance_scale
        return np.stack([schedule.guided(at.x_t, at.cond, at.uncond, g, at.timestep).x0 for at in steps])

    def _fit(self, x_t: Array, x_0: Array) -> Fit:
        weights = decompose(x_t, x_0, self._start.x_T)
        return Fit(weights, deviation(weights, *self._rates))

    def _compare(self, given: Array, generated: Array, x_t: Array) -> Given:
        latent = self._denoiser.encode_images(given[None])
        image = self._denoiser.decode(latent)
        columns = (None if kind is None else kind[:, 0] for kind in self._similarity(generated, image))
        return Given(image[0], Similarity(*columns), self._fit(x_t, latent[0]))  # type: ignore[arg-type]

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
            path = np.stack([step.x_t for step in self._loop(self._denoiser.encode(part), None)])  # [K + 1, B, S, ...]
            parts.append(self._fit(path[:-1], path[-1]).deviation)
        watch("generate", len(prompts), len(prompts))
        return pl.concat([pl.DataFrame({"D1": part.D1, "D2": part.D2}) for part in parts])


def with_images(prompts: Sequence[str], paths: Sequence[Path]) -> dict[str, Path | None]:
    """Each prompt once, as a scan gives it to the model, and the file of the image in its place; None without images.

    Raises InputError where their numbers differ, and for a prompt that a scan would not score.
    """
    texts = pl.LazyFrame({"text": prompts}, schema={"text": pl.String}).select(captions.as_prompt(pl.col("text")))
    unique = captions.unique_prompts(texts)
    if paths and not len(paths) == len(prompts) == len(unique):
        found = f"{len(paths)} images for {len(prompts)} prompts, {len(unique)} of them different"
        raise InputError(f"{found}: give each --prompt one --image")
    for text, status in unique.filter(pl.col("status") != "to_score").select("text", "status").iter_rows():
        raise InputError(f"prompt {text!r} is {status}: needed a caption in UTF-8")
    return dict(zip_longest(unique["text"], paths))


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
