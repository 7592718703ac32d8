"""Lengths over seeds, of which scores are made: norms, spreads, and ratios that may be undefined. Arrays only."""

from collections.abc import Callable

import numpy as np

from scanner.diffusion.prediction import Array

RESOLUTION = float(np.finfo(np.float32).eps)  # of the clean estimates: a smaller seed spread means nothing


def flat(array: Array) -> Array:
    """Latents as vectors: [B, S, C, H, W] -> [B, S, d]."""
    return np.reshape(array, (*array.shape[:2], -1))


def norm(array: Array) -> Array:
    """Euclidean length, mean over seeds: [B, S, d] -> [B]."""
    return np.asarray(np.linalg.norm(array, axis=-1).mean(-1), np.float32)


def spread(array: Array) -> Array:
    """Standard deviation over seeds, as a length: [B, S, d] -> [B]."""
    return np.asarray(np.sqrt(np.square(array - array.mean(1, keepdims=True)).sum((1, 2)) / (array.shape[1] - 1)))


def ratio(numerator: Array, denominator: Array) -> Array:
    """Element by element, float32; NaN where the denominator is not above 0."""
    undefined = np.full(numerator.shape, np.nan, np.float32)
    return np.divide(numerator, denominator, out=undefined, where=denominator > 0)


def measured_ratio(estimate: Array, centre: Array, distance: Callable[[Array], Array]) -> Array:
    """log(distance of estimates [B, S, C, H, W] from the centre / standard deviation over seeds).

    `distance`: the measure's own, of latents from 0, one for each.
    """
    length = distance(estimate - centre).mean(-1)
    deviations = distance(estimate - estimate.mean(1, keepdims=True))
    deviation = np.sqrt(np.square(deviations).sum(-1) / (deviations.shape[1] - 1))
    return np.asarray(np.log(length / np.maximum(deviation, RESOLUTION * length)))
