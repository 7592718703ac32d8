"""Memorization scores: pure functions of a Trace, higher = more likely memorized.

Differences are taken before norms, in float32: the difference of two predictions is ~1 where their norms are ~100.
With De = eps_cond - eps_uncond, d = C*H*W, X the clean estimates, a and s signal and noise rate, g the guidance scale;
indices 0 and 1 are the first and second scanned step. Every norm is averaged over seeds.

The classical first-step scores are constants times ||De||: ||X_cond - X_uncond||, the guided displacement, and the
distance between the guided and the unguided next latent differ from it only in unit and interpretation.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from scanner.diffusion.lengths import RESOLUTION, flat, measured_ratio, norm, ratio, spread
from scanner.diffusion.prediction import Array
from scanner.diffusion.trace import Trace

TOP_POSITIONS = 0.05  # share of latent positions that `concentration_v1` looks at


def _radii(trace: Trace) -> np.float32:
    """From a norm of `trace.change` to the guided displacement of the clean estimate in data radii."""
    d, unit = trace.x_t[0, 0, 0].size, trace.noise_rate[0] / trace.signal_rate[0] if trace.in_eps else 1.0
    return np.float32(trace.guidance_scale * unit / (np.sqrt(d) * trace.latent_std))


def gram(trace: Trace) -> dict[str, Array]:
    """First-step Gram entries per seed, float32 [B, S] each.

    q1 = ||De||^2/d, q2 = <De, eps_uncond>/d, q3 = <De, x_T>/d. Every norm, projection or global cosine of
    (x_T, eps_cond, eps_uncond) follows from them, for any guidance scale. Where eps says nothing, q1_v2, q2_v2, q3_v2:
    the same with DX for De and X_u for eps_uncond.
    """
    change, x_T = flat(trace.change[0]), flat(trace.x_t[0])
    uncond, version = (trace.uncond.eps, "") if trace.in_eps else (trace.uncond.x0, "_v2")
    entries = {"q1": change, "q2": flat(uncond[0]), "q3": x_T}
    return {name + version: (change * other).mean(-1) for name, other in entries.items()}


def _text_noise_norm(trace: Trace) -> Array:
    """||De||_2, not normalised: Wen et al. (ICLR 2024) at the first step."""
    return norm(flat(trace.text_noise[0]))


def _overestimation(trace: Trace) -> Array:
    """The guided displacement of the clean estimate in data radii: g*(s/a)*||De|| / (sqrt(d)*latent_std).

    How far guidance pushes past the data (arXiv 2509.25705); tends to g for a fully memorized prompt.
    """
    return np.asarray(_radii(trace) * norm(flat(trace.change[0])))


def _overestimation_prior(trace: Trace) -> Array:
    """||X_c - X_u|| in standard deviations of the clean estimates that the model makes without a caption.

    Directions in which those vary anyway (say, the colour of a background) count for little.
    """
    assert trace.prior is not None
    return np.asarray(trace.prior.covariance.distance(flat(trace.text_estimate[0])).mean(-1))


def _overestimation_ref(trace: Trace) -> Array:
    """Overestimation against ordinary captions instead of the empty prompt: eps_cond - their mean for De.

    Every caption moves the prediction a little just by being a caption.
    """
    assert trace.reference is not None
    return _radii(trace) * norm(flat(trace.told[0] - trace.reference.mean))


def _overestimation_white(trace: Trace) -> Array:
    """Distance of eps_cond from ordinary captions' mean, in standard deviations of ordinary captions around it."""
    assert trace.reference is not None
    return np.asarray(trace.reference.covariance.distance(flat(trace.told[0] - trace.reference.mean)).mean(-1))


def _seed_independence(trace: Trace) -> Array:
    """1 - slope of the conditional on the unconditional clean estimate over seeds.

    slope = sum_s <X_c,s - mean X_c, X_u,s - mean X_u> / sum_s ||X_u,s - mean X_u||^2. 1: the prompt fixes the estimate
    whatever the noise; 0: it leaves the noise its say.
    """
    cond, uncond = (flat(side.x0[0]) for side in (trace.cond, trace.uncond))
    cond, uncond = (x0 - x0.mean(1, keepdims=True) for x0 in (cond, uncond))
    return np.asarray(1 - (cond * uncond).sum((1, 2)) / (uncond * uncond).sum((1, 2)))


