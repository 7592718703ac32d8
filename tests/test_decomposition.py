"""Paths whose weights are known."""

import numpy as np
import pytest
from ideal import PREDICTION_TYPES, G, IdealDenoiser

from scanner.diffusion.start import initial_noise, start
from scanner.diffusion.trace import denoise
from scanner.errors import ScannerError
from scanner.evidence.decomposition import cosine, decompose, deviation, latent_norm, loss, seed_distance
from scanner.evidence.verify import Sampler, Sampling

SHAPE = (2, 4, 4)
X_0, X_T = initial_noise(range(3), SHAPE) * 2, initial_noise(range(10, 13), SHAPE)  # [S, C, H, W]
A, S = np.array([0.1, 0.5, 0.9]), np.array([0.99, 0.8, 0.3])


def path(w_0, w_T):
    """[K, S, C, H, W] of these weights [K]."""
    return (w_0[:, None, None, None, None] * X_0 + w_T[:, None, None, None, None] * X_T).astype(np.float32)


def test_weights_of_a_path_in_the_plane_of_image_and_noise_are_recovered():
    found = decompose(path(A + 0.2, S - 0.1), X_0, X_T)
    np.testing.assert_allclose(found.w_0, np.repeat((A + 0.2)[:, None], 3, 1), atol=1e-6)
    np.testing.assert_allclose(found.w_T, np.repeat((S - 0.1)[:, None], 3, 1), atol=1e-6)
    assert found.residual.max() < 1e-6


def test_what_lies_outside_the_plane_is_residual():
    flat = np.zeros((3, 1, 1, 4), np.float32)
    x_0, x_T, other = flat.copy(), flat.copy(), flat.copy()
    x_0[..., 0], x_T[..., 1], other[..., 2] = 1, 1, 1
    found = decompose((3 * x_0 + 4 * other)[None], x_0, x_T)
    np.testing.assert_allclose(found.w_0, 3)
    np.testing.assert_allclose(found.w_T, 0, atol=1e-12)
    np.testing.assert_allclose(found.residual, 4 / 5)


def test_deviations_are_zero_on_the_schedule_and_sums_over_steps_off_it():
    on = deviation(decompose(path(A, S), X_0, X_T), A, S)
    np.testing.assert_allclose([on.D1, on.D2], 0, atol=1e-5)
    off = deviation(decompose(path(A + 0.2, S - 0.1), X_0, X_T), A, S)
    assert pytest.approx(0.6, abs=1e-5) == off.D1  # 3 steps
    assert pytest.approx(0.3, abs=1e-5) == off.D2
    several = deviation(decompose(path(A + 0.2, S - 0.1)[:, None].repeat(2, 1), X_0, X_T), A, S)  # [K, B, S, ...]
    np.testing.assert_allclose(several.D1, [off.D1, off.D1])


def test_an_image_that_is_the_noise_has_no_weights():
    with pytest.raises(ScannerError, match="multiple of the starting noise"):
        decompose(path(A, S), X_T * 2, X_T)


def test_distance_between_seeds():
    apart = np.zeros((3, 1, 2, 2), np.float32)
    apart[1], apart[2] = 3, 6
    assert seed_distance(apart) == pytest.approx((3 + 6 + 3) / 3)
    assert seed_distance(initial_noise(range(4), (4, 64, 64))) == pytest.approx(np.sqrt(2), rel=0.01)
    assert latent_norm(apart).tolist() == [0, 3, 6]
    assert np.isnan(seed_distance(apart[:1]))


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "flow"])
def test_an_unguided_path_to_one_image_deviates_by_its_start_alone(prediction_type):
    images = np.random.default_rng(0).normal(size=(4, *SHAPE)).astype(np.float32)
    denoiser = IdealDenoiser(images, prediction_type)
    first = start(denoiser, (1000, 1001), 50)
    timesteps = denoiser.schedule.timesteps(50)
    a, s = denoiser.schedule.signal_rate[timesteps], denoiser.schedule.noise_rate[timesteps]
    *steps, _ = denoise(denoiser, denoiser.encode([[0]]), first, 1.0, 50)
    x_t = np.stack([step.x_t for step in steps])
    found = decompose(x_t, images[0], first.x_T)  # a point mass: DDIM keeps (x_t - a*x_0) / s, and so the plane
    np.testing.assert_allclose(found.w_T[:, 0], np.broadcast_to((s / s[0])[:, None], found.w_T[:, 0].shape), atol=1e-4)
    np.testing.assert_allclose(found.w_0[:, 0, 0], a - a[0] * s / s[0], atol=1e-4)
    assert found.residual.max() < 1e-4


def test_many_prompts_at_once_have_the_deviations_of_each():
    images = np.random.default_rng(0).normal(size=(6, *SHAPE)).astype(np.float32)
    sampler = Sampler(IdealDenoiser(images), Sampling((1000, 1001), num_inference_steps=20))
    memorized, ordinary, alone = [0], [1, 2, 3, 4, 5], [5]
    both = sampler.deviations([memorized, ordinary, alone], chunk=2)
    one = sampler.deviations([memorized])
    assert both["D1"][0] == pytest.approx(one["D1"][0], abs=1e-5)
    assert both["D2"][0] == pytest.approx(one["D2"][0], abs=1e-5)
    assert both["D1"][0] > both["D1"][1] + 1


def test_losses_and_cosines_are_what_they_say():
    image = np.zeros((2, 1, 1, 4), np.float32)
    image[..., 0] = [[[3]], [[0]]]
    aside = image.copy()
    aside[0, ..., 1] = 4
    np.testing.assert_allclose(loss(aside, image[0]), [16 / 4, 9 / 4])
    np.testing.assert_allclose(cosine(aside, image[0])[0], 3 / 5)
    np.testing.assert_allclose(cosine(-2 * aside, image[0])[0], -3 / 5)
    assert np.isnan(cosine(aside, image[0])[1])  # a noise of zero
    many = np.stack([aside, 2 * aside])[:, :, None]  # [K, S, 1, ...]: leading axes are the caller's
    np.testing.assert_allclose(loss(many, image[0])[:, :, 0], [loss(aside, image[0]), loss(2 * aside, image[0])])


@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
def test_guidance_overshoots_what_the_prompt_is_right_about(prediction_type):
    images = np.random.default_rng(0).normal(size=(4, *SHAPE)).astype(np.float32)
    denoiser = IdealDenoiser(images, prediction_type)
    first, schedule = start(denoiser, (1000, 1001), 50), denoiser.schedule
    step = next(denoise(denoiser, denoiser.encode([[0]]), first, G, 50))
    hat = schedule.guided(step.x_t, step.cond, step.uncond, G, step.timestep)
    uncond = loss(step.uncond.x0, images[0])
    np.testing.assert_allclose(loss(step.cond.x0, images[0]), 0, atol=1e-8)
    np.testing.assert_allclose(loss(hat.x0, images[0]), (G - 1) ** 2 * uncond, rtol=1e-3)
    a, s = schedule.signal_rate[step.timestep], schedule.noise_rate[step.timestep]
    rest = (step.x_t[0] - a * images[0]) / s  # the noise that leads from the image to x_T
    np.testing.assert_allclose(cosine(step.cond.eps[0], rest), 1, atol=1e-6)
    kinds = [cosine(of.eps[0], images[0]).mean() for of in (step.uncond, step.cond, hat)]
    assert kinds[0] > kinds[1] > kinds[2]  # the image is in the noise, with the other sign
    along = [cosine(of.eps[0], first.x_T).mean() for of in (step.uncond, step.cond, hat)]
    assert along[0] > along[2]
    assert along[0] > 0.98
