"""How much of a known image the first steps already hold: the paper's quantities with the true x_0, no estimate for it.

"How Diffusion Models Memorize" (arXiv 2509.25705) explains memorization by guidance overestimating a training image at
the first steps. Where a caption's image is at hand, that is measured rather than inferred. Pure functions of arrays;
letters as in `trace`.
"""

from typing import NamedTuple

import numpy as np

from scanner.diffusion.baselines import Covariance
from scanner.diffusion.lengths import ratio
from scanner.diffusion.prediction import Array
from scanner.diffusion.schedule import Schedule
from scanner.diffusion.trace import Trace


class Injection(NamedTuple):
    """`coefficient`, `cosine`: float32 [B, S, N], prompts by images. NaN where one is undefined."""

    coefficient: Array
    cosine: Array


def injection(x0_hat: Array, x_0: Array, centre: Array, covariance: Covariance | None = None) -> Injection:
    """<X_hat - mu, x* - mu> / ||x* - mu||^2, and the cosine of the two; with a covariance C, <a, b> is a' C^-1 b.

    `x0_hat`: guided clean estimates [B, S, C, H, W]; `x_0`: encoded images x* [N, C, H, W]; `centre`: mu, [C, H, W].
    Where the prompt alone fixes the estimate and X_u = mu, X_hat - mu = g*(x* - mu): the coefficient is the guidance
    scale and the cosine 1. Undefined for x* = mu; the cosine also for X_hat = mu.
    """
    B, S = x0_hat.shape[:2]
    push = (x0_hat - centre).reshape(B, S, -1)  # [B, S, d]
    image = (x_0 - centre).reshape(len(x_0), -1)  # [N, d]
    product, energy, own = push @ image.T, np.square(push).sum(-1), np.square(image).sum(-1)  # [B, S, N], [B, S], [N]
    if covariance is not None:  # a' C^-1 b = (<a, b> - <P a, P b>) / v, and v cancels
        p, q = push @ covariance.P.T, image @ covariance.P.T
        product, energy, own = product - p @ q.T, energy - np.square(p).sum(-1), own - np.square(q).sum(-1)
    return Injection(
        ratio(product, np.broadcast_to(own, product.shape)),
        ratio(product, np.sqrt(np.maximum(energy[..., None] * own, 0))),
    )


class Discrepancy(NamedTuple):
    """`E_rel`, `r_perp`: float32 [..., S], dimensionless. NaN for an image that is the mean."""

    E_rel: Array
    r_perp: Array


def discrepancy(change: Array, x_0: Array, centre: Array) -> Discrepancy:
    """How far what the prompt changes, DX = X_c - X_u, is from what a memorized image x* would, v = x* - mu.

    E_rel = ||DX - v|| / ||v||, and of it what lies across v, r_perp = ||DX - q*v|| / ||v|| with q = <DX, v> / ||v||^2:
    E_rel^2 = (q - 1)^2 + r_perp^2. Guidance multiplies DX and v alike, so it changes neither. Names and formulas are
    those of the notes beside the authors' code of "How Diffusion Models Memorize", whose mu is the mean of training
    latents.

    `change`: [..., S, C, H, W]; `x_0`: encoded images x*, which broadcast to it; `centre`: mu, [C, H, W]. Both are 0
    where the prompt alone fixes the estimate on x* and X_u = mu. A prompt that changes nothing has E_rel 1 and r_perp
    0, so r_perp alone tells nothing.
    """
    push = change.reshape(*change.shape[:-3], -1).astype(np.float64)
    image = np.broadcast_to(x_0 - centre, change.shape).reshape(push.shape).astype(np.float64)
    own = np.square(image).sum(-1)
    own = np.where(own > 0, own, np.nan)
    q = (push * image).sum(-1) / own
    rests = (push - image, push - q[..., None] * image)
    return Discrepancy(*(np.sqrt(np.square(rest).sum(-1) / own).astype(np.float32) for rest in rests))


def latents(trace: Trace, schedule: Schedule, num_inference_steps: int) -> Array:
    """The latents after the first, ..., K-th update, [K, B, S, C, H, W]: the last needs no further UNet pass."""
    K, timesteps = len(trace.timesteps), schedule.timesteps(num_inference_steps)
    following = timesteps[K] if len(timesteps) > K else None
    cond, uncond, g = trace.cond.at(-1), trace.uncond.at(-1), trace.guidance_scale
    last = schedule.step(schedule.guided(trace.x_t[-1], cond, uncond, g, trace.timesteps[-1]), following)
    return np.concatenate([trace.x_t[1:], last[None]])
