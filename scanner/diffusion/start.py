"""What all prompts of a scan share: the starting noise, the empty prompt's predictions, and baselines.

Shape letters, here and everywhere: **B** prompts, **S** seeds, **K** scanned steps, **C H W** latent, **L** tokens,
**D** embedding.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from scanner.config import PRIOR_NOISES
from scanner.diffusion.baselines import Prior, Reference
from scanner.diffusion.prediction import Array, Prediction
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


Watch = Callable[[str, int, int], None]  # hears of work: what, done, of how many (0: not known); may raise


def unwatched(what: str, done: int, total: int) -> None:
    """A Watch that nobody needs."""


REMEDY = "export it in float32; if it is, its weights are damaged: take another copy"
PRIOR_SEEDS = range(1_000_000, 1_000_000 + PRIOR_NOISES)  # no scan's seeds


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


@dataclass(frozen=True)
class Start:
    """What all prompts share: x_T [S, C, H, W], the unconditional prediction there, of its shape, and baselines.

    `told`: one or two timesteps of the network beside x_T, the noisier first, in place of the sampler's own first;
    `low_uncond`: the unconditional prediction at the second; `base_uncond`: the base model's at the first.
    """

    x_T: Array
    uncond: Prediction
    prior: Prior | None = None
    reference: Reference | None = None
    told: tuple[int, ...] = ()
    low_uncond: Prediction | None = None
    base_uncond: Prediction | None = None


def start(denoiser: Denoises, seeds: Sequence[int], num_inference_steps: int, told: Sequence[int] = ()) -> Start:
    """Draw x_T, scaled as the sampler scales it, and run the empty prompt on it: once per scan.

    `told`: the timesteps that the network is told beside x_T; none: the sampler's first. Raises ScannerError for one
    that the schedule does not have.
    """
    schedule = denoiser.schedule
    x_T = initial_noise(seeds, denoiser.latent_shape) * np.float32(schedule.initial_noise_scale(num_inference_steps))
    high, *low = [schedule.trained(timestep) for timestep in told] or schedule.timesteps(num_inference_steps)[:1]
    uncond = denoiser.predict(x_T[None], high, denoiser.null).at(0)
    low_uncond = denoiser.predict(x_T[None], low[-1], denoiser.null).at(0) if low else None
    return Start(x_T, uncond, told=tuple(told), low_uncond=low_uncond)


def predict_prior(
    denoiser: Denoises,
    num_inference_steps: int,
    watch: Watch = unwatched,
    told: Sequence[int] = (),
    seeds: Sequence[int] = PRIOR_SEEDS,
) -> Prior:
    """The first step's clean estimates for the empty prompt from so many noises: one UNet pass each.

    `told`: as of `start`.

    Raises ScannerError where one overflows.
    """
    parts = []
    for i in range(0, len(seeds), denoiser.batch_size):
        watch("prior", i, len(seeds))
        drawn = start(denoiser, seeds[i : i + denoiser.batch_size], num_inference_steps, told[:1])
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
    timestep = first_timestep(denoiser, shared, num_inference_steps)
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


def predict_base(
    base: Denoises, seeds: Sequence[int], num_inference_steps: int, told: Sequence[int] = ()
) -> Prediction:
    """What a base model predicts for the empty prompt where all prompts start: float32 [S, C, H, W] each.

    `told`: as of `start`. Raises ScannerError where it overflows.
    """
    uncond = start(base, seeds, num_inference_steps, told[:1]).uncond
    if not np.isfinite(uncond.x0).all():
        raise ScannerError(f"the base model's predictions for the empty prompt overflow: {REMEDY}")
    return uncond


def first_timestep(denoiser: Denoises, shared: Start, num_inference_steps: int) -> int:
    """What the network is told beside x_T where the first predictions are made."""
    return shared.told[0] if shared.told else denoiser.schedule.timesteps(num_inference_steps)[0]
