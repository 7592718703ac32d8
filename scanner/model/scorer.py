"""Prompts in, scores out: a pure function of frames."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import polars as pl

from scanner.config import ScanConfig
from scanner.diffusion.denoiser import Denoiser
from scanner.diffusion.families import Conditioning
from scanner.diffusion.formulas import gram
from scanner.diffusion.scores import SCORES
from scanner.diffusion.sketch import NAME, sketch
from scanner.diffusion.start import Start, Watch, first_timestep, unwatched
from scanner.diffusion.trace import Trace, at_start, trace

EVERYDAY = (
    "a dog",
    "the moon over a harbour at night",
    "Portrait of a woman, oil on canvas, 1889",
    "red car, studio photograph",
    "mountains",
    "a slice of pizza and a glass of water",
    "DON'T PANIC",
    "un café à Paris",
)
CANARIES = (EVERYDAY[2], EVERYDAY[7])  # capitals, figures, accents; two, as a pass may cost seconds


class Encoded(NamedTuple):
    """Prompts as the model reads them, and as its base does, where there is one."""

    own: Conditioning
    base: Conditioning | None


@dataclass(frozen=True)
class Scorer:
    """Scores of prompts under one model and configuration, as `scanner.model.Model.scorer` makes it.

    `start`: what all prompts share; `scan_id`: identity of all that the scores depend on; `chunk`: prompts per call,
    which fill a given batch, else one or more; `base`: the model that the denoiser is compared with.
    """

    denoiser: Denoiser
    config: ScanConfig
    start: Start
    scan_id: str
    chunk: int
    base: Denoiser | None = None

    def __call__(self, prompts: pl.DataFrame) -> pl.DataFrame:
        """[prompt_id, text, ...] -> [prompt_id, truncated, scores..., q1, q2, q3 per seed, sketch, status].

        `status`: scored, or `non_finite` for a prompt whose predictions overflow, which has null scores and no sketch.
        """
        return self.scores(prompts, *self.predict(prompts))

    def predict(self, prompts: pl.DataFrame) -> tuple[Encoded, Trace]:
        """The part of it that runs engines, which only the thread that opened them may do."""
        encoded = self.encode(prompts["text"].to_list())
        return encoded, self.trace(encoded)

    def scores(self, prompts: pl.DataFrame, encoded: Encoded, first: Trace) -> pl.DataFrame:
        """The rest of it, in any thread."""
        raw = gram(first)
        finite = np.all([np.isfinite(array).all(1) for array in raw.values()], axis=0)
        if first.base is not None:
            finite &= np.isfinite(first.base.cond.x0).all((1, 2, 3, 4))
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
        named = {"prompt_id": prompts["prompt_id"], "truncated": encoded.own.truncated}
        return pl.DataFrame({**named, **columns, "status": status})

    def canaries(self, watch: Watch = unwatched) -> pl.DataFrame:
        """[canary, scores...] of a few fixed prompts, computed now: the same every night, or the engine changed."""
        prompts = pl.DataFrame({"prompt_id": CANARIES, "text": CANARIES})
        parts: list[pl.DataFrame] = []
        for part in prompts.iter_slices(self.chunk):
            watch("canaries", len(parts) * self.chunk, len(prompts))
            parts.append(self(part))
        return pl.concat(parts).select("prompt_id", *SCORES).rename({"prompt_id": "canary"})

    def encode(self, prompts: Sequence[str]) -> Encoded:
        """Prompts as `trace` takes them."""
        return Encoded(self.denoiser.encode(prompts), None if self.base is None else self.base.encode(prompts))

    def trace(self, encoded: Encoded) -> Trace:
        """The first steps for encoded prompts, with what is usual for the model, and what its base predicts there."""
        config = self.config
        first = trace(
            self.denoiser,
            encoded.own,
            self.start,
            config.guidance_scale,
            config.num_inference_steps,
            config.first_steps,
        )
        if self.base is None:
            return first
        assert encoded.base is not None
        assert self.start.base_uncond is not None
        timestep = first_timestep(self.base, self.start, config.num_inference_steps)
        return replace(first, base=at_start(self.base, encoded.base, self.start, timestep, self.start.base_uncond))
