"""The sampler's grid, asked of the diffusers scheduler itself: what it tells the network at each step, and the rates.

The scan takes deterministic first-order steps along the grid, whatever the scheduler does between its points.
"""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
from numpy.typing import NDArray

from engines.interface import EngineError
from engines.parts import read_json
from engines.validate import check_schedule

STEPS = (10, 20, 25, 30, 50, 100)
CURVES = ("scaled_linear", "linear")
NEEDED = ("beta_schedule", "beta_start", "beta_end", "num_train_timesteps")
UNKNOWN = {"use_flow_sigmas": True, "thresholding": True, "timestep_type": "continuous", "invert_sigmas": True}
# where a scheduler keeps the rates of its steps: variance-preserving ones in a table or as sigmas; others' are sigmas
TABLE, SIGMAS, EDM, FLOW = "alphas_cumprod", "sigmas", "edm", "flow"
SCHEDULERS = {
    "DDIMScheduler": TABLE,
    "DDPMScheduler": TABLE,
    "PNDMScheduler": TABLE,
    "LCMScheduler": TABLE,
    "TCDScheduler": TABLE,
    "EulerDiscreteScheduler": SIGMAS,
    "EulerAncestralDiscreteScheduler": SIGMAS,
    "HeunDiscreteScheduler": SIGMAS,
    "LMSDiscreteScheduler": SIGMAS,
    "DPMSolverMultistepScheduler": SIGMAS,
    "DPMSolverSinglestepScheduler": SIGMAS,
    "UniPCMultistepScheduler": SIGMAS,
    "DEISMultistepScheduler": SIGMAS,
    "EDMEulerScheduler": EDM,
    "EDMDPMSolverMultistepScheduler": EDM,
    "FlowMatchEulerDiscreteScheduler": FLOW,
}
KINDS = {  # of each, what the manifest calls the network's prediction, by the scheduler's own word for it
    TABLE: {"epsilon": "epsilon", "v_prediction": "v_prediction"},
    SIGMAS: {"epsilon": "epsilon", "v_prediction": "v_prediction"},
    EDM: {"epsilon": "edm", "v_prediction": "v_prediction"},
    FLOW: {"flow": "flow"},
}
REMEDY = "save the pipeline again with the scheduler that it is used with, such as DDIMScheduler"
TRAINED = "write what the model was trained with"
Floats = NDArray[np.float64]


Arrange = Callable[[Any, int], None]  # gives a scheduler its grid of so many steps, as the pipeline does


def arrange(scheduler: Any, steps: int) -> None:
    """As most pipelines do."""
    scheduler.set_timesteps(steps)


def arrange_from_1(scheduler: Any, steps: int) -> None:
    """As Stable Diffusion's pipeline, whose constructor calls every other offset outdated."""
    if getattr(scheduler.config, "steps_offset", 1) != 1:
        scheduler.register_to_config(steps_offset=1)
    scheduler.set_timesteps(steps)


@dataclass(frozen=True)
class Sampling:
    """What a checkpoint's own scheduler makes of it: a manifest's prediction_type, schedule and grids.

    `told`: the type of the timestep that the denoiser is told. `unit`: the standard deviation of the latents that the
    scheduler works on.
    """

    prediction_type: str
    schedule: Mapping[str, Any]
    grids: Mapping[str, Mapping[str, Any]]
    told: str
    unit: float


def read_sampling(
    folder: Path, name: str, kinds: Collection[str], arrange: Arrange = arrange, steps: Sequence[int] = STEPS
) -> Sampling:
    """Of the scheduler of class `name` that the pipeline would use. Raises EngineError.

    `kinds`: those that fit the family. `steps`: of its grids.
    """
    scheduler = read_scheduler(folder, name, kinds, arrange)
    grids = grids_of(scheduler, folder / "scheduler", arrange, steps)
    whole = all(float(timestep).is_integer() for grid in grids.values() for timestep in grid["timesteps"])
    return Sampling(
        KINDS[_kind(scheduler)][_predicts(scheduler)],
        schedule_of(scheduler),
        grids,
        told="int64" if whole and _preserving(scheduler) else "float32",  # as in bundles without grids
        unit=float(scheduler.config.sigma_data) if _kind(scheduler) == EDM else 1.0,
    )


def read_scheduler(
    folder: Path, name: str, kinds: Collection[str] = (TABLE, SIGMAS), arrange: Arrange = arrange
) -> Any:
    """The scheduler that the pipeline would use: class `name`, as scheduler_config.json says, else its own defaults.

    Raises EngineError for one of another kind.
    """
    path = folder / "scheduler" / "scheduler_config.json"
    config = read_json(path)
    known = [other for other, kind in SCHEDULERS.items() if kind in kinds]
    if name not in known:
        raise EngineError(f"{path}: {name}; overscan reads {', '.join(known)}: {REMEDY}")
    if (said := config.get("_class_name", name)) != name:
        raise EngineError(f"{path}: of a {said}, but model_index.json says {name}, which the pipeline takes: {REMEDY}")
    if SCHEDULERS[name] in (TABLE, SIGMAS):
        _check_betas(path, config)
    for flag, value in UNKNOWN.items():
        if config.get(flag) == value:
            raise EngineError(f"{path}: {flag} {value} is not supported: {REMEDY}")
    scheduler = _made(path, name, config, arrange)
    if (found := _predicts(scheduler)) not in KINDS[SCHEDULERS[name]]:
        raise EngineError(
            f"{path}: prediction_type {found!r}; overscan reads models of "
            f"{' or '.join(KINDS[SCHEDULERS[name]])}: {TRAINED}"
        )
    if config.get("rescale_betas_zero_snr") and found == "epsilon":
        raise EngineError(
            f"{path}: zero-terminal-SNR schedule (rescale_betas_zero_snr) of a model that predicts epsilon: at its "
            f"first step that is the noise itself whatever the prompt: {TRAINED}, v_prediction for such a schedule"
        )
    return scheduler


