"""Memorization scores by name, higher = more likely memorized, and which of them to rank by."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from scanner.config import ScanConfig
from scanner.diffusion import formulas
from scanner.diffusion.prediction import Array
from scanner.diffusion.trace import Trace


@dataclass(frozen=True)
class Score:
    """A row of SCORES. `compute(trace)` gives [B] for a trace of at least so many `seeds` and `steps`.

    `every_step`: it looks at all scanned steps, not only at so many. `needs`: what it compares with, beside the empty
    prompt; of the base, at one pass more for each seed, and in the measure of the prior, which every scan has.
    `guided`: it is undefined without guidance. `of_eps`: without signal to start from (a flow model's path, zero
    terminal SNR), as the noise that it is of says nothing of the prompt there. `sampled`: it is of the sampler's own
    first timestep, else of the noisiest that the network is told. `told`: so many timesteps must be named.
    """

    compute: Callable[[Trace], Array]
    seeds: int = 1
    steps: int = 1
    every_step: bool = False
    needs: Literal["prior", "reference", "base"] | None = None
    guided: bool = False
    of_eps: bool = False
    sampled: bool = True
    told: int = 0

    def __call__(self, trace: Trace) -> Array:
        """Float32 [B], dimensionless, higher = more likely memorized; NaN where the trace lacks what it needs."""
        K, B, S = trace.x_t.shape[:3]
        lacks = self.needs is not None and getattr(trace, self.needs) is None
        lacks |= (self.sampled and not trace.sampled) or self.told > trace.named
        if self.seeds > S or self.steps > K or lacks or (self.of_eps and trace.signal_rate[0] == 0):
            return np.full(B, np.nan, np.float32)
        return self.compute(trace).astype(np.float32)


SCORES: Mapping[str, Score] = {
    "text_noise_norm_v1": Score(formulas.text_noise_norm, of_eps=True),
    "overestimation_v1": Score(formulas.overestimation),
    "overestimation_prior_v1": Score(formulas.overestimation_prior, needs="prior"),
    "overestimation_ref_v1": Score(formulas.overestimation_ref, needs="reference"),
    "overestimation_white_v1": Score(formulas.overestimation_white, needs="reference"),
    "concentration_v1": Score(formulas.concentration),
    "seed_independence_v1": Score(formulas.seed_independence, seeds=2),
    "agreement_v1": Score(formulas.agreement, seeds=2),
    "estimate_ratio_v1": Score(formulas.estimate_ratio, seeds=2),
    "estimate_ratio_prior_v1": Score(formulas.estimate_ratio_prior, seeds=2, needs="prior"),
    "estimate_ratio_white_v1": Score(formulas.estimate_ratio_white, seeds=2, needs="reference"),
    "guidance_spread_v1": Score(formulas.guidance_spread, seeds=2, of_eps=True),
    "text_noise_norm_steps_v1": Score(formulas.text_noise_norm_steps, steps=2, every_step=True, of_eps=True),
    "steadiness_v1": Score(formulas.steadiness, steps=2, guided=True),
    "growth_v1": Score(formulas.growth, steps=2, of_eps=True),
    "schedule_deviation_v1": Score(formulas.schedule_deviation, steps=2, every_step=True),
    "overestimation_prior_v2": Score(formulas.overestimation_prior, needs="prior", sampled=False, told=1),
    "overestimation_white_v2": Score(formulas.overestimation_white, needs="reference", sampled=False, told=1),
    "estimate_ratio_prior_v2": Score(formulas.estimate_ratio_prior, seeds=2, needs="prior", sampled=False, told=1),
    "estimate_ratio_white_v2": Score(formulas.estimate_ratio_white, seeds=2, needs="reference", sampled=False, told=1),
    "low_noise_norm_v1": Score(formulas.low_noise_norm, sampled=False, told=1),
    "two_noise_v1": Score(formulas.two_noise, needs="prior", sampled=False, told=2),
    "overestimation_base_v1": Score(formulas.overestimation_base, needs="base", sampled=False),
    "estimate_change_v1": Score(formulas.estimate_change, needs="base", sampled=False),
}
# how far a score may move with the batch size: float32 rounding, amplified from eps to the clean estimate
RELATIVE, ABSOLUTE = 1e-4, 2e-5
FIRST_PASS_SCORES = tuple(name for name, by in SCORES.items() if by.seeds == by.steps == 1 and by.told < 2)
BEST_SCORES = (  # first the one that held up best over our models, docs/detecting.md
    "estimate_ratio_white_v1", "estimate_ratio_prior_v1", "overestimation_white_v1", "overestimation_prior_v1",
)  # fmt: skip
BEST_TOLD_SCORES = (  # the same where the network is told another timestep than the sampler's first
    "estimate_ratio_white_v2", "estimate_ratio_prior_v2", "overestimation_white_v2", "overestimation_prior_v2",
    "two_noise_v1",
)  # fmt: skip
LOW_NOISE = 850  # told this or less, the plain norm ranks best, with the model's prior or without
BEST_LOW_SCORES = ("low_noise_norm_v1", *BEST_TOLD_SCORES)


def possible_scores(config: ScanConfig, reference: bool, base: bool = False) -> tuple[str, ...]:
    """The scores that a scan with such settings, with a reference and a base model or not, can give a prompt.

    Whether the first of its timesteps is the sampler's own, so that it has scores that are of that, a model knows.
    """
    held = (None, "prior", *(["reference"] if reference else []), *(["base"] if base else []))
    able = {name: by for name, by in SCORES.items() if by.seeds <= len(config.seeds) and by.steps <= config.first_steps}
    able = {name: by for name, by in able.items() if by.needs in held and by.told <= len(config.told)}
    return tuple(name for name, by in able.items() if config.guidance_scale != 1 or not by.guided)


def best_scores(config: ScanConfig, reference: bool) -> tuple[str, ...]:
    """Those of BEST_SCORES, or where timesteps are told of one of the lists of these, that such a scan has."""
    able, told = possible_scores(config, reference), config.told
    best = BEST_SCORES if not told else BEST_LOW_SCORES if told[0] <= LOW_NOISE else BEST_TOLD_SCORES
    return tuple(name for name in best if name in able)


def best_score(config: ScanConfig, reference: bool) -> str:
    """What to rank by where no score is named: the best that a scan with such settings has."""
    return best_scores(config, reference)[0]


DEFAULT_SCORE = BEST_LOW_SCORES[0]  # where a model is told what is usual for it
