"""How much of an image a step holds: the quantities on paper."""

import numpy as np
import pytest
from ideal import IdealDenoiser

from scanner.diffusion.baselines import Covariance
from scanner.diffusion.injection import injection, latents
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
