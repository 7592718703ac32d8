"""The starting noise, the denoising loop, and the record of its first steps.

Shape letters, here and everywhere: **B** prompts, **S** seeds, **K** scanned steps, **C H W** latent, **L** tokens,
**D** embedding.
"""

from collections.abc import Callable, Iterator, Sequence, Sized
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from scanner.diffusion.baselines import Prior, Reference
from scanner.diffusion.prediction import Array, Prediction, combined, guided
from scanner.diffusion.schedule import Schedule
from scanner.errors import ScannerError


class Denoises(Protocol):
    """What the loop needs of a denoiser; `conditioning` is whatever its `encode` gives, with a length."""

    batch_size: int

    @property
    def latent_shape(self) -> tuple[int, int, int]: ...

    @property
    def latent_std(self) -> float: ...

    @property
    def schedule(self) -> Schedule: ...

    @property
    def null(self) -> Any: ...

    def encode(self, prompts: Sequence[str]) -> Any: ...

    def predict(self, x_t: Array, timestep: int, conditioning: Any) -> Prediction: ...


Watch = Callable[[str, int, int], None]  # hears of work before the first prompt: what, done, of how many; may raise


def unwatched(what: str, done: int, total: int) -> None:
    """A Watch that nobody needs."""


REMEDY = "export it in float32; if it is, its weights are damaged: take another copy"
WIDE = np.s_[:, None, None, None, None, None]  # [K] beside [K, B, S, C, H, W]
PRIOR_SEEDS = range(1_000_000, 1_000_064)  # no scan's seeds; 16 rank nearly as well, 256 no better


def initial_noise(seeds: Sequence[int], latent_shape: tuple[int, int, int]) -> Array:
    """x_T: float32 [S, C, H, W], standard normal; a function of each seed and the shape alone.

    Reproducible with numpy only: `numpy.random.Generator(numpy.random.PCG64(seed)).standard_normal((C, H, W),
    numpy.float32)` for each seed, in C order. Every prompt starts from the same noise, so scores do not depend on row
    order, batch or chunk, and the unconditional prediction of the first step is computed once per seed.

    >>> initial_noise(seeds=(0, 1), latent_shape=(4, 64, 64)).shape
    (2, 4, 64, 64)
    """
    draws = [np.random.Generator(np.random.PCG64(seed)).standard_normal(latent_shape, np.float32) for seed in seeds]
    return np.stack(draws)


class Step(NamedTuple):
    """One denoising step before it is taken: `x_t` and both predictions there, arrays float32 [B, S, C, H, W]."""

    timestep: int
    x_t: Array
    cond: Prediction
    uncond: Prediction


@dataclass(frozen=True)
class Start:
    """What all prompts share: x_T [S, C, H, W], the unconditional prediction there, of its shape, and baselines."""

    x_T: Array
    uncond: Prediction
    prior: Prior | None = None
    reference: Reference | None = None


def start(denoiser: Denoises, seeds: Sequence[int], num_inference_steps: int) -> Start:
    """Draw x_T, scaled as the sampler scales it, and run the empty prompt on it: once per scan."""
    timestep = denoiser.schedule.timesteps(num_inference_steps)[0]
    scale = np.float32(denoiser.schedule.initial_noise_scale(num_inference_steps))
    x_T = initial_noise(seeds, denoiser.latent_shape) * scale
    return Start(x_T, denoiser.predict(x_T[None], timestep, denoiser.null).at(0))


def predict_prior(denoiser: Denoises, num_inference_steps: int, watch: Watch = unwatched) -> Prior:
    """The first step's clean estimates for the empty prompt from PRIOR_SEEDS: one UNet pass each.

    Raises ScannerError where one overflows.
    """
    parts = []
    for i in range(0, len(PRIOR_SEEDS), denoiser.batch_size):
        watch("prior", i, len(PRIOR_SEEDS))
        drawn = start(denoiser, PRIOR_SEEDS[i : i + denoiser.batch_size], num_inference_steps)
        parts.append(drawn.uncond.x0)
    x0_uncond = np.concatenate(parts)
    if not np.isfinite(x0_uncond).all():
        raise ScannerError(f"the empty prompt's predictions overflow in this model: {REMEDY}")
    return Prior(x0_uncond)


def predict_reference(
    denoiser: Denoises,
    captions: Sequence[str],
    shared: Start,
    num_inference_steps: int,
    watch: Watch = unwatched,
) -> Reference:
    """The first step's predictions for ordinary captions: one UNet pass per caption and seed.

    Raises ScannerError where one overflows.
    """
    timestep = denoiser.schedule.timesteps(num_inference_steps)[0]
    parts = []
    chunk = max(1, denoiser.batch_size // len(shared.x_T))
    for i in range(0, len(captions), chunk):
        watch("reference", i, len(captions))
        conditioning = denoiser.encode(captions[i : i + chunk])
        x_T = np.broadcast_to(shared.x_T, (len(conditioning), *shared.x_T.shape))
        predicted = denoiser.predict(x_T, timestep, conditioning)
        parts.append(predicted.eps if denoiser.schedule.in_eps(timestep) else predicted.x0)
    cond = np.concatenate(parts)
    if bad := int((~np.isfinite(cond).all((1, 2, 3, 4))).sum()):
        raise ScannerError(f"{bad} of {len(captions)} reference captions overflow in this model: {REMEDY}")
    return Reference(cond)


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
    estimates are, since the path starts where eps says nothing.
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
        )

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
    """The first `first_steps` of the loop, stacked."""
    schedule = denoiser.schedule
    loop = denoise(denoiser, conditioning, shared, guidance_scale, num_inference_steps)
    steps = list(islice(loop, first_steps))
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
    )
