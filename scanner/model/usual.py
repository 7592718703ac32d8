"""What a network is told beside the starting noise where a scan names no timesteps, by kind and size of model."""

import numpy as np

from engines import Manifest
from scanner.diffusion.schedule import FAINT, Schedule
from scanner.diffusion.scores import LOW_NOISE

AREA_SNR = 100.0  # chosen on the four models of docs/ground-truth.md: docs/detecting.md has the table


def usual_timesteps(manifest: Manifest) -> tuple[int, ...]:
    """Of models of noise or velocity on Stable Diffusion's schedule the timestep at which the signal-to-noise ratio,
    abar/(1 - abar), times the latent's area, H*W, is nearest AREA_SNR; of others, and where that were noisier than
    LOW_NOISE, the sampler's first.

    At the first timestep such a network has little to do but to copy its input, and what it knows by heart shows least.
    A picture of twice the side shows as much at a quarter of the ratio, as noise averages out over four times as many
    elements (arXiv 2301.11093 and 2403.03206 shift training by it).
    """
    known = (
        manifest.prediction_type in ("epsilon", "v_prediction") and manifest.schedule.get("curve") == "scaled_linear"
    )
    starts = [grid["signal_rate"][0] for grid in (manifest.grids or {}).values()]
    if not known or manifest.schedule.get("num_train_timesteps", 1000) != 1000 or min(starts, default=1.0) < FAINT:
        return ()
    curve = Schedule.from_manifest(manifest.schedule, manifest.prediction_type)
    snr = (curve.signal_rate / curve.noise_rate) ** 2
    told = int(np.abs(np.log(snr * np.prod(manifest.latent_shape[1:]) / AREA_SNR)).argmin())
    return (told,) if told <= LOW_NOISE else ()
