import numpy as np
import pytest
from diffusers import DDIMScheduler
from ideal import SD

from scanner.diffusion.schedule import PREDICTION_TYPES, Schedule
from scanner.errors import ScannerError


def diffusers_scheduler(prediction_type="epsilon", **changes):
    config = {name: SD[name] for name in ("beta_start", "beta_end", "timestep_spacing", "steps_offset")}
    return DDIMScheduler(
        **config | changes, beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=False,
        prediction_type=prediction_type,
    )  # fmt: skip


def test_rates_are_those_of_stable_diffusion():
    schedule = Schedule.from_manifest(SD, "epsilon")
    abar = schedule.signal_rate**2
    np.testing.assert_allclose(abar[[999, 981, 961, 941]], [0.004660, 0.005776, 0.007282, 0.009117], rtol=2e-4)
    # diffusers accumulates the product in float32
    np.testing.assert_allclose(abar, diffusers_scheduler().alphas_cumprod.numpy(), rtol=1e-4)


@pytest.mark.parametrize("n", [1, 20, 50, 1000])
@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
def test_timesteps_equal_diffusers(spacing, n):
    offset = 0 if n == 1000 else 1
    schedule = Schedule.from_manifest(SD | {"timestep_spacing": spacing, "steps_offset": offset}, "epsilon")
    scheduler = diffusers_scheduler(timestep_spacing=spacing, steps_offset=offset)
    scheduler.set_timesteps(n)
    assert schedule.timesteps(n) == scheduler.timesteps.tolist()


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_steps_equal_diffusers_ddim(prediction_type):
    import torch

    rng = np.random.default_rng(0)
    schedule, scheduler = Schedule.from_manifest(SD, prediction_type), diffusers_scheduler(prediction_type)
    scheduler.set_timesteps(50)
    timesteps = schedule.timesteps(50)
    for index in (0, 1, 25, 49):
        x_t, output = rng.standard_normal((2, 3, 4, 8, 8), np.float32)
        following = timesteps[index + 1] if index < 49 else None
        ours = schedule.step(schedule.read(x_t, output, timesteps[index]), following)
        theirs = scheduler.step(torch.from_numpy(output), timesteps[index], torch.from_numpy(x_t)).prev_sample
        np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
def test_round_trips_from_x0_and_eps(prediction_type):
    signal_rate = np.array([0.9, 0.3])
    noise_rate = 1 - signal_rate if prediction_type == "flow" else np.sqrt(1 - signal_rate**2)
    schedule = Schedule(signal_rate, noise_rate, 1.0, 0.0, prediction_type)
    x0, eps = np.random.default_rng(1).standard_normal((2, 1, 1, 2, 3, 3), np.float32)
    for timestep in (0, 1):
        a, s = np.float32(signal_rate[timestep]), np.float32(noise_rate[timestep])
        v = a * eps - s * x0
        output = {"epsilon": eps, "v_prediction": v, "flow": eps - x0, "edm": -v}[prediction_type]
        x_t = a * x0 + s * eps
        found = schedule.read(x_t, output, timestep)
        np.testing.assert_allclose(found.eps, eps, atol=1e-5)
        np.testing.assert_allclose(found.x0, x0, atol=1e-5)
        np.testing.assert_allclose(schedule.step(found, None), x0, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "n", "message"),
    [
        ({"curve": "cosine"}, 50, "needed scaled_linear, linear, flow"),
        ({"timestep_spacing": "karras"}, 50, "needed leading, trailing or linspace"),
        ({}, 0, "needed 1 to 1000"),
        ({}, 1000, "first timestep would be 1000 of 1000"),
    ],
)
def test_refuses_what_it_does_not_know(changes, n, message):
    with pytest.raises(ScannerError, match=message):
        Schedule.from_manifest(SD | changes, "epsilon").timesteps(n)
