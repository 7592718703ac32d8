"""Prompts in, scores out: a pure function of frames."""

from dataclasses import dataclass

import numpy as np
import polars as pl

from scanner.config import ScanConfig
from scanner.diffusion.denoiser import Denoiser
from scanner.diffusion.families import Conditioning
from scanner.diffusion.formulas import gram
from scanner.diffusion.scores import SCORES
from scanner.diffusion.sketch import NAME, sketch
from scanner.diffusion.start import Start, Watch, unwatched
from scanner.diffusion.trace import Trace, trace

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


@dataclass(frozen=True)
class Scorer:
    """Scores of prompts under one model and configuration, as `scanner.model.Model.scorer` makes it.

    `start`: what all prompts share; `scan_id`: identity of all that the scores depend on; `chunk`: prompts per call,
    which fill a given batch, else one or more.
    """

    denoiser: Denoiser
    config: ScanConfig
    start: Start
    scan_id: str
    chunk: int

    def __call__(self, prompts: pl.DataFrame) -> pl.DataFrame:
        """[prompt_id, text, ...] -> [prompt_id, truncated, scores..., q1, q2, q3 per seed, sketch, status].

        `status`: scored, or `non_finite` for a prompt whose predictions overflow, which has null scores and no sketch.
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
        drawn = [None] * len(finite) if first.prior is None else [row.tobytes() for row in sketch(first).astype("<f2")]
        columns[NAME] = pl.Series(drawn, dtype=pl.Binary).zip_with(
            pl.Series(finite), pl.Series([None], dtype=pl.Binary)
        )
        status = pl.Series(np.where(finite, "scored", "non_finite"))
        named = {"prompt_id": prompts["prompt_id"], "truncated": conditioning.truncated}
        return pl.DataFrame({**named, **columns, "status": status})

    def canaries(self, watch: Watch = unwatched) -> pl.DataFrame:
        """[canary, scores...] of a few fixed prompts, computed now: the same every night, or the engine changed."""
        prompts = pl.DataFrame({"prompt_id": CANARIES, "text": CANARIES})
        parts: list[pl.DataFrame] = []
        for part in prompts.iter_slices(self.chunk):
            watch("canaries", len(parts) * self.chunk, len(prompts))
            parts.append(self(part))
        return pl.concat(parts).select("prompt_id", *SCORES).rename({"prompt_id": "canary"})

    def trace(self, conditioning: Conditioning) -> Trace:
        """The first steps for encoded prompts, with what is usual for the model."""
        config = self.config
        return trace(
            self.denoiser,
            conditioning,
            self.start,
            config.guidance_scale,
            config.num_inference_steps,
            config.first_steps,
        )
