"""A diffusion schedule as two curves: x_t = signal_rate * x0 + noise_rate * eps, for every family.

All conversions between what a network predicts (eps, v, flow), the noise and the clean estimate are here, once.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from scanner.diffusion.prediction import Array, Prediction, guided, x0_from_eps
from scanner.errors import ModelError, ScannerError

Rates = tuple[NDArray[np.float64], NDArray[np.float64]]  # signal_rate, noise_rate


def _scaled_linear(schedule: Mapping[str, Any]) -> Rates:
    """Stable Diffusion: beta linear in its square root."""
    ends = schedule["beta_start"] ** 0.5, schedule["beta_end"] ** 0.5
    return _variance_preserving(np.linspace(*ends, schedule["num_train_timesteps"]) ** 2)


def _linear(schedule: Mapping[str, Any]) -> Rates:
    return _variance_preserving(
        np.linspace(schedule["beta_start"], schedule["beta_end"], schedule["num_train_timesteps"])
    )


def _flow(schedule: Mapping[str, Any]) -> Rates:
    """Rectified flow, x_t = (1 - sigma)*x0 + sigma*eps, sigma shifted as in Stable Diffusion 3."""
    total, shift = schedule["num_train_timesteps"], schedule["shift"]
    time = np.arange(1, total + 1) / total
    sigma = shift * time / (1 + (shift - 1) * time)
    return 1 - sigma, sigma


def _by_sigma(schedule: Mapping[str, Any], grids: Mapping[str, Mapping[str, Any]]) -> Rates:
    """Rectified flow whose network is told sigma in thousandths, whatever the sampler's shift; none if grids differ."""
    total = schedule.get("num_train_timesteps", 1000)
    sigma = np.arange(total) / total
    told = [point for grid in grids.values() for point in zip(grid["timesteps"], grid["noise_rate"], strict=True)]
    return (1 - sigma, sigma) if all(abs(at / total - rate) <= ROUNDING for at, rate in told) else (np.empty(0),) * 2


def _variance_preserving(betas: NDArray[np.float64]) -> Rates:
    alphas_cumprod = np.cumprod(1 - betas)
    return np.sqrt(alphas_cumprod), np.sqrt(1 - alphas_cumprod)


CURVES: Mapping[str, Callable[[Mapping[str, Any]], Rates]] = {
    "scaled_linear": _scaled_linear,
    "linear": _linear,
    "flow": _flow,
}

FAINT = 0.01  # signal_rate: dividing by less costs float32 two digits; samplers without it start at .04 or more
ON_GRIDS = "grids"  # a curve of which a sampler's own points are kept: flow, EDM
ROUNDING = 2e-5  # of a rate: diffusers accumulates alphas_cumprod in float32, which costs 3e-6 at most (tried)
PREDICTION_TYPES = ("epsilon", "v_prediction", "flow", "edm")


class Grid(NamedTuple):
    """A sampler's own grid: entries of the schedule's arrays, and the standard deviation of the first x_t."""

    timesteps: tuple[int, ...]
    initial_noise_scale: float


