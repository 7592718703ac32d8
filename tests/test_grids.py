"""The sampler's grid is diffusers' own, and where the formulas were right no number moved."""

import json
from dataclasses import replace

import diffusers
import numpy as np
import pytest
import tiny as making
from signed import signed
from small import BUNDLE, CHECKPOINTS
from tiny import SCHEDULE, copied, edited

from engines import EngineError, Manifest, open_bundle
from engines.bundle import read_manifest
from engines.export import export
from engines.grids import (
    SCHEDULERS,
    SIGMAS,
    STEPS,
    TABLE,
    arrange,
    arrange_from_1,
    grids_of,
    read_scheduler,
    schedule_of,
)
from engines.torch_ref import open_checkpoint
from scanner.diffusion.denoiser import Denoiser
from scanner.diffusion.schedule import Schedule
from scanner.diffusion.start import start
from scanner.errors import ModelError, ScannerError

SPACINGS = ("leading", "trailing", "linspace")


def read(folder, name, arrange=arrange, **changes):
    """A scheduler's grids as a checkpoint gives them, and our schedule of them."""
    (folder / "scheduler").mkdir(exist_ok=True)
    config = {key: value for key, value in (SCHEDULE | changes).items() if value is not ...}
    (folder / "scheduler/scheduler_config.json").write_text(json.dumps(config | {"_class_name": name}))
    scheduler = read_scheduler(folder, name, arrange=arrange)
    grids = grids_of(scheduler, folder, arrange)
    return grids, Schedule.from_manifest(schedule_of(scheduler), scheduler.config.prediction_type, grids)


def diffusers_own(name, steps, **changes):
    scheduler = getattr(diffusers, name).from_config(SCHEDULE | changes)
    scheduler.set_timesteps(steps)
    return scheduler


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("name", [name for name, kind in SCHEDULERS.items() if kind in (TABLE, SIGMAS)])
def test_every_scheduler_tells_the_network_what_diffusers_tells_it(tmp_path, name, spacing):
    grids, schedule = read(tmp_path, name, timestep_spacing=spacing)
    limited = name in ("LCMScheduler", "TCDScheduler")  # to the 50 steps that they were distilled at
    assert list(grids) == [str(steps) for steps in STEPS if not (limited and steps > 50)]
    for steps in map(int, grids):
        scheduler = diffusers_own(name, steps, timestep_spacing=spacing, skip_prk_steps=True)
        told = list(dict.fromkeys(scheduler.timesteps.tolist()))  # Heun and PNDM look at a level twice
        assert [schedule.told(timestep) for timestep in schedule.timesteps(steps)] == told
        abar = scheduler.alphas_cumprod.double().numpy()
        if all(float(timestep).is_integer() for timestep in told):
            found = schedule.signal_rate[schedule.timesteps(steps)]
            np.testing.assert_allclose(found, np.sqrt(abar[np.array(told, int)]), rtol=1e-4)
        sigma = getattr(scheduler, "sigmas", None)
        if sigma is not None:
            first = schedule.timesteps(steps)[0]
            ratio = schedule.noise_rate[first] / schedule.signal_rate[first]
            np.testing.assert_allclose(ratio, float(sigma[0]), rtol=2e-4)


def test_first_timesteps_are_the_ones_that_were_wrong(tmp_path):
    firsts = {
        name: read(tmp_path, name)[1].timesteps(50)[0]
        for name in ("DDIMScheduler", "DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler", "LCMScheduler",
                     "TCDScheduler", "UniPCMultistepScheduler")
    }  # fmt: skip
    assert firsts == {
        "DDIMScheduler": 981, "DPMSolverMultistepScheduler": 951, "DPMSolverSinglestepScheduler": 999,
        "LCMScheduler": 999, "TCDScheduler": 999, "UniPCMultistepScheduler": 951,
    }  # fmt: skip