def _check_betas(path: Path, config: Mapping[str, Any]) -> None:
    if missing := [key for key in NEEDED if config.get(key) is None]:
        raise EngineError(f"{path}: no {', '.join(missing)}: {TRAINED}")
    check_schedule(config, path, TRAINED)
    if config.get("trained_betas") is not None or config["beta_schedule"] not in CURVES:
        found = "trained_betas" if config.get("trained_betas") is not None else repr(config["beta_schedule"])
        raise EngineError(f"{path}: beta_schedule {found}; overscan knows {', '.join(CURVES)}: {REMEDY}")


def _kind(scheduler: Any) -> str:
    return SCHEDULERS[type(scheduler).__name__]


def _preserving(scheduler: Any) -> bool:
    return _kind(scheduler) in (TABLE, SIGMAS)


def _predicts(scheduler: Any) -> str:
    """In the scheduler's own word."""
    return FLOW if _kind(scheduler) == FLOW else str(scheduler.config.prediction_type)


def _made(path: Path, name: str, config: Mapping[str, Any], arrange: Arrange) -> Any:
    try:
        scheduler = getattr(diffusers, name).from_config(dict(config))
        arrange(scheduler, STEPS[0])
    except Exception as error:  # whatever a constructor makes of a strange value
        raise EngineError(f"{path}: makes no {name} ({error}): {REMEDY}") from error
    return scheduler


def schedule_of(scheduler: Any) -> dict[str, Any]:
    """The manifest's few numbers, from which its curve follows."""
    config = scheduler.config
    if not _preserving(scheduler):
        return {"curve": "grids", "num_train_timesteps": config.num_train_timesteps}
    return {
        "curve": config.beta_schedule,
        "beta_start": config.beta_start,
        "beta_end": config.beta_end,
        "num_train_timesteps": config.num_train_timesteps,
        "timestep_spacing": config.get("timestep_spacing", "linspace"),
        "steps_offset": config.get("steps_offset", 0),
        "set_alpha_to_one": not _ends_noisy(scheduler),
    }


def _ends_noisy(scheduler: Any) -> bool:
    """Whether its last step ends at the first training timestep's noise, and not at none."""
    if _kind(scheduler) == TABLE:
        return float(getattr(scheduler, "final_alpha_cumprod", 1.0)) != 1.0
    return float(scheduler.sigmas[-1]) != 0.0


def grids_of(
    scheduler: Any, path: Path, arrange: Arrange = arrange, steps: Sequence[int] = STEPS
) -> dict[str, dict[str, Any]]:
    """`Manifest.grids`, for those of `steps` that the scheduler has a grid for. Raises EngineError for none."""
    found = {str(count): grid for count in steps if (grid := _grid(scheduler, count, arrange))}
    if not found:
        asked = ", ".join(map(str, steps))
        raise EngineError(f"{path}: {type(scheduler).__name__} has no grid of {asked} steps: {REMEDY}")
    return found


def _grid(scheduler: Any, steps: int, arrange: Arrange) -> dict[str, Any] | None:
    """One grid; None where the scheduler has none of so many steps."""
    total = scheduler.config.num_train_timesteps
    try:
        if steps > total:
            return None
        arrange(scheduler, steps)
    except ValueError:  # LCM and TCD have no more than they were distilled at
        return None
    told, signal_rate, noise_rate = _points(scheduler)
    scale = float(getattr(scheduler, "init_noise_sigma", 1.0))
    if scale != 1.0:  # in the scheduler's own units, where x = x0 + sigma * eps
        scale *= float(signal_rate[0]) / float(scheduler.config.get("sigma_data", 1.0))
    if _preserving(scheduler) and not (told < total).all():
        return None
    kept = [0]  # a method's further looks at a noise level are no steps of the path
    for i in range(1, len(told)):
        if noise_rate[i] < noise_rate[kept[-1]]:
            kept.append(i)
    return {
        "timesteps": told[kept].tolist(),
        "signal_rate": signal_rate[kept].tolist(),
        "noise_rate": noise_rate[kept].tolist(),
        "initial_noise_scale": 1.0 if math.isclose(scale, 1.0, rel_tol=1e-6) else scale,
    }


def _points(scheduler: Any) -> tuple[Floats, Floats, Floats]:
    """What the network is told (float32), signal_rate and noise_rate, [K], of the scheduler's present grid."""
    if _kind(scheduler) != TABLE:
        told = np.asarray(scheduler.timesteps, np.float32).astype(np.float64)
        sigma = np.asarray(scheduler.sigmas, np.float64)[: len(told)]
        if _kind(scheduler) == FLOW:
            return told, 1 - sigma, sigma
        data = float(scheduler.config.sigma_data) if _kind(scheduler) == EDM else 1.0
        return told, data / np.sqrt(data**2 + sigma**2), sigma / np.sqrt(data**2 + sigma**2)
    # PNDM's own list is the path; its `timesteps` hold the inner points of its Runge-Kutta steps too
    path = getattr(scheduler, "_timesteps", None)
    told = np.asarray(scheduler.timesteps if path is None else path[::-1], np.int64)
    table = np.asarray(scheduler.alphas_cumprod, np.float64)
    alphas_cumprod = table[np.minimum(told, len(table) - 1)]
    return told.astype(np.float64), np.sqrt(alphas_cumprod), np.sqrt(1 - alphas_cumprod)
