"""What a network's output means: a clean latent and a noise at x_t, and how guidance combines two of them."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Rate = NDArray[np.float64] | np.floating | float


class Prediction(NamedTuple):
    """What a network's output means at x_t: two float32 arrays of its shape.

    `x0`: the clean latent; `eps`: the noise. Where no signal is left in x_t, eps is x_t itself, whatever the prompt.
    """

    x0: Array
    eps: Array

    def at(self, index: Any) -> "Prediction":
        """A part of both arrays."""
        return Prediction(self.x0[index], self.eps[index])


def x0_from_eps(x_t: Array, eps: Array, signal_rate: Rate, noise_rate: Rate) -> Array:
    """X = (x_t - noise_rate * eps) / signal_rate, in float32; the rates broadcast."""
    a, s = np.asarray(signal_rate, np.float32), np.asarray(noise_rate, np.float32)
    return np.asarray((x_t - s * eps) / a, np.float32)


def guided(
    x_t: Array, cond: Prediction, uncond: Prediction, guidance_scale: float, rates: tuple[Rate, Rate] | None
) -> Prediction:
    """Classifier-free guidance, uncond + g * (cond - uncond); g = 1 is none (Ho and Salimans, 2022).

    `rates`: signal and noise rate, where x0 is to follow from eps.
    """
    x0, eps = (u + np.float32(guidance_scale) * (c - u) for c, u in zip(cond, uncond, strict=True))
    return Prediction(x0 if rates is None else x0_from_eps(x_t, eps, *rates), eps)


def combined(predictions: Sequence[Prediction], join: Callable[[list[Array]], Array]) -> Prediction:
    """One of several: both of their arrays joined, as by np.stack."""
    return Prediction(join([of.x0 for of in predictions]), join([of.eps for of in predictions]))
