"""The formulas of the scores: pure functions of a Trace, higher = more likely memorized.

Differences are taken before norms, in float32: the difference of two predictions is ~1 where their norms are ~100.
With De = eps_cond - eps_uncond, d = C*H*W, X the clean estimates, a and s signal and noise rate, g the guidance scale;
indices 0 and 1 are the first and second scanned step. Every norm is averaged over seeds.

The classical first-step scores are constants times ||De||: ||X_cond - X_uncond||, the guided displacement, and the
distance between the guided and the unguided next latent differ from it only in unit and interpretation.
"""

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
    the same with DX for De and X_u for eps_uncond. q1_low, q2_low, q3_low: as the first three, at `Trace.low`.
    """
    change, x_T = flat(trace.change[0]), flat(trace.x_t[0])
    uncond, version = (trace.uncond.eps, "") if trace.in_eps else (trace.uncond.x0, "_v2")
    entries = {"q1": change, "q2": flat(uncond[0]), "q3": x_T}
    found = {name + version: (change * other).mean(-1) for name, other in entries.items()}
    if trace.low is not None:
        De, eps_uncond = flat(trace.low.cond.eps - trace.low.uncond.eps), flat(trace.low.uncond.eps)
        entries = {"q1_low": De, "q2_low": eps_uncond, "q3_low": x_T}
        found |= {name: (De * other).mean(-1) for name, other in entries.items()}
    return found


def text_noise_norm(trace: Trace) -> Array:
    """||De||_2, not normalised: Wen et al. (ICLR 2024) at the first step."""
    return norm(flat(trace.text_noise[0]))


def overestimation(trace: Trace) -> Array:
    """The guided displacement of the clean estimate in data radii: g*(s/a)*||De|| / (sqrt(d)*latent_std).

    How far guidance pushes past the data (arXiv 2509.25705); tends to g for a fully memorized prompt.
    """
    return np.asarray(_radii(trace) * norm(flat(trace.change[0])))


def overestimation_prior(trace: Trace) -> Array:
    """||X_c - X_u|| in standard deviations of the clean estimates that the model makes without a caption.

    Directions in which those vary anyway (say, the colour of a background) count for little.
    """
    assert trace.prior is not None
    return np.asarray(trace.prior.covariance.distance(flat(trace.text_estimate[0])).mean(-1))


def overestimation_ref(trace: Trace) -> Array:
    """Overestimation against ordinary captions instead of the empty prompt: eps_cond - their mean for De.

    Every caption moves the prediction a little just by being a caption.
    """
    assert trace.reference is not None
    return _radii(trace) * norm(flat(trace.told[0] - trace.reference.mean))


def overestimation_white(trace: Trace) -> Array:
    """Distance of eps_cond from ordinary captions' mean, in standard deviations of ordinary captions around it."""
    assert trace.reference is not None
    return np.asarray(trace.reference.covariance.distance(flat(trace.told[0] - trace.reference.mean)).mean(-1))


def overestimation_base(trace: Trace) -> Array:
    """||(X_c - X_u) - the base model's X_c - X_u||, in standard deviations as of `overestimation_prior`.

    What training since the base has changed for every prompt alike, such as a style, is in X_c and X_u and cancels.
    """
    assert trace.base is not None
    assert trace.prior is not None
    before = trace.base.cond.x0 - trace.base.uncond.x0
    return np.asarray(trace.prior.covariance.distance(flat(trace.text_estimate[0] - before)).mean(-1))


def estimate_change(trace: Trace) -> Array:
    """||X_c - the base model's X_c||, that is s/a*||eps_cond - the base model's||, in the same standard deviations.

    0 where training since the base has left the caption as it was, whatever it did to the empty prompt.
    """
    assert trace.base is not None
    assert trace.prior is not None
    return np.asarray(trace.prior.covariance.distance(flat(trace.cond.x0[0] - trace.base.cond.x0)).mean(-1))


def seed_independence(trace: Trace) -> Array:
    """1 - slope of the conditional on the unconditional clean estimate over seeds.

    slope = sum_s <X_c,s - mean X_c, X_u,s - mean X_u> / sum_s ||X_u,s - mean X_u||^2. 1: the prompt fixes the estimate
    whatever the noise; 0: it leaves the noise its say.
    """
    cond, uncond = (flat(side.x0[0]) for side in (trace.cond, trace.uncond))
    cond, uncond = (x0 - x0.mean(1, keepdims=True) for x0 in (cond, uncond))
    return np.asarray(1 - (cond * uncond).sum((1, 2)) / (uncond * uncond).sum((1, 2)))


def agreement(trace: Trace) -> Array:
    """Mean pairwise cosine of the conditional clean estimates over seeds."""
    S = trace.x_t.shape[2]
    x0 = flat(trace.cond.x0[0])
    unit = x0 / np.linalg.norm(x0, axis=-1, keepdims=True)
    total = np.square(unit.sum(1)).sum(-1)  # [B]: S + the sum over ordered pairs
    return np.asarray((total - S) / (S * (S - 1)))