@pytest.mark.parametrize("name", ["EulerDiscreteScheduler", "DPMSolverMultistepScheduler"])
def test_karras_sigmas_have_rates_of_their_own(tmp_path, name):
    _, schedule = read(tmp_path, name, use_karras_sigmas=True, timestep_spacing="linspace")
    scheduler = diffusers_own(name, 30, use_karras_sigmas=True, timestep_spacing="linspace")
    steps = schedule.timesteps(30)
    assert [schedule.told(timestep) for timestep in steps] == scheduler.timesteps.tolist()
    ratio = schedule.noise_rate[steps] / schedule.signal_rate[steps]
    np.testing.assert_allclose(ratio, scheduler.sigmas[:-1].numpy(), rtol=2e-4)
    np.testing.assert_allclose(schedule.noise_rate[steps] ** 2 + schedule.signal_rate[steps] ** 2, 1, rtol=1e-12)


@pytest.mark.parametrize("name", ["DDIMScheduler", "PNDMScheduler"])
@pytest.mark.parametrize("skip_prk_steps", [True, False])
def test_where_the_formulas_were_right_no_number_moves(tmp_path, name, skip_prk_steps):
    _, schedule = read(tmp_path, name, set_alpha_to_one=False, skip_prk_steps=skip_prk_steps)
    formulas = Schedule.from_manifest(SCHEDULE | {"curve": "scaled_linear", "set_alpha_to_one": False}, "epsilon")
    for steps in STEPS:
        assert schedule.timesteps(steps) == formulas.timesteps(steps)
        assert schedule.initial_noise_scale(steps) == 1.0
    np.testing.assert_array_equal(schedule.signal_rate, formulas.signal_rate)
    np.testing.assert_array_equal(schedule.noise_rate, formulas.noise_rate)
    assert (schedule.final_signal_rate, schedule.told_between) == (formulas.final_signal_rate, ())


@pytest.mark.parametrize("checkpoint", CHECKPOINTS)
def test_the_small_models_scores_rest_on_the_same_numbers(checkpoint):
    made, old = open_checkpoint(CHECKPOINTS[checkpoint]).manifest, read_manifest(BUNDLE)
    assert made.schedule == old.schedule
    assert (old.grids, made.components["unet"].inputs) == (None, old.components["unet"].inputs)
    assert {name: len(grid["timesteps"]) for name, grid in made.grids.items()} == {str(n): n for n in STEPS}
    with_grids, without = (
        Schedule.from_manifest(made.schedule, made.prediction_type, grids) for grids in (made.grids, None)
    )
    for steps in STEPS:
        assert with_grids.timesteps(steps) == without.timesteps(steps)
    np.testing.assert_array_equal(with_grids.signal_rate, without.signal_rate)
    np.testing.assert_array_equal(with_grids.noise_rate, without.noise_rate)


def test_bundles_without_grids_keep_their_fingerprint_and_formulas():
    old = read_manifest(BUNDLE)
    assert old.fingerprint == "2b44c1489108cc49a133b69565af9bb4"
    assert "grids" not in json.loads((BUNDLE / "engine.json").read_text())
    assert Denoiser(open_bundle(BUNDLE, "cpu")).schedule.timesteps(7)[0] == 853


def test_another_number_of_steps_is_refused_by_name(tmp_path):
    _, schedule = read(tmp_path, "DDIMScheduler")
    with pytest.raises(
        ScannerError, match=r"num_inference_steps 40: .* exported for 10, 20, 25, 30, 50, 100 steps: use"
    ):
        schedule.timesteps(40)


def test_a_grid_that_starts_without_signal_is_refused_with_its_reason(tmp_path):
    grids, _ = read(tmp_path, "DDIMScheduler", timestep_spacing="trailing")
    grids["50"]["signal_rate"][0], grids["50"]["noise_rate"][0] = 0.0, 1.0
    schedule = Schedule.from_manifest(SCHEDULE | {"curve": "linear", "set_alpha_to_one": True}, "epsilon", grids)
    with pytest.raises(ModelError, match="has no signal: there eps is the noise itself"):
        schedule.timesteps(50)


