"""What a network's output means, and guidance, on numbers."""

import numpy as np

from scanner.diffusion.prediction import Prediction, combined, guided, x0_from_eps


def prediction(x0, eps):
    return Prediction(np.array(x0, np.float32), np.array(eps, np.float32))


def test_the_clean_latent_is_what_the_noise_leaves():
    x_t, eps = np.array([[1.0], [2.0]], np.float32), np.array([[0.5], [1.0]], np.float32)
    found = x0_from_eps(x_t, eps, np.array([[0.5], [0.8]]), np.array([[0.4], [0.6]]))
    np.testing.assert_allclose(found, [[(1 - 0.2) / 0.5], [(2 - 0.6) / 0.8]], rtol=1e-6)
    assert found.dtype == np.float32


def test_guidance_goes_on_past_the_prompts_prediction():
    cond, uncond = prediction([3.0], [0.5]), prediction([1.0], [0.25])
    assert guided(None, cond, uncond, 2.0, None) == prediction([5.0], [0.75])
    assert guided(None, cond, uncond, 1.0, None) == cond
    x_t = np.array([2.0], np.float32)
    followed = guided(x_t, cond, uncond, 2.0, (0.5, 0.8))
    np.testing.assert_allclose(followed.x0, [(2 - 0.8 * 0.75) / 0.5], rtol=1e-6)  # from the noise
    assert followed.eps == np.float32(0.75)


def test_parts_and_joins_keep_both_arrays_together():
    one, other = prediction([1.0, 2.0], [3.0, 4.0]), prediction([5.0, 6.0], [7.0, 8.0])
    assert one.at(1) == (2.0, 4.0)
    both = combined([one, other], np.stack)
    assert (both.x0.tolist(), both.eps.tolist()) == ([[1, 2], [5, 6]], [[3, 4], [7, 8]])
