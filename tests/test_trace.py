"""The denoising loop and what is kept of it, with the analytic denoiser."""

import numpy as np
import pytest
from ideal import IMAGES, PREDICTION_TYPES, G, IdealDenoiser, first_step, rates

from scanner.diffusion.scores import SCORES
from scanner.diffusion.start import start
from scanner.diffusion.trace import denoise


@pytest.fixture(params=PREDICTION_TYPES)
def denoiser(request):
    return IdealDenoiser(IMAGES, request.param)


def test_a_part_of_a_trace_is_the_smaller_trace(denoiser):
    large = first_step(denoiser, [[1], [2, 4]], seeds=(0, 1, 2), steps=3)
    part, small = large.part(2, 2), first_step(denoiser, [[1], [2, 4]], seeds=(0, 1), steps=2)
    assert part.timesteps == small.timesteps
    for name, score in SCORES.items():
        np.testing.assert_array_equal(score(part), score(small), err_msg=name)


def test_first_update_identity(denoiser):
    """eps_c(x_1) - eps_c(x_T) = (k/s_1)(g-1)*DX - (a_1/s_1)*(X_c(x_1) - X_c(x_T)), k = a_1 - a_0*s_1/s_0."""
    two = first_step(denoiser, [[1, 2]], steps=2)
    _, a1, _, s1, k = rates(two)
    DX = two.text_estimate[0]
    expected = k / s1 * (G - 1) * DX - a1 / s1 * (two.cond.x0[1] - two.cond.x0[0])
    np.testing.assert_allclose(two.cond.eps[1] - two.cond.eps[0], expected, atol=1e-5)


def test_loop_ends_on_the_memorized_image(denoiser):
    *_, last = denoise(denoiser, denoiser.encode([[3]]), start(denoiser, (0, 1), 50), 1.0, 50)
    # sampling stops at abar_0 = .99915, short of the clean image (flow: at the image)
    np.testing.assert_allclose(last.x_t[0], np.broadcast_to(IMAGES[3], (2, 2, 4, 4)), atol=0.1)
    assert last.timestep == -1