def estimate_ratio(trace: Trace) -> Array:
    """log(||X_c|| / standard deviation of X_c over seeds), at most -log(float32's resolution), 15.9."""
    x0 = flat(trace.cond.x0[0])
    length = norm(x0)
    return np.asarray(np.log(length / np.maximum(spread(x0), RESOLUTION * length)))


def estimate_ratio_prior(trace: Trace) -> Array:
    """The estimate ratio in standard deviations of the clean estimates that the model makes without a caption.

    High where the estimate is far from those (overestimation) and the seeds agree on it (independence).
    """
    assert trace.prior is not None
    covariance = trace.prior.covariance
    return measured_ratio(trace.cond.x0[0], trace.prior.mean, lambda z: covariance.distance(flat(z)))


def estimate_ratio_white(trace: Trace) -> Array:
    """The estimate ratio by ordinary captions: from the mean of their estimates, in standard deviations of these."""
    assert trace.reference is not None
    covariance = trace.reference.covariance
    return measured_ratio(*_told(trace), lambda z: covariance.distance(flat(z)))


def _told(trace: Trace) -> tuple[Array, Array]:
    """The estimates of the prompt [B, S, C, H, W], and of ordinary captions, mean over them and over seeds."""
    assert trace.reference is not None
    told, mean = trace.told[0], trace.reference.mean
    if trace.in_eps:  # both estimates are left times a: the ratio does not know
        s = np.float32(trace.noise_rate[0])
        told, mean = trace.x_t[0] - s * told, trace.x_t[0, 0] - s * mean
    return told, mean.mean(0)


def guidance_spread(trace: Trace) -> Array:
    """Standard deviation of De over seeds, as a length: an estimate fixed by the prompt undoes each seed's own."""
    return spread(flat(trace.text_noise[0]))


def concentration(trace: Trace) -> Array:
    """Share of the energy of De (or DX, the same) in the top 5 % of latent positions; 0 where De is 0.

    Energy at a position: sum over channels of De^2, mean over seeds. Memorized templates are local.
    """
    energy = np.square(trace.change[0]).sum(2).mean(1).reshape(trace.x_t.shape[1], -1)  # [B, H*W]
    top = int(np.ceil(TOP_POSITIONS * energy.shape[1]))
    total = energy.sum(1)
    return np.asarray(np.partition(energy, -top, axis=1)[:, -top:].sum(1) / np.where(total > 0, total, 1))


def text_noise_norm_steps(trace: Trace) -> Array:
    """||De|| averaged over the scanned steps: Wen et al. with more than one step."""
    return np.asarray(np.mean([norm(flat(De)) for De in trace.text_noise], axis=0))


def steadiness(trace: Trace) -> Array:
    """R01 = ||eps_cond(x_1) - eps_cond(x_T)|| / (c*||De||); 1 where the conditional estimate does not move.

    From eps_cond(x_1) - eps_cond(x_T) = (k/s_1)*(g - 1)*(X_c - X_u) - (a_1/s_1)*(X_c(x_1) - X_c(x_T)), where
    k = a_1 - a_0*s_1/s_0: c*||De|| is the norm of the first term. Undefined without guidance.
    """
    (a_0, a_1), (s_0, s_1) = trace.signal_rate[:2], trace.noise_rate[:2]
    k = a_1 - a_0 * s_1 / s_0
    c = np.float32(k / s_1 * (trace.guidance_scale - 1) * (s_0 / a_0 if trace.in_eps else 1))  # of DX: s_0/a_0 in it
    return ratio(norm(flat(trace.cond.eps[1] - trace.cond.eps[0])), c * norm(flat(trace.change[0])))


def growth(trace: Trace) -> Array:
    """G12 = ||De(x_1)||^2 / ||De(x_T)||^2: how fast the prompt gains on the empty one."""
    now, next_ = (np.square(flat(trace.text_noise[step])).sum((1, 2)) for step in (0, 1))
    return ratio(next_, now)


def schedule_deviation(trace: Trace) -> Array:
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


def low_noise_norm(trace: Trace) -> Array:
    """||De||_2 where the network is told of little noise beside x_T itself, which is all noise.

    What it is told there it takes for the picture's own structure, and what a caption changes in it is what the model
    knows by heart of it (the literature looks there at the cosine of De and eps_uncond, arXiv 2601.20642).
    """
    assert trace.low is not None
    return norm(flat(trace.low.cond.eps - trace.low.uncond.eps))


def two_noise(trace: Trace) -> Array:
    """log low_noise_norm + log overestimation_prior: what is known by heart, and where it pulls the estimate."""
    return np.asarray(np.log(low_noise_norm(trace)) + np.log(overestimation_prior(trace)))