def test_the_pipeline_takes_an_outdated_offset_for_1(tiny, tmp_path):
    folder = copied(tiny, tmp_path)
    edited(folder, "scheduler/scheduler_config.json", steps_offset=0)
    own = diffusers.StableDiffusionPipeline.from_pretrained(folder, local_files_only=True).scheduler
    own.set_timesteps(50)
    made = open_checkpoint(folder).manifest
    assert made.grids["50"]["timesteps"] == own.timesteps.tolist()
    assert made.schedule["steps_offset"] == 1


@pytest.mark.parametrize("name", ["DDIMScheduler", "EulerDiscreteScheduler", "DPMSolverMultistepScheduler"])
def test_what_a_configuration_does_not_say_is_the_schedulers_default(tmp_path, name):
    bare = dict.fromkeys(("timestep_spacing", "steps_offset", "set_alpha_to_one"), ...)
    _, schedule = read(tmp_path, name, arrange_from_1, **bare)
    config = {key: value for key, value in SCHEDULE.items() if key not in bare}
    scheduler = getattr(diffusers, name).from_config(config)
    scheduler.register_to_config(steps_offset=1)  # as the pipeline does
    scheduler.set_timesteps(50)
    assert [schedule.told(timestep) for timestep in schedule.timesteps(50)] == scheduler.timesteps.tolist()
    assert (schedule.final_signal_rate, schedule.final_noise_rate) == (1.0, 0.0)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@pytest.mark.slow
def test_fractional_timesteps_reach_the_network_as_the_pipeline_tells_them(tmp_path, prediction_type):
    """The first step of Euler with linspace, at a step between two training timesteps, bundle against diffusers."""
    import torch

    scheduler = diffusers.EulerDiscreteScheduler.from_config(
        SCHEDULE | {"timestep_spacing": "linspace", "prediction_type": prediction_type}
    )
    folder = making.write(tmp_path / "euler", scheduler=scheduler)
    made: Manifest = export(folder, tmp_path / "bundle")
    assert made.components["unet"].inputs["timestep"].dtype == "float32"
    denoiser = Denoiser(open_bundle(tmp_path / "bundle", "cpu"))
    first = start(denoiser, (0, 1), 50)
    pipeline = diffusers.StableDiffusionPipeline.from_pretrained(folder, local_files_only=True)
    scheduler = pipeline.scheduler
    scheduler.set_timesteps(50)
    noise = torch.from_numpy(np.stack([np.random.default_rng(seed).standard_normal((4, 8, 8), np.float32)
                                       for seed in (0, 1)]))  # fmt: skip
    theirs = scheduler.scale_model_input(noise * scheduler.init_noise_sigma, scheduler.timesteps[0])
    np.testing.assert_allclose(first.x_T, theirs.numpy(), rtol=1e-5)

    at = scheduler.timesteps[1]
    assert at.item() == denoiser.schedule.told(denoiser.schedule.timesteps(50)[1]) == np.float32(999 * 48 / 49)
    ids = pipeline.tokenizer("", padding="max_length", return_tensors="pt").input_ids
    with torch.inference_mode():
        output = pipeline.unet(theirs, at, pipeline.text_encoder(ids)[0].expand(2, -1, -1)).sample.numpy()
    sigma = float(scheduler.sigmas[1])
    a, s = 1 / np.sqrt(1 + sigma**2), sigma / np.sqrt(1 + sigma**2)
    expected = output if prediction_type == "epsilon" else a * output + s * theirs.numpy()
    found = denoiser.predict(first.x_T[None], denoiser.schedule.timesteps(50)[1], denoiser.null).eps[0]
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())


def test_an_edited_grid_is_damage(linked, made):
    grid = {"timesteps": [981.0], "signal_rate": [0.6], "noise_rate": [0.8], "initial_noise_scale": 1.0}
    signed(linked, replace(made, grids={"50": grid}))
    assert Denoiser(open_bundle(linked, "cpu")).schedule.told(1000) == 981
    said = json.loads((linked / "engine.json").read_text())
    said["grids"]["50"]["timesteps"][0] = 961.0
    (linked / "engine.json").write_text(json.dumps(said))
    with pytest.raises(EngineError, match="damaged or edited"):
        open_bundle(linked, "cpu")


