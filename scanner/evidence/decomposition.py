"""A whole denoising path in numbers: how much of it is the image, how much the starting noise, how far seeds lie apart,
and what of both the predictions hold.

After Kim, Kim and Lee, "How Diffusion Models Memorize" (arXiv 2509.25705): x_t ~ w_0*x_0 + w_T*x_T. Where a model
memorized, w_0 runs ahead of the schedule's signal rate and w_T behind its noise rate, since guidance overshoots the
image that the prompt alone is right about. Knows arrays only.
Beside the letters of `scanner.diffusion.trace`: here **K** counts all timesteps of a sampling.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from scanner.diffusion.prediction import Array
from scanner.errors import ScannerError

Floats = NDArray[np.float64]
PARALLEL = 1e-9  # of 1 - cosine^2: below, x_0 and x_T are one direction in float32


class Weights(NamedTuple):
    """`w_0`, `w_T`: float64 [K, ...], dimensionless; `residual`: ||x_t - w_0*x_0 - w_T*x_T|| / ||x_t||."""

    w_0: Floats
    w_T: Floats
    residual: Floats


def decompose(x_t: Array, x_0: Array, x_T: Array) -> Weights:
    """`least_squares`, which must have one answer. Raises ScannerError where x_0 is a multiple of x_T."""
    found = least_squares(x_t, x_0, x_T)
    if np.isnan(found.w_0).any():
        raise ScannerError("x_0 is a multiple of the starting noise x_T, so a path has no weights on the two")
    return found


def least_squares(x_t: Array, x_0: Array, x_T: Array) -> Weights:
    """Least squares, without intercept, of x_t [K, ..., C, H, W] on x_0 and x_T, which broadcast to x_t[0].

    NaN where x_0 is zero or a multiple of x_T: then there is no one answer.
    """
    shape = x_t.shape[1:]
    x, image, noise = (_flat(array) for array in (x_t, np.broadcast_to(x_0, shape), np.broadcast_to(x_T, shape)))
    ii, nn, cross = (_dot(a, b) for a, b in ((image, image), (noise, noise), (image, noise)))
    determinant = ii * nn - cross**2
    determinant = np.where(determinant > PARALLEL * ii * nn, determinant, np.nan)
    xi, xn = _dot(x, image), _dot(x, noise)
    w_0, w_T = (nn * xi - cross * xn) / determinant, (ii * xn - cross * xi) / determinant
    rest = x - w_0[..., None] * image - w_T[..., None] * noise
    return Weights(w_0, w_T, np.sqrt(_dot(rest, rest) / _dot(x, x)))


class Deviation(NamedTuple):
    """The paper's severities, float64 [...], meant to grow with memorization; docs/severity.md says how far they do."""

    D1: Floats
    D2: Floats


def deviation(weights: Weights, signal_rate: Floats, noise_rate: Floats) -> Deviation:
    """D1 = sum_t (mean_seeds w_0 - a_t), D2 = -sum_t (mean_seeds w_T - s_t), for weights [K, ..., S] and rates [K].

    The first step is among them: there w_0 = 0 and w_T = 1 whatever the prompt, so it adds a constant.
    """
    a, s = (rate.reshape(-1, *[1] * (weights.w_0.ndim - 2)) for rate in (signal_rate, noise_rate))
    return Deviation((weights.w_0.mean(-1) - a).sum(0), -(weights.w_T.mean(-1) - s).sum(0))


class Branches(NamedTuple):
    """The same of what is predicted with guidance, for the prompt, and for the empty prompt: float64 [...] each."""

    hat: Floats
    cond: Floats
    uncond: Floats


def loss(x0: Array, x_0: Array) -> Floats:
    """||X - x_0||^2 / d of clean estimates X [..., C, H, W] of an image x_0, which broadcasts: float64 [...].

    The training loss in x0, at the noise that leads from x_0 to where the estimate is made; in eps it is a^2/s^2 times
    that. Where the prompt alone fixes the estimate on x_0, it is 0 for the prompt, ||x_0 - X_u||^2 / d for the empty
    one, and with guidance (g - 1)^2 times the latter: the guided estimate overshoots x_0.
    """
    return np.square(_rms(_flat(x0) - _flat(np.broadcast_to(x_0, x0.shape))))


def cosine(eps: Array, other: Array) -> Floats:
    """Cosine of predicted noise [..., C, H, W] with the image x_0 or the starting noise x_T: float64 [...].

    `other` broadcasts. NaN where one of the two is zero. Where the prompt alone fixes the estimate on x_0, its noise is
    (x_t - a*x_0) / s: the image is in it, with the other sign, and with guidance more of it.
    """
    a, b = _flat(eps), _flat(np.broadcast_to(other, eps.shape))
    energy = _dot(a, a) * _dot(b, b)
    return _dot(a, b) / np.sqrt(np.where(energy > 0, energy, np.nan))


def seed_distance(x_t: Array) -> Floats:
    """Mean distance between two seeds, ||x_i - x_j|| / sqrt(d), of latents [..., S, C, H, W]: float64 [...].

    sqrt(2) for independent standard normal noise, 0 where all seeds have collapsed into one. NaN for one seed.
    """
    x = _flat(x_t)
    ones, others = np.triu_indices(x.shape[-2], 1)
    if not len(ones):
        return np.full(x.shape[:-2], np.nan)
    return np.asarray(np.stack([_rms(x[..., i, :] - x[..., j, :]) for i, j in zip(ones, others, strict=True)]).mean(0))


def latent_norm(latent: Array) -> Floats:
    """RMS per element, ||x|| / sqrt(d), of latents [..., C, H, W]: float64 [...]."""
    return _rms(_flat(latent))


def _flat(latent: Array) -> Floats:
    return latent.reshape(*latent.shape[:-3], -1).astype(np.float64)


def _dot(a: Floats, b: Floats) -> Floats:
    return np.asarray((a * b).sum(-1))


def _rms(x: NDArray[np.floating[Any]]) -> Floats:
    return np.asarray(np.sqrt(np.square(x).mean(-1)), np.float64)
