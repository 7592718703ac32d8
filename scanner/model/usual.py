"""What a network is told beside the starting noise where a scan names no timesteps, by kind of model."""

from engines import Manifest

EPSILON = (701,)  # chosen on the models of docs/ground-truth.md: docs/detecting.md has the table


def usual_timesteps(manifest: Manifest) -> tuple[int, ...]:
    """Of models that predict noise on Stable Diffusion's schedule a less noisy timestep; of others the sampler's first.

    At the first timestep such a network has little to do but to copy its input, and what it knows by heart shows least.
    """
    known = manifest.prediction_type == "epsilon" and manifest.schedule.get("curve") == "scaled_linear"
    return EPSILON if known and manifest.schedule.get("num_train_timesteps", 1000) == 1000 else ()
