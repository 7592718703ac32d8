"""Scores against numbers derived on paper, with the analytic denoiser."""

import numpy as np
import pytest
from ideal import IdealDenoiser

from scanner.diffusion.scores import SCORES, gram
from scanner.diffusion.trace import denoise, start, trace

G = 7.5
rng = np.random.default_rng(7)
IMAGES = rng.standard_normal((6, 2, 4, 4)).astype(np.float32)


def first_step(denoiser, subsets, seeds=(0, 1), steps=1):
    return trace(denoiser, denoiser.encode(subsets), start(denoiser, seeds, 50), G, 50, steps)


@pytest.fixture(params=["epsilon", "v_prediction"])
def denoiser(request):
    return IdealDenoiser(IMAGES, request.param)


def test_null_prompt_scores_nothing(denoiser):
    null = first_step(denoiser, [list(range(6))])
    assert SCORES["text_noise_norm_v1"](null) == 0
    assert SCORES["overestimation_v1"](null) == 0
    assert SCORES["concentration_v1"](null) == 0
    np.testing.assert_allclose(SCORES["seed_independence_v1"](null), 0, atol=1e-6)


def test_single_image_prompt_is_fixed_whatever_the_noise(denoiser):
    memorized = first_step(denoiser, [[2]], seeds=(0, 1, 2, 3))
    np.testing.assert_allclose(memorized.x0_cond[0, 0], np.broadcast_to(IMAGES[2], (4, 2, 4, 4)), atol=2e-4)
    np.testing.assert_allclose(SCORES["seed_independence_v1"](memorized), 1, atol=1e-3)  # a 13-fold float32 error
    np.testing.assert_allclose(SCORES["agreement_v1"](memorized), 1, atol=1e-5)


def test_overestimation_is_the_guided_displacement_in_data_radii(denoiser):
    """||X_hat - X_u|| = g * ||x* - X_u||: with the image's distance from the unconditional estimate known, exact."""
    memorized = first_step(denoiser, [[i] for i in range(6)])
    distance = np.linalg.norm((IMAGES[:, None] - memorized.x0_uncond[0]).reshape(6, 2, -1), axis=-1).mean(1)
    expected = G * distance / (np.sqrt(32) * denoiser.latent_std)
    np.testing.assert_allclose(SCORES["overestimation_v1"](memorized), expected, rtol=1e-3)


def test_overestimation_tends_to_guidance_scale():
    """Images at one distance from their mean, far noise: the mean over prompts of the score is g."""
    corners = np.eye(8, dtype=np.float32).reshape(8, 2, 2, 2)  # equal distances from the mean by symmetry
    denoiser = IdealDenoiser(corners)
    memorized = first_step(denoiser, [[i] for i in range(8)], seeds=tuple(range(8)))
    # at abar .0058 the unconditional estimate is nearly the mean, within the softmax's response to the noise
    np.testing.assert_allclose(SCORES["overestimation_v1"](memorized).mean(), G, rtol=0.02)


def test_partial_prompts_lie_between(denoiser):
    between = first_step(denoiser, [[2], [2, 3], [0, 1, 2, 3, 4, 5]], seeds=(0, 1, 2, 3))
    independence = SCORES["seed_independence_v1"](between)
    assert independence[0] > independence[1] > independence[2] - 1e-6


def test_gram_recomputes_the_norm(denoiser):
    some = first_step(denoiser, [[1], [1, 4]])
    raw = gram(some)
    np.testing.assert_allclose(np.sqrt(raw["q1"] * 32).mean(1), SCORES["text_noise_norm_v1"](some), rtol=1e-5)
    De = some.eps_cond[0] - some.eps_uncond[0]
    np.testing.assert_allclose(raw["q2"], (De * some.eps_uncond[0]).mean((2, 3, 4)), rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(raw["q3"], (De * some.x_t[0]).mean((2, 3, 4)), rtol=1e-4, atol=1e-7)


def test_concentration_of_a_local_difference():
    """One of 16 positions holds all of the difference; the top 5 % of 16 positions is one."""
    images = np.zeros((2, 2, 4, 4), np.float32)
    images[1, :, 1, 2] = 5
    local = first_step(IdealDenoiser(images), [[1]])
    np.testing.assert_allclose(SCORES["concentration_v1"](local), 1, atol=1e-6)


def test_agreement_is_the_mean_pairwise_cosine(denoiser):
    some = first_step(denoiser, [[0, 1, 2]], seeds=(0, 1, 2))
    x0 = some.x0_cond[0, 0].reshape(3, -1)
    cosines = [x0[i] @ x0[j] / np.linalg.norm(x0[i]) / np.linalg.norm(x0[j]) for i, j in ((0, 1), (0, 2), (1, 2))]
    np.testing.assert_allclose(SCORES["agreement_v1"](some), np.mean(cosines), rtol=1e-5)


def test_scores_over_seeds_are_undefined_for_one_seed(denoiser):
    one = first_step(denoiser, [[1], [2]], seeds=(0,))
    defined = {name: bool(np.isfinite(score(one)).all()) for name, score in SCORES.items()}
    assert defined == {
        "text_noise_norm_v1": True,
        "overestimation_v1": True,
        "seed_independence_v1": False,
        "agreement_v1": False,
        "concentration_v1": True,
    }


def test_first_update_identity(denoiser):
    """eps_c(x_1) - eps_c(x_T) = (k/s_1)(g-1)*DX - (a_1/s_1)*(X_c(x_1) - X_c(x_T)), k = a_1 - a_0*s_1/s_0."""
    two = first_step(denoiser, [[1, 2]], steps=2)
    (a0, a1), (s0, s1) = two.signal_rate, two.noise_rate
    k = a1 - a0 * s1 / s0
    DX = two.x0_cond[0] - two.x0_uncond[0]
    expected = k / s1 * (G - 1) * DX - a1 / s1 * (two.x0_cond[1] - two.x0_cond[0])
    np.testing.assert_allclose(two.eps_cond[1] - two.eps_cond[0], expected, atol=1e-5)


def test_loop_ends_on_the_memorized_image(denoiser):
    *_, last = denoise(denoiser, denoiser.encode([[3]]), start(denoiser, (0, 1), 50), 1.0, 50)
    # sampling stops at abar_0 = .99915, short of the clean image
    np.testing.assert_allclose(last.x_t[0], np.broadcast_to(IMAGES[3], (2, 2, 4, 4)), atol=0.1)
    assert last.timestep == -1
