"""The denoising loop, and the record of its first steps; shape letters as in `scanner.diffusion.start`."""

from collections.abc import Iterator, Sized
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from scanner.diffusion.baselines import Prior, Reference
from scanner.diffusion.prediction import Array, Prediction, combined, guided
from scanner.diffusion.start import Denoises, Start, first_timestep
from scanner.errors import ScannerError

WIDE = np.s_[:, None, None, None, None, None]  # [K] beside [K, B, S, C, H, W]


class Step(NamedTuple):
    """One denoising step before it is taken: `x_t` and both predictions there, arrays float32 [B, S, C, H, W]."""

    timestep: int
    x_t: Array
    cond: Prediction
    uncond: Prediction


def denoise(
    denoiser: Denoises, conditioning: Sized, shared: Start, guidance_scale: float, num_inference_steps: int
) -> Iterator[Step]:
    """The denoising loop: yields each step before taking it; after the last, the clean latent as `x_t` at timestep -1.

    A step costs two UNet passes per prompt and seed, the first one only one.
    """
    schedule = denoiser.schedule
    timesteps = schedule.timesteps(num_inference_steps)
    shape = (len(conditioning), *shared.x_T.shape)  # [B, S, C, H, W]
    x_t = np.broadcast_to(shared.x_T, shape)
    uncond = Prediction(*(np.broadcast_to(array, shape) for array in shared.uncond))
    for step, timestep in enumerate(timesteps):
        if step > 0:
            uncond = denoiser.predict(x_t, timestep, denoiser.null)
        cond = denoiser.predict(x_t, timestep, conditioning)
        yield Step(timestep, x_t, cond, uncond)
        following = timesteps[step + 1] if step + 1 < len(timesteps) else None
        x_t = schedule.step(schedule.guided(x_t, cond, uncond, guidance_scale, timestep), following)
    yield Step(-1, x_t, cond, uncond)


@dataclass(frozen=True)
class Trace:
    """The first K steps of denoising: all that a score may see.

    `signal_rate`, `noise_rate`: float64 [K]; `x_t` and the arrays of `cond`, `uncond` (predictions for the prompt and
    for the empty one): float32 [K, B, S, C, H, W]. `in_eps`: whether eps is what tells prompts apart; else the clean
    estimates are, since the path starts where eps says nothing. `sampled`: whether the first step is the sampler's own,
    and not another timestep that the network was told. `low`: x_T and predictions [B, S, C, H, W] at the least noisy
    of the timesteps that a scan names. `base`: those of the base model where the first of `timesteps` is told.
    """

    timesteps: tuple[int, ...]
    signal_rate: NDArray[np.float64]
    noise_rate: NDArray[np.float64]
    x_t: Array
    cond: Prediction
    uncond: Prediction
    guidance_scale: float
    latent_std: float
    in_eps: bool = True
    prior: Prior | None = None
    reference: Reference | None = None
    sampled: bool = True
    low: Step | None = None
    base: Step | None = None

    def part(self, seeds: int, steps: int) -> "Trace":
        """The part of it that a scan with fewer seeds and steps would have seen."""
        kept = np.s_[:steps, :, :seeds]
        return replace(
            self,
            timesteps=self.timesteps[:steps],
            signal_rate=self.signal_rate[:steps],
            noise_rate=self.noise_rate[:steps],
            x_t=self.x_t[kept],
            cond=self.cond.at(kept),
            uncond=self.uncond.at(kept),
            reference=None if self.reference is None else self.reference.part(seeds),
            low=None if self.low is None else _of_seeds(self.low, seeds),
            base=None if self.base is None else _of_seeds(self.base, seeds),
        )

    @property
    def named(self) -> int:
        """How many timesteps the scan names."""
        return 0 if self.low is None else 1 + (self.low.timestep != self.timesteps[0])

    @cached_property
    def text_noise(self) -> Array:
        """De = eps_cond - eps_uncond, what the prompt changes; 0 where no signal is left."""
        if self.in_eps:
            return self.cond.eps - self.uncond.eps
        return self.text_estimate * np.asarray(-self.signal_rate / self.noise_rate, np.float32)[WIDE]

    @cached_property
    def text_estimate(self) -> Array:
        """DX = X_c - X_u, what the prompt changes in the clean estimate."""
        return self.cond.x0 - self.uncond.x0

    @property
    def change(self) -> Array:
        """What the prompt changes: De, or DX where eps says nothing."""
        return self.text_noise if self.in_eps else self.text_estimate

    @property
    def told(self) -> Array:
        """The prompt's predictions that a `Reference` holds of others: eps, or X_c where eps says nothing."""
        return self.cond.eps if self.in_eps else self.cond.x0

    @cached_property
    def hat(self) -> Prediction:
        """With guidance."""
        rates = (self.signal_rate[WIDE], self.noise_rate[WIDE]) if self.in_eps else None
        return guided(self.x_t, self.cond, self.uncond, self.guidance_scale, rates)


def trace(
    denoiser: Denoises,
    conditioning: Sized,
    shared: Start,
    guidance_scale: float,
    num_inference_steps: int,
    first_steps: int,
) -> Trace:
    """The first `first_steps` of the loop, stacked; where `shared` names timesteps, what the network predicts there.

    Raises ScannerError for more steps than one from a timestep that is not the sampler's first.
    """
    schedule = denoiser.schedule
    own = schedule.timesteps(num_inference_steps)[0]
    sampled = first_timestep(denoiser, shared, num_inference_steps) == own
    if sampled:
        steps = list(islice(denoise(denoiser, conditioning, shared, guidance_scale, num_inference_steps), first_steps))
    elif first_steps == 1:
        steps = [at_start(denoiser, conditioning, shared, shared.told[0], shared.uncond)]
    else:
        raise ScannerError(
            f"first_steps {first_steps} with timesteps {', '.join(map(str, shared.told))}: only the sampler's first "
            f"timestep, {own}, has steps after it: name it first, or ask for one step"
        )
    low = steps[0] if shared.told else None
    if shared.low_uncond is not None:
        low = at_start(denoiser, conditioning, shared, shared.told[-1], shared.low_uncond)
    timesteps = [step.timestep for step in steps]
    return Trace(
        timesteps=tuple(timesteps),
        signal_rate=schedule.signal_rate[timesteps],
        noise_rate=schedule.noise_rate[timesteps],
        x_t=np.stack([step.x_t for step in steps]),
        cond=combined([step.cond for step in steps], np.stack),
        uncond=combined([step.uncond for step in steps], np.stack),
        guidance_scale=guidance_scale,
        latent_std=denoiser.latent_std,
        in_eps=schedule.in_eps(timesteps[0]),
        prior=shared.prior,
        reference=shared.reference,
        sampled=sampled,
        low=low,
    )


def at_start(denoiser: Denoises, conditioning: Sized, shared: Start, timestep: int, uncond: Prediction) -> Step:
    """x_T and what a network predicts there when it is told a timestep; `uncond`: for the empty prompt, as before."""
    shape = (len(conditioning), *shared.x_T.shape)
    x_T = np.broadcast_to(shared.x_T, shape)
    without = Prediction(*(np.broadcast_to(array, shape) for array in uncond))
    return Step(timestep, x_T, denoiser.predict(x_T, timestep, conditioning), without)


def _of_seeds(step: Step, seeds: int) -> Step:
    kept = np.s_[:, :seeds]
    return Step(step.timestep, step.x_t[kept], step.cond.at(kept), step.uncond.at(kept))
