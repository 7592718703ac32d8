"""What is usual for a kind and size of model, where a scan does not say: what its network is told, and its prior."""

import numpy as np

from engines import Manifest
from scanner.config import PRIOR_NOISES
from scanner.diffusion.schedule import FAINT, ON_GRIDS, Schedule
from scanner.diffusion.scores import LOW_NOISE

FEW_NOISES, LARGE = 16, 32 * 32  # of a prior, for latents of such an area and more: docs/scores.md has the table
AREA_SNR = 100.0  # chosen on the four models of docs/ground-truth.md: docs/detecting.md has the table


def usual_timesteps(manifest: Manifest) -> tuple[int, ...]:
    """The timestep at which the signal-to-noise ratio times the latent's area, H*W, is nearest AREA_SNR.

    That is of models of noise or velocity on Stable Diffusion's schedule, but for where it were noisier than LOW_NOISE,
    and of flow models that are told sigma; of others it is the sampler's first.

    At the first timestep such a network has little to do but to copy its input, and what it knows by heart shows least;
    a flow model's starts without any signal. A picture of twice the side shows as much at a quarter of the ratio, as
    noise averages out over four times as many elements (arXiv 2301.11093 and 2403.03206 shift training by it).
    """
    kind, curve = manifest.prediction_type, manifest.schedule.get("curve")
    starts = [grid["signal_rate"][0] for grid in (manifest.grids or {}).values()]
    flow = kind == "flow" and curve == ON_GRIDS
    diffusion = kind in ("epsilon", "v_prediction") and curve == "scaled_linear" and min(starts, default=1.0) >= FAINT
    if not (flow or diffusion) or manifest.schedule.get("num_train_timesteps", 1000) != 1000:
        return ()
    schedule = Schedule.from_manifest(manifest.schedule, kind, manifest.grids if flow else None)
    trained = slice(1, len(schedule.signal_rate) - len(schedule.told_between))
    snr = (schedule.signal_rate[trained] / schedule.noise_rate[trained]) ** 2
    if not len(snr):  # a flow model that is told something else
        return ()
    told = 1 + int(np.abs(np.log(snr * np.prod(manifest.latent_shape[1:]) / AREA_SNR)).argmin())
    return (told,) if flow or told <= LOW_NOISE else ()


def usual_noises(manifest: Manifest, told: tuple[int, ...]) -> int:
    """How many noises a prior is made of, a UNet pass each.

    Fewer for large latents, whose passes are dear, where the network is told what is usual: there 16 found what 64 did
    on six small models, and at the sampler's first timestep did not (docs/scores.md).
    """
    large = np.prod(manifest.latent_shape[1:]) >= LARGE
    return FEW_NOISES if large and told and told[:1] == usual_timesteps(manifest) else PRIOR_NOISES
