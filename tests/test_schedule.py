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


def test_flow_is_a_straight_line_shifted():
    flow = {"curve": "flow", "num_train_timesteps": 4, "shift": 3.0, "set_alpha_to_one": True}
    flow |= {"timestep_spacing": "leading", "steps_offset": 0}
    schedule = Schedule.from_manifest(flow, "flow")
    sigma = [3 * t / (1 + 2 * t) for t in (0.25, 0.5, 0.75, 1.0)]
    np.testing.assert_allclose(schedule.noise_rate, sigma)
    np.testing.assert_allclose(schedule.signal_rate, 1 - np.array(sigma))
    assert (schedule.final_signal_rate, schedule.final_noise_rate) == (1.0, 0.0)


def test_the_end_of_sampling_is_clean_or_the_first_timestep():
    clean = Schedule.from_manifest(SD | {"set_alpha_to_one": True}, "epsilon")
    assert (clean.final_signal_rate, clean.final_noise_rate) == (1.0, 0.0)
    first = Schedule.from_manifest(SD | {"set_alpha_to_one": False}, "epsilon")
    assert (first.final_signal_rate, first.final_noise_rate) == (first.signal_rate[0], first.noise_rate[0])


@pytest.mark.parametrize(
    ("schedule", "prediction_type", "message"),
    [
        (SD, "sample", "prediction_type 'sample': needed epsilon, v_prediction, flow, edm"),
        (SD, "flow", "prediction_type 'flow' with schedule curve 'scaled_linear'"),
        (SD, "edm", "prediction_type 'edm' with schedule curve 'scaled_linear'"),
        (SD | {"curve": "flow", "shift": 1.0}, "epsilon", "prediction_type 'epsilon' with schedule curve 'flow'"),
        ({"curve": "grids"}, "flow", "schedule curve 'grids': needed scaled_linear, linear, flow, or grids"),
        ({name: SD[name] for name in SD if name != "beta_end"}, "epsilon", "the bundle's schedule has no 'beta_end'"),
    ],
)
def test_a_schedule_that_cannot_be_is_refused(schedule, prediction_type, message):
    with pytest.raises(ScannerError, match=message):
        Schedule.from_manifest(schedule, prediction_type)


def points(*entries, scale=1.0):
    """A sampler's own grid of (told, signal_rate, noise_rate)."""
    told, signal, noise = map(list, zip(*entries, strict=True))
    return {"timesteps": told, "signal_rate": signal, "noise_rate": noise, "initial_noise_scale": scale}


def test_grids_of_a_sampler_alone():
    grids = {"2": points((1000, 0.0, 1.0), (480.5, 0.6, 0.4), scale=14.6), "1": points((7, 0.25, 0.75))}
    schedule = Schedule.from_manifest({"curve": "grids"}, "flow", grids)
    assert [schedule.timesteps(n) for n in (2, 1)] == [[0, 1], [2]]
    assert [schedule.told(t) for t in (0, 1, 2)] == [1000, 480.5, 7]
    assert [schedule.initial_noise_scale(n) for n in (2, 1)] == [14.6, 1.0]
    np.testing.assert_allclose(schedule.signal_rate, [0.0, 0.6, 0.25])
    np.testing.assert_allclose(schedule.noise_rate, [1.0, 0.4, 0.75])
    assert (schedule.final_signal_rate, schedule.final_noise_rate) == (1.0, 0.0)
    with pytest.raises(ScannerError, match="num_inference_steps 3: the model's sampler was exported for 1, 2 steps"):
        schedule.timesteps(3)


def test_points_on_the_curve_are_the_curves():
    curve = Schedule.from_manifest(SD, "epsilon")

    def at(timestep, signal=1.0, noise=1.0):
        return timestep, curve.signal_rate[timestep] * signal, curve.noise_rate[timestep] + noise - 1

    near = Schedule.from_manifest(SD, "epsilon", {"2": points(at(981, 1 + 1.9e-5), at(481, 1, 1 - 1.9e-5))})
    assert near.timesteps(2) == [981, 481]
    assert near.told(481) == 481
    for off in (at(481, 1 + 2.2e-5), at(481, 1, 1 + 2.2e-5)):  # one point beside it, and all are the sampler's
        own = Schedule.from_manifest(SD, "epsilon", {"2": points(at(981), off)})
        assert own.timesteps(2) == [1000, 1001]
        assert [own.told(1000), own.told(1001)] == [981, 481]
        np.testing.assert_allclose(own.signal_rate[1001], off[1])
    between = Schedule.from_manifest(SD, "epsilon", {"3": points(at(981), (480.5, 0.5, 0.8), at(1))})
    assert between.timesteps(3) == [981, 1000, 1]
    assert (between.told(999), between.told(1000)) == (999, 480.5)
    beyond = Schedule.from_manifest(SD, "epsilon", {"1": points((1000, *at(999)[1:]))})
    assert beyond.told(beyond.timesteps(1)[0]) == 1000
    assert curve.initial_noise_scale(50) == 1.0


def test_where_no_signal_is_left_eps_says_nothing():
    faint = np.array([0.9, 0.011, 0.01, 0.0])
    schedule = Schedule(faint, np.sqrt(1 - faint**2), 1.0, 0.0, "v_prediction", "trailing")
    assert [schedule.in_eps(t) for t in range(4)] == [True, True, False, False]
    assert not Schedule(faint, 1 - faint, 1.0, 0.0, "flow").in_eps(0)
    assert schedule.timesteps(1) == [3]
    with pytest.raises(ScannerError, match="the first timestep, 3, has no signal: there eps is the noise itself"):
        Schedule(faint, np.sqrt(1 - faint**2), 1.0, 0.0, "epsilon", "trailing").timesteps(1)
    assert Schedule(faint + 0.1, faint, 1.0, 0.0, "epsilon", "trailing").timesteps(1) == [3]


def test_leading_steps_are_whole():
    schedule = Schedule.from_manifest(SD | {"steps_offset": 1}, "epsilon")
    assert schedule.timesteps(3) == [667, 334, 1]
    assert Schedule(np.ones(10), np.ones(10), 1.0, 0.0, "epsilon").timesteps(3) == [7, 4, 1]


def test_a_network_that_predicts_eps_is_read_so_however_faint_the_signal():
    """PixArt's first step: signal rate 0.006."""
    linear = SD | {"curve": "linear", "beta_start": 0.0001, "beta_end": 0.02, "set_alpha_to_one": True}
    schedule = Schedule.from_manifest(linear, "epsilon")
    x_t, output = np.random.default_rng(0).standard_normal((2, 1, 1, 4, 3, 3), np.float32)
    a, s = schedule.signal_rate[999], schedule.noise_rate[999]
    assert 0.006 < a < 0.007
    found = schedule.read(x_t, output, 999)
    np.testing.assert_array_equal(found.eps, output)
    np.testing.assert_allclose(found.x0, (x_t - s * output) / a, rtol=1e-4)
    assert not Schedule.from_manifest(linear, "v_prediction").in_eps(999)