def _agreement(trace: Trace) -> Array:
    """Mean pairwise cosine of the conditional clean estimates over seeds."""
    S = trace.x_t.shape[2]
    x0 = flat(trace.cond.x0[0])
    unit = x0 / np.linalg.norm(x0, axis=-1, keepdims=True)
    total = np.square(unit.sum(1)).sum(-1)  # [B]: S + the sum over ordered pairs
    return np.asarray((total - S) / (S * (S - 1)))


def _estimate_ratio(trace: Trace) -> Array:
    """log(||X_c|| / standard deviation of X_c over seeds), at most -log(float32's resolution), 15.9."""
    x0 = flat(trace.cond.x0[0])
    length = norm(x0)
    return np.asarray(np.log(length / np.maximum(spread(x0), RESOLUTION * length)))


def _estimate_ratio_prior(trace: Trace) -> Array:
    """The estimate ratio in standard deviations of the clean estimates that the model makes without a caption.

    High where the estimate is far from those (overestimation) and the seeds agree on it (independence).
    """
    assert trace.prior is not None
    return measured_ratio(trace.cond.x0[0], trace.prior.mean, trace.prior.covariance)


def _estimate_ratio_white(trace: Trace) -> Array:
    """The estimate ratio by ordinary captions: from the mean of their estimates, in standard deviations of these."""
    assert trace.reference is not None
    told, mean = trace.told[0], trace.reference.mean
    if trace.in_eps:  # both estimates are left times a: the ratio does not know
        s = np.float32(trace.noise_rate[0])
        told, mean = trace.x_t[0] - s * told, trace.x_t[0, 0] - s * mean
    return measured_ratio(told, mean.mean(0), trace.reference.covariance)


def _guidance_spread(trace: Trace) -> Array:
    """Standard deviation of De over seeds, as a length: an estimate fixed by the prompt undoes each seed's own."""
    return spread(flat(trace.text_noise[0]))


def _concentration(trace: Trace) -> Array:
    """Share of the energy of De (or DX, the same) in the top 5 % of latent positions; 0 where De is 0.

    Energy at a position: sum over channels of De^2, mean over seeds. Memorized templates are local.
    """
    energy = np.square(trace.change[0]).sum(2).mean(1).reshape(trace.x_t.shape[1], -1)  # [B, H*W]
    top = int(np.ceil(TOP_POSITIONS * energy.shape[1]))
    total = energy.sum(1)
    return np.asarray(np.partition(energy, -top, axis=1)[:, -top:].sum(1) / np.where(total > 0, total, 1))


def _text_noise_norm_steps(trace: Trace) -> Array:
    """||De|| averaged over the scanned steps: Wen et al. with more than one step."""
    return np.asarray(np.mean([norm(flat(De)) for De in trace.text_noise], axis=0))


def _steadiness(trace: Trace) -> Array:
    """R01 = ||eps_cond(x_1) - eps_cond(x_T)|| / (c*||De||); 1 where the conditional estimate does not move.

    From eps_cond(x_1) - eps_cond(x_T) = (k/s_1)*(g - 1)*(X_c - X_u) - (a_1/s_1)*(X_c(x_1) - X_c(x_T)), where
    k = a_1 - a_0*s_1/s_0: c*||De|| is the norm of the first term. Undefined without guidance.
    """
    (a_0, a_1), (s_0, s_1) = trace.signal_rate[:2], trace.noise_rate[:2]
    k = a_1 - a_0 * s_1 / s_0
    c = np.float32(k / s_1 * (trace.guidance_scale - 1) * (s_0 / a_0 if trace.in_eps else 1))  # of DX: s_0/a_0 in it
    return ratio(norm(flat(trace.cond.eps[1] - trace.cond.eps[0])), c * norm(flat(trace.change[0])))


def _growth(trace: Trace) -> Array:
    """G12 = ||De(x_1)||^2 / ||De(x_T)||^2: how fast the prompt gains on the empty one."""
    now, next_ = (np.square(flat(trace.text_noise[step])).sum((1, 2)) for step in (0, 1))
    return ratio(next_, now)


def _schedule_deviation(trace: Trace) -> Array:
    """w_0 of x_k ~ w_0*X* + w_T*x_T by least squares, over a_k - a_0*s_k/s_0, its value without guidance.

    k is the last scanned step, X* the mean over seeds of the first conditional estimate. Sampling starts at w_0 = 0,
    not on the schedule, so the raw w_0 - a_k would be negative at first whatever the prompt. 1: as an unguided
    trajectory towards X*; at the first update g where the prompt alone fixes the estimate.
    """
    a, s = trace.signal_rate, trace.noise_rate
    x_T, x_k, X = flat(trace.x_t[0]), flat(trace.x_t[-1]), flat(trace.cond.x0[0]).mean(1, keepdims=True)
    aa, bb, ab = (X * X).sum(-1), (x_T * x_T).sum(-1), (X * x_T).sum(-1)
    w_0 = ((X * x_k).sum(-1) * bb - (x_T * x_k).sum(-1) * ab) / (aa * bb - ab * ab)  # [B, S]
    return np.asarray(w_0.mean(1) / np.float32(a[-1] - a[0] * s[-1] / s[0]))