def test_a_flow_models_grid_is_its_schedulers_own(tmp_path):
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    grids, said = grids_of(scheduler, tmp_path), schedule_of(scheduler)
    schedule = Schedule.from_manifest(said, "flow", grids)
    own = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    own.set_timesteps(50)
    steps = schedule.timesteps(50)
    assert [np.float32(schedule.told(step)) for step in steps] == own.timesteps.tolist()
    np.testing.assert_allclose(schedule.noise_rate[steps], own.sigmas[:-1].numpy(), rtol=1e-7)
    np.testing.assert_allclose(schedule.signal_rate[steps], 1 - own.sigmas[:-1].numpy(), atol=1e-7)
    assert (schedule.initial_noise_scale(50), schedule.final_signal_rate) == (1.0, 1.0)
    x_t, v, _ = np.random.default_rng(0).standard_normal((3, 1, 1, 2, 3, 3), np.float32)
    read = schedule.read(x_t, v, steps[0])
    np.testing.assert_allclose(read.x0, x_t - v, rtol=1e-6)  # sigma is 1, and the noise is x_t
    np.testing.assert_array_equal(read.eps, x_t)
    assert not schedule.in_eps(steps[0])


@pytest.mark.parametrize("name", ["EDMEulerScheduler", "EDMDPMSolverMultistepScheduler"])
def test_an_edm_models_grid_is_of_latents_of_unit_variance(tmp_path, name):
    scheduler = getattr(diffusers, name)()
    schedule = Schedule.from_manifest(schedule_of(scheduler), "edm", grids_of(scheduler, tmp_path))
    own = getattr(diffusers, name)()
    own.set_timesteps(50)
    steps, sigma = schedule.timesteps(50), own.sigmas[:-1].double().numpy()
    np.testing.assert_allclose([schedule.told(step) for step in steps], own.timesteps.numpy(), rtol=1e-6)
    np.testing.assert_allclose(schedule.noise_rate[steps] / schedule.signal_rate[steps], sigma / 0.5, rtol=1e-6)
    np.testing.assert_allclose(schedule.noise_rate[steps] ** 2 + schedule.signal_rate[steps] ** 2, 1, rtol=1e-12)
    first = schedule.initial_noise_scale(50) * np.sqrt(sigma[0] ** 2 + 0.25)
    np.testing.assert_allclose(first, float(own.init_noise_sigma), rtol=1e-6)


def test_zero_terminal_snr_starts_without_signal_and_is_read_for_v_prediction(tmp_path):
    asked = {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing", "prediction_type": "v_prediction"}
    asked["clip_sample"] = False  # a clipped estimate is no step of the path
    scheduler = diffusers.DDIMScheduler.from_config(SCHEDULE | asked)
    schedule = Schedule.from_manifest(schedule_of(scheduler), "v_prediction", grids_of(scheduler, tmp_path))
    scheduler.set_timesteps(50)
    steps = schedule.timesteps(50)
    assert [schedule.told(step) for step in steps] == scheduler.timesteps.tolist()
    assert (schedule.signal_rate[steps[0]], schedule.noise_rate[steps[0]]) == (0, 1)
    assert [schedule.in_eps(step) for step in steps[:3]] == [False, False, True]
    import torch

    x_t, v = np.random.default_rng(0).standard_normal((2, 1, 1, 4, 3, 3), np.float32)
    for step, following in ((0, 1), (1, 2)):
        found = schedule.step(schedule.read(x_t, v, steps[step]), steps[following])
        own = scheduler.step(torch.from_numpy(v), scheduler.timesteps[step], torch.from_numpy(x_t)).prev_sample
        np.testing.assert_allclose(found, own.numpy(), atol=2e-5)
