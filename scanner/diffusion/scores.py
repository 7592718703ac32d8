"""Memorization scores: pure functions of a Trace, higher = more likely memorized, NaN = undefined for this trace.

Every score here looks at the first step only. Differences are taken before norms, in float32: the difference of the
two predictions is ~1 where their norms are ~100. With De = eps_cond - eps_uncond, d = C*H*W, X the clean estimates.

The classical first-step scores are constants times ||De||: ||X_cond - X_uncond||, the guided displacement, and the
distance between the guided and the unguided next latent differ from it only in unit and interpretation.
"""

from collections.abc import Callable, Mapping

import numpy as np

from scanner.diffusion.schedule import Array
from scanner.diffusion.trace import Trace

TOP_POSITIONS = 0.05  # share of latent positions that `concentration_v1` looks at


def _flat(array: Array) -> Array:
    return np.reshape(array, (*array.shape[:2], -1))  # [B, S, C, H, W] -> [B, S, d]


def _difference(trace: Trace) -> Array:
    return _flat(trace.eps_cond[0] - trace.eps_uncond[0])  # [B, S, d]


def gram(trace: Trace) -> dict[str, Array]:
    """First-step Gram entries per seed, float32 [B, S] each.

    q1 = ||De||^2/d, q2 = <De, eps_uncond>/d, q3 = <De, x_T>/d. Every norm, projection or global cosine of
    (x_T, eps_cond, eps_uncond) follows from them and prompt-free numbers, for any guidance scale.
    """
    De, eps_uncond, x_T = _difference(trace), _flat(trace.eps_uncond[0]), _flat(trace.x_t[0])
    return {"q1": (De * De).mean(-1), "q2": (De * eps_uncond).mean(-1), "q3": (De * x_T).mean(-1)}


def text_noise_norm_v1(trace: Trace) -> Array:
    """Mean over seeds of ||De||_2, not normalised: Wen et al. (ICLR 2024) at the first step. Float32 [B]."""
    return np.asarray(np.linalg.norm(_difference(trace), axis=-1).mean(-1), np.float32)


def overestimation_v1(trace: Trace) -> Array:
    """The guided displacement of the clean estimate in data radii: g*(s/a)*mean ||De|| / (sqrt(d)*latent_std).

    How far guidance pushes past the data (arXiv 2509.25705); tends to g for a fully memorized prompt. Float32 [B].
    """
    d = trace.x_t[0, 0, 0].size
    scale = trace.guidance_scale * trace.noise_rate[0] / trace.signal_rate[0] / (np.sqrt(d) * trace.latent_std)
    return np.float32(scale) * text_noise_norm_v1(trace)


def seed_independence_v1(trace: Trace) -> Array:
    """1 - slope of the conditional on the unconditional clean estimate over seeds; needs two seeds. Float32 [B].

    slope = sum_s <X_c,s - mean X_c, X_u,s - mean X_u> / sum_s ||X_u,s - mean X_u||^2. 1: the prompt fixes the estimate
    whatever the noise; 0: it leaves the noise its say.
    """
    if trace.x_t.shape[2] < 2:
        return _undefined(trace)
    cond, uncond = (_flat(x0[0]) for x0 in (trace.x0_cond, trace.x0_uncond))
    cond, uncond = (x0 - x0.mean(1, keepdims=True) for x0 in (cond, uncond))
    return np.asarray(1 - (cond * uncond).sum((1, 2)) / (uncond * uncond).sum((1, 2)), np.float32)


def agreement_v1(trace: Trace) -> Array:
    """Mean pairwise cosine of the conditional clean estimates over seeds; needs two seeds. Float32 [B]."""
    S = trace.x_t.shape[2]
    if S < 2:
        return _undefined(trace)
    x0 = _flat(trace.x0_cond[0])
    unit = x0 / np.linalg.norm(x0, axis=-1, keepdims=True)
    total = np.square(unit.sum(1)).sum(-1)  # [B]: S + the sum over ordered pairs
    return np.asarray((total - S) / (S * (S - 1)), np.float32)


def concentration_v1(trace: Trace) -> Array:
    """Share of the energy of De in the top 5 % of latent positions; 0 where De is 0. Float32 [B].

    Energy at a position: sum over channels of De^2, mean over seeds. Memorized templates are local.
    """
    De = trace.eps_cond[0] - trace.eps_uncond[0]  # [B, S, C, H, W]
    energy = np.square(De).sum(2).mean(1).reshape(len(De), -1)  # [B, H*W]
    top = int(np.ceil(TOP_POSITIONS * energy.shape[1]))
    total = energy.sum(1)
    share = np.partition(energy, -top, axis=1)[:, -top:].sum(1) / np.where(total > 0, total, 1)
    return np.asarray(share, np.float32)


def _undefined(trace: Trace) -> Array:
    return np.full(trace.x_t.shape[1], np.nan, np.float32)


SCORES: Mapping[str, Callable[[Trace], Array]] = {
    "text_noise_norm_v1": text_noise_norm_v1,
    "overestimation_v1": overestimation_v1,
    "seed_independence_v1": seed_independence_v1,
    "agreement_v1": agreement_v1,
    "concentration_v1": concentration_v1,
}
DEFAULT_SCORE = "agreement_v1"  # the best of them on the labelled demo prompts at two seeds: see docs/detection.md
