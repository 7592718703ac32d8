"""How latents vary where there are far fewer samples of them than elements: a spectrum, and a shrinkage by the data.

64 estimates span 63 of 16,384 directions. Shrunk towards the identity, a covariance of them discounts the directions
that were sampled and is a plain norm in all others: a fresh estimate then lies ten times as far out as the samples.
Latents are nearly stationary, so what varies in the unseen directions is known from their frequencies: a power for
each channel and distance from frequency 0, estimated from thousands of coefficients. Filtered flat by it, latents have
the identity as their natural target (Ledoit and Wolf, 2004, shrink towards it; here after the filter).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scanner.diffusion.baselines import Covariance
from scanner.diffusion.prediction import Array

Floats = NDArray[np.float64]
FLOOR = 1e-6  # of the mean power: a frequency that never varies is not divided by 0
SHRINKAGES = (0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)


@dataclass(frozen=True)
class Spectrum:
    """`power`: float64 [C, H, W], mean square of the coefficients of `np.fft.fft2(z, norm="ortho")`, by its order."""

    power: Floats

    @classmethod
    def of(cls, deviations: NDArray[np.floating], degrees: int) -> "Spectrum":
        """Of deviations [N, C, H, W] from their mean: averaged over samples and over frequencies of one radius."""
        squared = np.square(np.abs(np.fft.fft2(deviations.astype(np.float64), norm="ortho"))).sum(0) / degrees
        band = _radius(*deviations.shape[2:])
        counts = np.bincount(band.ravel())
        means = [np.bincount(band.ravel(), weights=channel.ravel()) / counts for channel in squared]
        return cls(np.asarray(np.maximum(np.stack(means)[:, band], FLOOR * squared.mean())))

    def whitened(self, z: NDArray[np.floating]) -> Array:
        """Latents [..., C, H, W], each channel filtered so that what has this spectrum has a flat one of 1."""
        return np.asarray(np.fft.ifft2(np.fft.fft2(z) / np.sqrt(self.power)).real, np.float32)


def shrinkage(deviations: NDArray[np.floating]) -> float:
    """How far to shrink the covariance of whitened samples [N, d] towards the identity, one of SHRINKAGES.

    The one under which each sample is likeliest by the mean and covariance of all others (normal densities). `d` may be
    large: only products of samples are needed.
    """
    x = deviations.astype(np.float64)
    products, (n, d) = x @ x.T, x.shape
    weight = np.array(SHRINKAGES)[:, None]  # of the identity
    logs = np.zeros(len(SHRINKAGES))
    for out in np.arange(n)[:, None]:
        others = np.setdiff1d(np.arange(n), out)
        between, along = products[np.ix_(others, others)], products[np.ix_(others, out)]
        mean, centre = between.mean(0), between.mean()
        values, vectors = np.linalg.eigh(between - mean - mean[:, None] + centre)
        seen = np.square(vectors.T @ (along - along.mean(0) - mean[:, None] + centre))  # of the rest less its mean
        left = products[out, out] - 2 * along.mean(0) + centre
        scale = (1 - weight) / max(1, len(others) - 1)  # of the others' scatter
        values = np.maximum(values, 0)
        distance = (left.sum() - (seen.sum(1) / (weight / scale + values)).sum(1)) / weight[:, 0]
        volume = d * np.log(weight[:, 0]) + np.log1p(scale * values / weight).sum(1)
        logs -= (distance + len(out) * volume) / 2
    return SHRINKAGES[int(logs.argmax())]


def _radius(height: int, width: int) -> NDArray[np.intp]:
    """Distance from frequency 0 in whole cycles per shorter side, [H, W]."""
    y, x = np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)
    return np.asarray(np.rint(np.hypot(y, x) * min(height, width)), np.intp)


@dataclass(frozen=True)
class SpectralCovariance:
    """A covariance of latents, shrunk towards their spectrum."""

    spectrum: Spectrum
    whitened: Covariance

    @classmethod
    def of(cls, deviations: NDArray[np.floating], degrees: int) -> "SpectralCovariance":
        """Of deviations [N, C, H, W] from their mean."""
        spectrum = Spectrum.of(deviations, degrees)
        flat = spectrum.whitened(deviations).reshape(len(deviations), -1)
        return cls(spectrum, Covariance.of(flat, degrees, shrinkage(flat)))

    def distance(self, z: Array) -> Array:
        """Mahalanobis length of latents [..., C, H, W] over sqrt(d): about 1 for one of the data that it is of."""
        seen = self.spectrum.whitened(z)
        return self.whitened.distance(seen.reshape(*z.shape[:-3], -1))