@dataclass(frozen=True)
class Schedule:
    """`signal_rate` = sqrt(abar_t), `noise_rate` = sqrt(1 - abar_t), or 1 - sigma and sigma for flow.

    Float64 [T], one entry per training timestep; after them, one for each step of a grid that lies elsewhere (between
    two timesteps, or beside one, as with Karras' sigmas). A timestep is an entry's index; `told` is what the network
    is told there. `final_signal_rate`, `final_noise_rate`: where the sampler ends, after its last timestep. `grids`:
    the sampler's own, by number of steps; without any they follow from the spacing.
    """

    signal_rate: NDArray[np.float64]
    noise_rate: NDArray[np.float64]
    final_signal_rate: float
    final_noise_rate: float
    prediction_type: str
    timestep_spacing: str = "leading"
    steps_offset: int = 1
    told_between: tuple[float, ...] = ()
    grids: Mapping[int, Grid] = field(default_factory=dict)

    @classmethod
    def from_manifest(
        cls, schedule: Mapping[str, Any], prediction_type: str, grids: Mapping[str, Mapping[str, Any]] | None = None
    ) -> "Schedule":
        """Build the curves from a manifest's few numbers. Raises ModelError for what overscan does not know."""
        if prediction_type not in PREDICTION_TYPES:
            raise ModelError(f"prediction_type {prediction_type!r}: needed {', '.join(PREDICTION_TYPES)}")
        curve = schedule.get("curve")
        if curve == ON_GRIDS and grids is not None:
            rates = _by_sigma(schedule, grids) if prediction_type == "flow" else (np.empty(0), np.empty(0))
            return cls(*rates, 1.0, 0.0, prediction_type)._with(grids)
        if curve not in CURVES:
            raise ModelError(f"schedule curve {curve!r}: needed {', '.join(CURVES)}, or grids")
        if prediction_type == "edm" or (prediction_type == "flow") != (curve == "flow"):
            raise ModelError(f"prediction_type {prediction_type!r} with schedule curve {curve!r}")
        try:
            signal_rate, noise_rate = CURVES[schedule["curve"]](schedule)
            clean = schedule["set_alpha_to_one"]
            made = cls(
                signal_rate=signal_rate,
                noise_rate=noise_rate,
                final_signal_rate=1.0 if clean else float(signal_rate[0]),
                final_noise_rate=0.0 if clean else float(noise_rate[0]),
                prediction_type=prediction_type,
                timestep_spacing=schedule["timestep_spacing"],
                steps_offset=schedule["steps_offset"],
            )
        except KeyError as error:
            raise ModelError(f"the bundle's schedule has no {error}: export the model again") from error
        return made if grids is None else made._with(grids)

    def _with(self, grids: Mapping[str, Mapping[str, Any]]) -> "Schedule":
        """Itself with the sampler's own grids; where one agrees with the curve, it is the curve that counts."""
        told: list[float] = []
        rates: list[tuple[float, float]] = []
        made: dict[int, Grid] = {}
        for steps, grid in grids.items():
            points = list(zip(grid["timesteps"], grid["signal_rate"], grid["noise_rate"], strict=True))
            on_curve = all(self._on_curve(*point) for point in points if float(point[0]).is_integer())
            timesteps: list[int] = []
            for at, a, s in points:
                if on_curve and float(at).is_integer():
                    timesteps.append(int(at))
                else:
                    timesteps.append(len(self.signal_rate) + len(told))
                    told.append(int(at) if float(at).is_integer() else at)
                    rates.append((a, s))
            made[int(steps)] = Grid(tuple(timesteps), grid["initial_noise_scale"])
        signal, noise = np.array(rates, np.float64).reshape(-1, 2).T
        return replace(
            self,
            signal_rate=np.append(self.signal_rate, signal),
            noise_rate=np.append(self.noise_rate, noise),
            told_between=tuple(told),
            grids=made,
        )

    def _on_curve(self, at: float, signal_rate: float, noise_rate: float) -> bool:
        if at >= len(self.signal_rate):
            return False
        errors = abs(self.signal_rate[int(at)] - signal_rate), abs(self.noise_rate[int(at)] - noise_rate)
        return bool(errors[0] <= ROUNDING * signal_rate and errors[1] <= ROUNDING)

    def told(self, timestep: int) -> float:
        """What the network is told at a timestep."""
        total = len(self.signal_rate) - len(self.told_between)
        return timestep if timestep < total else self.told_between[timestep - total]

    def initial_noise_scale(self, num_inference_steps: int) -> float:
        """The standard deviation of the first x_t, at the first timestep's noise_rate: 1 for most samplers."""
        return self.grids[num_inference_steps].initial_noise_scale if self.grids else 1.0

    def timesteps(self, num_inference_steps: int) -> list[int]:
        """The sampler's timesteps, noisiest first: its own grid, or spaced as diffusers spaces them.

        Raises ScannerError for a number of steps that it has no grid for.
        """
        steps = self._own(num_inference_steps) if self.grids else self._spaced(num_inference_steps)
        if self.prediction_type == "epsilon" and self.signal_rate[steps[0]] == 0:
            raise ModelError(
                f"the first timestep, {steps[0]}, has no signal: there eps is the noise itself whatever the "
                "prompt; needed a sampler that starts later (timestep_spacing leading)"
            )
        return steps

    def trained(self, timestep: int) -> int:
        """A timestep that the network can be told beside any latent. Raises ScannerError for one that it cannot."""
        total = len(self.signal_rate) - len(self.told_between)
        if total == 0:
            raise ScannerError(f"timestep {timestep}: of this model only its sampler's own steps are known: name none")
        if not 0 <= timestep < total:
            raise ScannerError(f"timestep {timestep}: needed 0 to {total - 1}")
        if self.signal_rate[timestep] == 0 or self.noise_rate[timestep] == 0:
            raise ScannerError(f"timestep {timestep}: there the latent is all noise or none: name another")
        return timestep

    def _own(self, num_inference_steps: int) -> list[int]:
        if num_inference_steps not in self.grids:
            held = ", ".join(map(str, sorted(self.grids)))
            raise ScannerError(
                f"num_inference_steps {num_inference_steps}: the model's sampler was exported for {held} steps: "
                "use one of these"
            )
        return list(self.grids[num_inference_steps].timesteps)

    def _spaced(self, num_inference_steps: int) -> list[int]:
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
            raise ModelError(f"timestep_spacing {self.timestep_spacing!r}: needed leading, trailing or linspace")
        if steps[0] >= total:
            raise ScannerError(f"num_inference_steps {n}: the first timestep would be {int(steps[0])} of {total}")
        return [int(step) for step in steps]

    def in_eps(self, timestep: int) -> bool:
        """Whether eps is what tells one prompt from another there, and x0 follows from it; else x0 is.

        Where no signal is left in x_t, eps says nothing of the prompt, and near there little. Flow and EDM start there.
        A network that predicts eps says nothing else, however faint the signal.
        """
        if self.prediction_type == "epsilon":
            return bool(self.signal_rate[timestep] > 0)
        return self.prediction_type == "v_prediction" and bool(self.signal_rate[timestep] > FAINT)

    def read(self, x_t: Array, output: Array, timestep: int) -> Prediction:
        """What the network's output means at `x_t`. With a, s the signal and noise rate:

        epsilon: eps. v_prediction: a*eps - s*x0 (Salimans and Ho, 2022). edm: the same with the other sign, which is
        the F of Karras et al. (2022) for latents of unit variance. flow: eps - x0, with a + s = 1.
        """
        a, s = np.float32(self.signal_rate[timestep]), np.float32(self.noise_rate[timestep])
        if self.in_eps(timestep):
            eps = output if self.prediction_type == "epsilon" else s * x_t + a * output
            return Prediction(x0_from_eps(x_t, eps, a, s), eps)
        if self.prediction_type == "flow":
            return Prediction(x_t - s * output, x_t + a * output)
        v = -output if self.prediction_type == "edm" else output
        return Prediction(a * x_t - s * v, s * x_t + a * v)

    def guided(
        self, x_t: Array, cond: Prediction, uncond: Prediction, guidance_scale: float, timestep: int
    ) -> Prediction:
        """Both predictions at one timestep with guidance."""
        rates = (self.signal_rate[timestep], self.noise_rate[timestep]) if self.in_eps(timestep) else None
        return guided(x_t, cond, uncond, guidance_scale, rates)

    def step(self, prediction: Prediction, next_timestep: int | None) -> Array:
        """One deterministic step (DDIM with eta 0; Euler for flow and EDM); None is the end of sampling."""
        if next_timestep is None:
            a, s = self.final_signal_rate, self.final_noise_rate
        else:
            a, s = float(self.signal_rate[next_timestep]), float(self.noise_rate[next_timestep])
        return np.float32(a) * prediction.x0 + np.float32(s) * prediction.eps