@dataclass(frozen=True)
class Score:
    """A row of SCORES. `compute(trace)` gives [B] for a trace of at least so many `seeds` and `steps`.

    `every_step`: it looks at all scanned steps, not only at so many. `needs`: the baseline that it measures by.
    `guided`: it is undefined without guidance. `of_eps`: without signal to start from (a flow model's path, zero
    terminal SNR), as the noise that it is of says nothing of the prompt there.
    """

    compute: Callable[[Trace], Array]
    seeds: int = 1
    steps: int = 1
    every_step: bool = False
    needs: Literal["prior", "reference"] | None = None
    guided: bool = False
    of_eps: bool = False

    def __call__(self, trace: Trace) -> Array:
        """Float32 [B], dimensionless, higher = more likely memorized; NaN where the trace lacks what it needs."""
        K, B, S = trace.x_t.shape[:3]
        lacks = self.needs is not None and getattr(trace, self.needs) is None
        if self.seeds > S or self.steps > K or lacks or (self.of_eps and trace.signal_rate[0] == 0):
            return np.full(B, np.nan, np.float32)
        return self.compute(trace).astype(np.float32)


SCORES: Mapping[str, Score] = {
    "text_noise_norm_v1": Score(_text_noise_norm, of_eps=True),
    "overestimation_v1": Score(_overestimation),
    "overestimation_prior_v1": Score(_overestimation_prior, needs="prior"),
    "overestimation_ref_v1": Score(_overestimation_ref, needs="reference"),
    "overestimation_white_v1": Score(_overestimation_white, needs="reference"),
    "concentration_v1": Score(_concentration),
    "seed_independence_v1": Score(_seed_independence, seeds=2),
    "agreement_v1": Score(_agreement, seeds=2),
    "estimate_ratio_v1": Score(_estimate_ratio, seeds=2),
    "estimate_ratio_prior_v1": Score(_estimate_ratio_prior, seeds=2, needs="prior"),
    "estimate_ratio_white_v1": Score(_estimate_ratio_white, seeds=2, needs="reference"),
    "guidance_spread_v1": Score(_guidance_spread, seeds=2, of_eps=True),
    "text_noise_norm_steps_v1": Score(_text_noise_norm_steps, steps=2, every_step=True, of_eps=True),
    "steadiness_v1": Score(_steadiness, steps=2, guided=True),
    "growth_v1": Score(_growth, steps=2, of_eps=True),
    "schedule_deviation_v1": Score(_schedule_deviation, steps=2, every_step=True),
}
# how far a score may move with the batch size: float32 rounding, amplified from eps to the clean estimate
RELATIVE, ABSOLUTE = 1e-4, 2e-5
FIRST_PASS_SCORES = tuple(name for name, score in SCORES.items() if score.seeds == score.steps == 1)
BEST_SCORES = (  # first the one that held up best over our models, docs/detection.md
    "estimate_ratio_white_v1", "estimate_ratio_prior_v1", "overestimation_white_v1", "overestimation_prior_v1",
)  # fmt: skip


def best_scores(seeds: int, reference: bool) -> tuple[str, ...]:
    """Those of BEST_SCORES that a scan of so many seeds, with a reference or not, has."""
    able = (name for name in BEST_SCORES if SCORES[name].seeds <= seeds)
    return tuple(name for name in able if reference or SCORES[name].needs != "reference")


def best_score(seeds: int, reference: bool) -> str:
    """What to rank by where no score is named: the best that a scan of so many seeds, with a reference or not, has."""
    return best_scores(seeds, reference)[0]


def possible_scores(seeds: int, steps: int, guidance_scale: float, reference: bool) -> tuple[str, ...]:
    """The scores that a scan with such settings can give a prompt."""
    held = ("prior", "reference", None) if reference else ("prior", None)
    able = {name: score for name, score in SCORES.items() if score.seeds <= seeds and score.steps <= steps}
    return tuple(n for n, by in able.items() if by.needs in held and (guidance_scale != 1 or not by.guided))


DEFAULT_SCORE = best_score(seeds=2, reference=False)  # of a scan with default settings
