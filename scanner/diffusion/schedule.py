"""A diffusion schedule as two curves: x_t = signal_rate * x0 + noise_rate * eps, for every family.

All conversions between what a network predicts (eps, v, flow), the noise and the clean estimate are here, once.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scanner.errors import ScannerError

Array = NDArray[np.float32]


def _alphas_cumprod(curve: str, beta_start: float, beta_end: float, n: int) -> NDArray[np.float64]:
    if curve == "scaled_linear":  # Stable Diffusion: linear in sqrt(beta)
        betas = np.linspace(beta_start**0.5, beta_end**0.5, n) ** 2
    elif curve == "linear":
        betas = np.linspace(beta_start, beta_end, n)
    else:
        raise ScannerError(f"schedule curve {curve!r}: needed scaled_linear or linear")
    return np.cumprod(1 - betas)


@dataclass(frozen=True)
class Schedule:
    """`signal_rate` = sqrt(abar_t), `noise_rate` = sqrt(1 - abar_t): float64 [T], one entry per training timestep.

    `final_signal_rate`: where the sampler ends, after its last timestep.
    """

    signal_rate: NDArray[np.float64]
    noise_rate: NDArray[np.float64]
    final_signal_rate: float
    prediction_type: str
    timestep_spacing: str = "leading"
    steps_offset: int = 1

    @classmethod
    def from_manifest(cls, schedule: Mapping[str, Any], prediction_type: str) -> "Schedule":
        """Build the curves from a manifest's few numbers. Raises ScannerError for what overscan does not know."""
        if prediction_type not in ("epsilon", "v_prediction", "flow"):
            raise ScannerError(f"prediction_type {prediction_type!r}: needed epsilon, v_prediction or flow")
        abar = _alphas_cumprod(
            schedule["curve"], schedule["beta_start"], schedule["beta_end"], schedule["num_train_timesteps"]
        )
        return cls(
            signal_rate=np.sqrt(abar),
            noise_rate=np.sqrt(1 - abar),
            final_signal_rate=1.0 if schedule["set_alpha_to_one"] else float(np.sqrt(abar[0])),
            prediction_type=prediction_type,
            timestep_spacing=schedule["timestep_spacing"],
            steps_offset=schedule["steps_offset"],
        )

    def timesteps(self, num_inference_steps: int) -> list[int]:
        """The sampler's timesteps, noisiest first, spaced as diffusers spaces them."""
        n, total = num_inference_steps, len(self.signal_rate)
        if not 1 <= n <= total:
            raise ScannerError(f"num_inference_steps {n}: needed 1 to {total}")
        if self.timestep_spacing == "leading":
            steps = np.arange(n, dtype=np.float64)[::-1] * (total // n) + self.steps_offset
        elif self.timestep_spacing == "trailing":
            steps = np.round(np.arange(total, 0, -total / n)) - 1
        elif self.timestep_spacing == "linspace":
            steps = np.linspace(0, total - 1, n).round()[::-1]
        else:
            raise ScannerError(f"timestep_spacing {self.timestep_spacing!r}: needed leading, trailing or linspace")
        if steps[0] >= total:
            raise ScannerError(f"num_inference_steps {n}: the first timestep would be {int(steps[0])} of {total}")
        return [int(step) for step in steps]

    def to_eps(self, x_t: Array, output: Array, timestep: int) -> Array:
        """The noise that the network's output means at `x_t`."""
        a, s = self.signal_rate[timestep], self.noise_rate[timestep]
        if self.prediction_type == "epsilon":
            return output
        if self.prediction_type == "v_prediction":  # v = a*eps - s*x0
            return np.float32(s) * x_t + np.float32(a) * output
        return x_t + np.float32(a) * output  # flow: output = eps - x0, a + s = 1

    def to_x0(self, x_t: Array, eps: Array, timestep: int) -> Array:
        """The clean latent that the noise `eps` implies."""
        a, s = self.signal_rate[timestep], self.noise_rate[timestep]
        return (x_t - np.float32(s) * eps) * np.float32(1 / a)

    def step(self, x_t: Array, eps: Array, timestep: int, next_timestep: int | None) -> Array:
        """One deterministic step (DDIM with eta 0; Euler for flow); None is the end of sampling."""
        if next_timestep is None:
            a = self.final_signal_rate
            s = float(np.sqrt(max(0.0, 1 - a**2)))
        else:
            a, s = float(self.signal_rate[next_timestep]), float(self.noise_rate[next_timestep])
        return np.float32(a) * self.to_x0(x_t, eps, timestep) + np.float32(s) * eps
