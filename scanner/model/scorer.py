"""Prompts in, scores out: opens a bundle once, then a pure function of frames."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import polars as pl

from engines import Bundle
from scanner.config import ScanConfig
from scanner.diffusion.baselines import Prior, Reference
from scanner.diffusion.denoiser import Denoiser
from scanner.diffusion.families import Conditioning
from scanner.diffusion.schedule import Array
from scanner.diffusion.scores import SCORES, gram
from scanner.diffusion.trace import (
    PRIOR_SEEDS,
    Start,
    Trace,
    Watch,
    predict_prior,
    predict_reference,
    start,
    trace,
    unwatched,
)
from scanner.identity import captions_fingerprint
from scanner.model.batch_size import fastest
from scanner.model.cache import cached

CALL = 65536  # latent elements of a call: in smaller ones the cost per call shows beside a small UNet
CANARIES = (
    "a dog",
    "the moon over a harbour at night",
    "Portrait of a woman, oil on canvas, 1889",
    "red car, studio photograph",
    "mountains",
    "a slice of pizza and a glass of water",
    "DON'T PANIC",
    "un café à Paris",
)


def scan_id(bundle: Bundle, config: ScanConfig, reference: Sequence[str] = ()) -> str:
    """Identity of all that the scores of an unscreened scan depend on."""
    compared = captions_fingerprint(reference) if reference else None
    return config.scan_id(bundle.manifest.fingerprint, bundle.backend, bundle.precision, compared)


class Scorer:
    """Scores of prompts under one model and configuration.

    `reference`: ordinary captions, for the scores that compare with them. `prior`: what is usual for the model, where
    another engine has computed it. `batch_size`: None: the fastest. `watch` hears of the UNet passes before the first
    prompt. `chunk`: prompts per call, which fill a given batch, else one or more; `scan_id`: identity of all that the
    scores depend on.
    """

    def __init__(
        self,
        bundle: Bundle,
        config: ScanConfig,
        batch_size: int | None = None,
        reference: Sequence[str] = (),
        prior: Prior | None = None,
        watch: Watch = unwatched,
    ):
        self.bundle, self.config, self.reference = bundle, config, reference
        self._watch = watch
        self.denoiser = Denoiser(bundle, batch_size)
        samples = batch_size
        if samples is None:
            self.denoiser.batch_size = fastest(bundle, self.denoiser, watch)
            samples = max(self.denoiser.batch_size, CALL // int(np.prod(self.denoiser.latent_shape)))
        self.scan_id = scan_id(bundle, config, reference)
        self.chunk = max(1, samples // len(config.seeds))
        self._start = self._baselines(bundle, reference, prior)

    @property
    def prior(self) -> Prior:
        """The empty prompt's clean estimates from many seeds."""
        assert self._start.prior is not None
        return self._start.prior

    def _baselines(self, bundle: Bundle, reference: Sequence[str], prior: Prior | None) -> Start:
        """Where every prompt starts, with what is usual for the model, from the cache where it has been before."""
        first = start(self.denoiser, self.config.seeds, self.config.num_inference_steps)
        manifest, steps = bundle.manifest, self.config.num_inference_steps
        model = (manifest.fingerprint, bundle.backend, bundle.precision, str(steps))

        def estimates() -> Array:
            return predict_prior(self.denoiser, steps, self._watch).x0_uncond

        def ordinary() -> Array:
            return predict_reference(self.denoiser, reference, first, steps, self._watch).eps_cond

        shape = (len(PRIOR_SEEDS), *self.denoiser.latent_shape)
        prior = prior or Prior(cached("prior", (*model, str(PRIOR_SEEDS)), shape, estimates))
        first = replace(first, prior=prior)
        if not reference:
            return first
        key, shape = (
            (*model, str(self.config.seeds), captions_fingerprint(reference)),
            (len(reference), *first.x_T.shape),
        )
        return replace(first, reference=Reference(cached("reference", key, shape, ordinary)))

    def __call__(self, prompts: pl.DataFrame) -> pl.DataFrame:
        """[prompt_id, text, ...] -> [prompt_id, truncated, scores..., q1, q2, q3 per seed, status].

        `status`: scored, or `non_finite` for a prompt whose predictions overflow, which has null scores.
        """
        conditioning = self.denoiser.encode(prompts["text"].to_list())
        first = self.trace(conditioning)
        raw = gram(first)
        finite = np.all([np.isfinite(array).all(1) for array in raw.values()], axis=0)
        columns = {
            name: pl.Series(np.where(finite, score(first), np.float32(np.nan)), nan_to_null=True)
            for name, score in SCORES.items()
        }
        columns |= {name: pl.Series(array).cast(pl.List(pl.Float32)) for name, array in raw.items()}
        status = pl.Series(np.where(finite, "scored", "non_finite"))
        named = {"prompt_id": prompts["prompt_id"], "truncated": conditioning.truncated}
        return pl.DataFrame({**named, **columns, "status": status})

    def canaries(self) -> pl.DataFrame:
        """[canary, scores...] of a few fixed prompts, computed now: the same every night, or the engine changed."""
        prompts = pl.DataFrame({"prompt_id": CANARIES, "text": CANARIES})
        parts: list[pl.DataFrame] = []
        for part in prompts.iter_slices(self.chunk):
            self._watch("canaries", len(parts) * self.chunk, len(prompts))
            parts.append(self(part))
        return pl.concat(parts).select("prompt_id", *SCORES).rename({"prompt_id": "canary"})

    def trace(self, conditioning: Conditioning) -> Trace:
        """The first steps for encoded prompts, with what is usual for the model."""
        config = self.config
        return trace(
            self.denoiser,
            conditioning,
            self._start,
            config.guidance_scale,
            config.num_inference_steps,
            config.first_steps,
        )
