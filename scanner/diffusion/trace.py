"""The starting noise, the denoising loop, and the record of its first steps.

Shape letters, here and everywhere: **B** prompts, **S** seeds, **K** scanned steps, **C H W** latent, **L** tokens,
**D** embedding.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from scanner.diffusion.baselines import Prior, Reference
from scanner.diffusion.schedule import Array, x0_from_eps
from scanner.errors import ScannerError

if TYPE_CHECKING:
    from scanner.diffusion.denoiser import Denoiser
    from scanner.diffusion.families import Conditioning


Watch = Callable[[str, int, int], None]  # hears of work before the first prompt: what, done, of how many; may raise


def unwatched(what: str, done: int, total: int) -> None:
    """A Watch that nobody needs."""


REMEDY = "export it in float32; if it is, its weights are damaged: take another copy"
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
    """One denoising step before it is taken: arrays float32 [B, S, C, H, W]."""

    timestep: int
    x_t: Array
    eps_cond: Array
    eps_uncond: Array


@dataclass(frozen=True)
class Start:
    """What all prompts share: x_T [S, C, H, W], the unconditional prediction there, [S, C, H, W], and baselines."""

    x_T: Array
    eps_uncond: Array
    prior: Prior | None = None
    reference: Reference | None = None


def start(denoiser: "Denoiser", seeds: Sequence[int], num_inference_steps: int) -> Start:
    """Draw x_T, scaled as the sampler scales it, and run the empty prompt on it: once per scan."""
    timestep = denoiser.schedule.timesteps(num_inference_steps)[0]
    scale = np.float32(denoiser.schedule.initial_noise_scale(num_inference_steps))
    x_T = initial_noise(seeds, denoiser.latent_shape) * scale
    return Start(x_T, denoiser.eps(x_T[None], timestep, denoiser.null)[0])


def predict_prior(denoiser: "Denoiser", num_inference_steps: int, watch: Watch = unwatched) -> Prior:
    """The first step's clean estimates for the empty prompt from PRIOR_SEEDS: one UNet pass each.

    Raises ScannerError where one overflows.
    """
    timestep = denoiser.schedule.timesteps(num_inference_steps)[0]
    parts = []
    for i in range(0, len(PRIOR_SEEDS), denoiser.batch_size):
        watch("prior", i, len(PRIOR_SEEDS))
        drawn = start(denoiser, PRIOR_SEEDS[i : i + denoiser.batch_size], num_inference_steps)
        parts.append(denoiser.schedule.to_x0(drawn.x_T, drawn.eps_uncond, timestep))
    x0_uncond = np.concatenate(parts)
    if not np.isfinite(x0_uncond).all():
        raise ScannerError(f"the empty prompt's predictions overflow in this model: {REMEDY}")
    return Prior(x0_uncond)


def predict_reference(
    denoiser: "Denoiser",
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
        parts.append(denoiser.eps(x_T, timestep, conditioning))
    eps_cond = np.concatenate(parts)
    if bad := int((~np.isfinite(eps_cond).all((1, 2, 3, 4))).sum()):
        raise ScannerError(f"{bad} of {len(captions)} reference captions overflow in this model: {REMEDY}")
    return Reference(eps_cond)


def guided(eps_cond: Array, eps_uncond: Array, guidance_scale: float) -> Array:
    """Classifier-free guidance, eps_uncond + g * (eps_cond - eps_uncond); g = 1 is none (Ho and Salimans, 2022)."""
    return eps_uncond + np.float32(guidance_scale) * (eps_cond - eps_uncond)


def denoise(
    denoiser: "Denoiser", conditioning: "Conditioning", shared: Start, guidance_scale: float, num_inference_steps: int
) -> Iterator[Step]:
    """The denoising loop: yields each step before taking it; after the last, the clean latent as `x_t` at timestep -1.

    A step costs two UNet passes per prompt and seed, the first one only one.
    """
    schedule = denoiser.schedule
    timesteps = schedule.timesteps(num_inference_steps)
    shape = (len(conditioning), *shared.x_T.shape)  # [B, S, C, H, W]
    x_t = np.broadcast_to(shared.x_T, shape)
    eps_uncond = np.broadcast_to(shared.eps_uncond, shape)
    for step, timestep in enumerate(timesteps):
        if step > 0:
            eps_uncond = denoiser.eps(x_t, timestep, denoiser.null)
        eps_cond = denoiser.eps(x_t, timestep, conditioning)
        yield Step(timestep, x_t, eps_cond, eps_uncond)
        following = timesteps[step + 1] if step + 1 < len(timesteps) else None
        x_t = schedule.step(x_t, guided(eps_cond, eps_uncond, guidance_scale), timestep, following)
    yield Step(-1, x_t, eps_cond, eps_uncond)


@dataclass(frozen=True)
class Trace:
    """The first K steps of denoising: all that a score may see.

    `signal_rate`, `noise_rate`: float64 [K]; `x_t, eps_cond, eps_uncond`: float32 [K, B, S, C, H, W].
    """

    timesteps: tuple[int, ...]
    signal_rate: NDArray[np.float64]
    noise_rate: NDArray[np.float64]
    x_t: Array
    eps_cond: Array
    eps_uncond: Array
    guidance_scale: float
    latent_std: float
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
            eps_cond=self.eps_cond[kept],
            eps_uncond=self.eps_uncond[kept],
            reference=None if self.reference is None else self.reference.part(seeds),
        )

    @cached_property
    def text_noise(self) -> Array:
        """De = eps_cond - eps_uncond, what the prompt changes."""
        return self.eps_cond - self.eps_uncond

    @property
    def eps_hat(self) -> Array:
        """Guided noise."""
        return guided(self.eps_cond, self.eps_uncond, self.guidance_scale)

    @cached_property
    def x0_cond(self) -> Array:
        """Clean estimate for the prompt, (x_t - noise_rate * eps_cond) / signal_rate."""
        return self._x0(self.eps_cond)

    @cached_property
    def x0_uncond(self) -> Array:
        """Clean estimate for the empty prompt."""
        return self._x0(self.eps_uncond)

    @property
    def x0_hat(self) -> Array:
        """Clean estimate with guidance."""
        return self._x0(self.eps_hat)

    def _x0(self, eps: Array) -> Array:
        a, s = (rate.reshape(-1, 1, 1, 1, 1, 1) for rate in (self.signal_rate, self.noise_rate))
        return x0_from_eps(self.x_t, eps, a, s)


def trace(
    denoiser: "Denoiser",
    conditioning: "Conditioning",
    shared: Start,
    guidance_scale: float,
    num_inference_steps: int,
    first_steps: int,
) -> Trace:
    """The first `first_steps` of the loop, stacked."""
    loop = denoise(denoiser, conditioning, shared, guidance_scale, num_inference_steps)
    steps = list(islice(loop, first_steps))
    timesteps = [step.timestep for step in steps]
    return Trace(
        timesteps=tuple(timesteps),
        signal_rate=denoiser.schedule.signal_rate[timesteps],
        noise_rate=denoiser.schedule.noise_rate[timesteps],
        x_t=np.stack([step.x_t for step in steps]),
        eps_cond=np.stack([step.eps_cond for step in steps]),
        eps_uncond=np.stack([step.eps_uncond for step in steps]),
        guidance_scale=guidance_scale,
        latent_std=denoiser.latent_std,
        prior=shared.prior,
        reference=shared.reference,
    )
