"""What is usual for a model, memorization aside: the measures that the `_prior`, `_ref` and `_white` scores use."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from scanner.diffusion.prediction import Array
from scanner.errors import ScannerError

SKETCH = 64  # numbers of a sketch
SHRINKAGE = 0.6  # of a covariance towards a multiple of the identity


@dataclass(frozen=True)
class Covariance:
    """C = v*I + the rest, as `isotropic` v and rows P [r, d] such that z' C^-1 z = (||z||^2 - ||P z||^2) / v.

    P holds the few directions in which the data vary, so C, [d, d], is never formed.
    """

    isotropic: float
    P: Array

    @classmethod
    def of(cls, deviations: NDArray[np.floating], degrees: int, shrinkage: float = SHRINKAGE) -> "Covariance":
        """(1 - shrinkage) * D'D / degrees + shrinkage * its mean variance * identity, for deviations D [N, d].

        Raises ScannerError where there are none.
        """
        _, singular, directions = np.linalg.svd(deviations, full_matrices=False)
        variance = np.square(singular) / degrees
        isotropic = shrinkage * variance.sum() / deviations.shape[1]
        if isotropic == 0:
            raise ScannerError(f"the model predicts the same for all of {len(deviations)} captions and seeds")
        removed = 1 - isotropic / ((1 - shrinkage) * variance + isotropic)
        return cls(float(isotropic), np.asarray(np.sqrt(removed)[:, None] * directions, np.float32))

    def distance(self, z: Array) -> Array:
        """Mahalanobis length of z [..., d] over sqrt(d): about 1 for one of the data that the covariance is of."""
        squared = np.square(z).sum(-1) - np.square(z @ self.P.T).sum(-1)
        return np.asarray(np.sqrt(np.maximum(squared, 0) / (self.isotropic * z.shape[-1])), np.float32)

    def whitened(self, z: Array) -> Array:
        """C^-1/2 z / sqrt(d) of z [..., d]: of length `distance(z)`, and all of the data's directions count alike."""
        kept = np.sqrt(np.maximum(1 - np.square(self.P).sum(1), 0))  # of the length along each direction
        shortened = z - (z @ self.P.T / (1 + kept)) @ self.P
        return np.asarray(shortened / np.sqrt(self.isotropic * z.shape[-1]), np.float32)


@dataclass(frozen=True)
class Prior:
    """`x0_uncond`: float32 [N, C, H, W], the first step's clean estimates for the empty prompt from N other noises.

    How they vary is what the model holds for usual without a caption: say, more in the colour of a background than in
    details.
    """

    x0_uncond: Array

    @cached_property
    def mean(self) -> Array:
        """Mean over noises, [C, H, W]."""
        return np.asarray(self.x0_uncond.mean(0, dtype=np.float64), np.float32)

    @cached_property
    def covariance(self) -> Covariance:
        """Of the clean estimates around their mean."""
        n = len(self.x0_uncond)
        return Covariance.of((self.x0_uncond - self.mean).reshape(n, -1), n - 1)

    @cached_property
    def projection(self) -> Array:
        """Onto SKETCH random directions of whitened estimates, [d, SKETCH]: keeps their lengths and angles, roughly."""
        drawn = np.random.Generator(np.random.PCG64(0)).standard_normal((SKETCH, self.mean.size), np.float32)
        return self.covariance.whitened(drawn).T / np.float32(np.sqrt(SKETCH))


@dataclass(frozen=True)
class Reference:
    """`cond`: float32 [R, S, C, H, W], the first step's predictions for R ordinary captions, as of `Trace.told`."""

    cond: Array

    def part(self, seeds: int) -> "Reference":
        """What a scan with only the first seeds compares with."""
        return self._parts.setdefault(seeds, Reference(self.cond[:, :seeds]))

    @cached_property
    def _parts(self) -> dict[int, "Reference"]:
        """By number of seeds, so that each covariance is computed once."""
        return {}

    @cached_property
    def mean(self) -> Array:
        """Mean over captions, [S, C, H, W]."""
        return np.asarray(self.cond.mean(0, dtype=np.float64), np.float32)

    @cached_property
    def covariance(self) -> Covariance:
        """Of the predictions around each seed's mean, pooled over seeds."""
        deviations = (self.cond - self.mean).reshape(-1, self.mean[0].size)  # [R*S, d]
        return Covariance.of(deviations, (len(self.cond) - 1) * self.cond.shape[1])
