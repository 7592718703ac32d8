"""How much of an image a step holds: the quantities on paper."""

import numpy as np
import pytest
from ideal import IdealDenoiser

from scanner.diffusion.baselines import Covariance
from scanner.diffusion.injection import discrepancy, injection, latents
from scanner.diffusion.start import start
from scanner.diffusion.trace import denoise, trace
from scanner.evidence.decomposition import least_squares

G = 7.5


@pytest.fixture
def ideal():
    rng = np.random.default_rng(0)
    denoiser = IdealDenoiser(rng.standard_normal((6, 2, 4, 4)).astype(np.float32))
    return denoiser, trace(denoiser, denoiser.encode([[2], list(range(6))]), start(denoiser, (0,), 50), G, 50, 2)


@pytest.mark.parametrize("covariance", [None, Covariance(0.5, np.eye(3, 32, dtype=np.float32) * 0.7)])
def test_a_prompt_of_one_image_injects_the_guidance_scale_times_it(ideal, covariance):
    denoiser, found = ideal
    mu = found.uncond.x0[0, 0, 0]  # one seed: exactly what guidance starts from
    held = injection(found.hat.x0[0], denoiser.images.astype(np.float32), mu, covariance)
    np.testing.assert_allclose(held.coefficient[0, 0, 2], G, rtol=1e-3)
    np.testing.assert_allclose(held.cosine[0, 0, 2], 1, atol=1e-4)
    assert held.cosine[0, 0].argmax() == 2  # of all images its own is the nearest
    assert (np.delete(held.cosine[0, 0], 2) < 0.8).all()


def test_a_null_prompt_injects_nothing_and_has_no_cosine(ideal):
    denoiser, found = ideal
    mu = found.hat.x0[0, 1, 0]
    held = injection(found.hat.x0[0, 1:], denoiser.images.astype(np.float32), mu)
    np.testing.assert_array_equal(held.coefficient, 0)
    assert np.isnan(held.cosine).all()
    itself = injection(found.hat.x0[0], mu[None], mu)
    assert np.isnan(itself.coefficient).all()  # an image that is the mean


def test_the_first_updates_decompose_as_on_paper(ideal):
    denoiser, found = ideal
    a, s = found.signal_rate, found.noise_rate
    x_t = latents(found, denoiser.schedule, 50)
    np.testing.assert_array_equal(x_t[0], found.x_t[1])
    following = list(denoise(denoiser, denoiser.encode([[2]]), start(denoiser, (0,), 50), G, 50))[2].x_t
    np.testing.assert_allclose(x_t[1, :1], following, rtol=1e-5)  # the last one, without a further UNet pass
    x_0 = np.broadcast_to(denoiser.images[2].astype(np.float32), (2, 2, 4, 4))
    mixed = np.float32(a[1]) * x_0[:, None] + np.float32(s[1]) * found.x_t[0]
    w_0, w_T, _ = least_squares(mixed[None], x_0[:, None], found.x_t[0])
    np.testing.assert_allclose((w_0, w_T), np.broadcast_to([[[[a[1]]]], [[[s[1]]]]], (2, 1, 2, 1)), rtol=1e-4)
    assert np.isnan(least_squares(mixed[None], np.zeros_like(x_0)[:, None], found.x_t[0]).w_0).all()


def test_what_a_prompt_of_one_image_changes_is_that_image(ideal):
    denoiser, found = ideal
    mu, images = found.uncond.x0[0, 0, 0], denoiser.images.astype(np.float32)
    own = discrepancy(found.text_estimate[0, :1], images[2], mu)
    np.testing.assert_allclose(own, 0, atol=1e-5)
    other = discrepancy(found.text_estimate[0, :1], images[3], mu)
    assert other.E_rel[0, 0] > 1
    unchanged = discrepancy(found.text_estimate[0, 1:], images[2], mu)
    np.testing.assert_allclose(unchanged, [[[1]], [[0]]], atol=1e-6)
    assert np.isnan(discrepancy(found.text_estimate[0], mu, mu)).all()  # an image that is the mean


def test_a_discrepancy_is_along_the_image_and_across_it():
    image, across = np.zeros((2, 1, 1, 1, 4), np.float32)
    image[..., 0], across[..., 1] = 2, 2
    mu = np.full((1, 1, 4), 0.5, np.float32)
    change = (1.5 * image + 2 * across)[None]  # q = 1.5
    found = discrepancy(change, image + mu, mu)
    np.testing.assert_allclose(found.r_perp, 2)
    np.testing.assert_allclose(np.square(found.E_rel), 0.5**2 + 2**2, rtol=1e-6)
    np.testing.assert_allclose(discrepancy(3 * change, 3 * image + mu, mu), found)  # g times both: the same


def test_an_image_off_the_mean_leaves_of_the_empty_prompt_what_it_estimates():
    """One seed of several: X_u is not mu, and E_rel is what X_u is from it."""
    rng = np.random.default_rng(1)
    x_0, mu, x_u = rng.standard_normal((3, 2, 4, 4)).astype(np.float32)
    found = discrepancy((x_0 - x_u)[None, None], x_0, mu)
    assert found.E_rel[0, 0] == pytest.approx(np.linalg.norm(x_u - mu) / np.linalg.norm(x_0 - mu), rel=1e-5)
