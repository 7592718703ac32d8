"""What a base model must have in common with the model that is compared with it."""

import numpy as np

from engines import Bundle
from scanner.config import ScanConfig
from scanner.diffusion.schedule import ROUNDING, Schedule
from scanner.errors import ModelError, ScannerError


def check(bundle: Bundle, base: Bundle, config: ScanConfig) -> None:
    """Refuse a base whose first predictions do not compare with the model's: of other latents, or made elsewhere.

    Both must be of one family, with latents of one shape, and be told the same timestep beside the same noise. Whether
    the latents are of one VAE, manifests do not say. Raises ModelError, and ScannerError for a timestep that the base
    does not have.
    """
    ours, theirs = bundle.manifest, base.manifest
    kinds = [f"{manifest.family} with latents of {_shape(manifest.latent_shape)}" for manifest in (theirs, ours)]
    if kinds[0] != kinds[1]:
        raise ModelError(
            f"base model {base.folder}: {kinds[0]}, the model is {kinds[1]}: name the one that it was made from, or an "
            "earlier checkpoint of it"
        )
    needed = _first(bundle, config)
    try:
        found = _first(base, config)
    except ScannerError as error:
        raise type(error)(f"base model {base.folder}: {error}") from error
    if not np.allclose(found, needed, rtol=ROUNDING, atol=ROUNDING):
        raise ModelError(
            f"base model {base.folder}: its first step is at {_words(found)}, the model's at {_words(needed)}: "
            "predictions there do not compare; export both with one schedule and sampler, or name --timesteps at which "
            "they agree"
        )


def _first(bundle: Bundle, config: ScanConfig) -> tuple[float, ...]:
    """Of the first prediction: what the network is told, signal and noise rate, and the scale of x_T."""
    manifest, steps = bundle.manifest, config.num_inference_steps
    schedule = Schedule.from_manifest(manifest.schedule, manifest.prediction_type, manifest.grids)
    at = schedule.trained(config.told[0]) if config.told else schedule.timesteps(steps)[0]
    rates = float(schedule.signal_rate[at]), float(schedule.noise_rate[at])
    return float(schedule.told(at)), *rates, schedule.initial_noise_scale(steps)


def _words(first: tuple[float, ...]) -> str:
    timestep, signal, noise, scale = first
    return (
        f"timestep {timestep:g} (signal rate {signal:.4g}, noise rate {noise:.4g}, first latent of scale {scale:.4g})"
    )


def _shape(latent: tuple[int, int, int]) -> str:
    return " x ".join(map(str, latent))
