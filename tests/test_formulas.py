"""Scores against numbers derived on paper, with the analytic denoiser.

Two images, m and -m, give everything in closed form: E[x0 | x_t] = m*tanh(a*<x_t, m>/s^2) for the empty prompt, m for
a prompt that names m. With z = tanh(...) per seed, De = -(a/s)*(1 - z)*m, and every score is a function of the z.
"""

from dataclasses import replace

import numpy as np
import pytest
from ideal import IMAGES, PREDICTION_TYPES, G, IdealDenoiser, first_step, rates

from scanner.diffusion.baselines import SHRINKAGE, Reference
from scanner.diffusion.formulas import gram
from scanner.diffusion.prediction import Prediction
from scanner.diffusion.scores import SCORES
from scanner.diffusion.start import PRIOR_SEEDS, Start, initial_noise, predict_prior, predict_reference
from scanner.diffusion.trace import Trace

M = IMAGES[0]
RATES = np.array([0.1]), np.array([0.99])  # of one step


@pytest.fixture(params=PREDICTION_TYPES)
def denoiser(request):
    return IdealDenoiser(IMAGES, request.param)


@pytest.fixture(params=PREDICTION_TYPES)
def pair(request):
    return IdealDenoiser(np.stack([M, -M]), request.param)


def posterior(some: Trace, step=0):
    """tanh(a*<x_t, m>/s^2): [S], of the one prompt."""
    a, s = some.signal_rate[step], some.noise_rate[step]
    return np.tanh(a * (some.x_t[step, 0].astype(np.float64) * M).sum((1, 2, 3)) / s**2)


def test_null_prompt_scores_nothing(denoiser):
    null = first_step(denoiser, [list(range(6))], steps=2)
    for name in ("text_noise_norm_v1", "overestimation_v1", "concentration_v1", "guidance_spread_v1"):
        assert SCORES[name](null) == 0, name
    np.testing.assert_allclose(SCORES["seed_independence_v1"](null), 0, atol=1e-6)
    assert np.isnan(SCORES["steadiness_v1"](null))
    assert np.isnan(SCORES["growth_v1"](null))


def test_single_image_prompt_is_fixed_whatever_the_noise(denoiser):
    memorized = first_step(denoiser, [[2]], seeds=(0, 1, 2, 3))
    np.testing.assert_allclose(memorized.cond.x0[0, 0], np.broadcast_to(IMAGES[2], (4, 2, 4, 4)), atol=2e-4)
    np.testing.assert_allclose(SCORES["seed_independence_v1"](memorized), 1, atol=1e-3)  # a 13-fold float32 error
    np.testing.assert_allclose(SCORES["agreement_v1"](memorized), 1, atol=1e-5)
    assert 9 < SCORES["estimate_ratio_v1"](memorized) < 15.95  # nothing but rounding is left of the seeds


def test_overestimation_is_the_guided_displacement_in_data_radii(denoiser):
    """||X_hat - X_u|| = g * ||x* - X_u||: with the image's distance from the unconditional estimate known, exact."""
    memorized = first_step(denoiser, [[i] for i in range(6)])
    distance = np.linalg.norm((IMAGES[:, None] - memorized.uncond.x0[0]).reshape(6, 2, -1), axis=-1).mean(1)
    expected = G * distance / (np.sqrt(32) * denoiser.latent_std)
    np.testing.assert_allclose(SCORES["overestimation_v1"](memorized), expected, rtol=1e-3)


CORNERS = np.eye(8, dtype=np.float32).reshape(8, 2, 2, 2)  # equal distances from the mean by symmetry


@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
def test_overestimation_tends_to_guidance_scale(prediction_type):
    """Images at one distance from their mean, far noise: the mean over prompts of the score is g."""
    denoiser = IdealDenoiser(CORNERS, prediction_type)
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
    if not some.in_eps:
        assert list(raw) == ["q1_v2", "q2_v2", "q3_v2"]
        DX, length = some.cond.x0[0] - some.uncond.x0[0], SCORES["overestimation_v1"](some) * np.sqrt(32)
        np.testing.assert_allclose(np.sqrt(raw["q1_v2"] * 32).mean(1) * G / denoiser.latent_std, length, rtol=1e-5)
        np.testing.assert_allclose(raw["q2_v2"], (DX * some.uncond.x0[0]).mean((2, 3, 4)), rtol=1e-4, atol=1e-7)
        return
    np.testing.assert_allclose(np.sqrt(raw["q1"] * 32).mean(1), SCORES["text_noise_norm_v1"](some), rtol=1e-5)
    De = some.cond.eps[0] - some.uncond.eps[0]
    np.testing.assert_allclose(raw["q2"], (De * some.uncond.eps[0]).mean((2, 3, 4)), rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(raw["q3"], (De * some.x_t[0]).mean((2, 3, 4)), rtol=1e-4, atol=1e-7)


def test_concentration_of_a_local_difference():
    """One of 16 positions holds all of the difference; the top 5 % of 16 positions is one."""
    images = np.zeros((2, 2, 4, 4), np.float32)
    images[1, :, 1, 2] = 5
    local = first_step(IdealDenoiser(images), [[1]])
    np.testing.assert_allclose(SCORES["concentration_v1"](local), 1, atol=1e-6)


def test_concentration_by_hand():
    """Of 30 positions the top 5 % are two, as one and a half is no number of positions; seeds may pull apart.

    Energies: mean over seeds of the sum over channels of De^2; here 25, 9, 4 and, the same for all others, 1.
    """
    De = np.ones((1, 2, 2, 5, 6), np.float32) * np.float32(np.sqrt(0.5))
    De[0, :, :, 0, 0] = [[3, 4], [-3, -4]]  # opposite, as a template is whose sign the noise decides
    De[0, :, :, 2, 3] = [[3, 3], [0, 0]]
    De[0, :, :, 4, 5] = [[0, 2], [2, 0]]
    zeros = np.zeros_like(De)[None]
    some = Trace((0,), *RATES, zeros, Prediction(zeros, De[None]), Prediction(zeros, zeros), G, 1.0)
    np.testing.assert_allclose(SCORES["concentration_v1"](some), (25 + 9) / (25 + 9 + 4 + 27), rtol=1e-6)


def test_concentration_finds_the_top_positions_of_many():
    De = np.random.default_rng(1).standard_normal((3, 2, 4, 40, 40)).astype(np.float32)
    zeros = np.zeros_like(De)[None]
    some = Trace((0,), *RATES, zeros, Prediction(zeros, De[None]), Prediction(zeros, zeros), G, 1.0)
    energy = np.sort(np.square(De).sum(2).mean(1).reshape(3, -1))
    np.testing.assert_allclose(SCORES["concentration_v1"](some), energy[:, -80:].sum(1) / energy.sum(1), rtol=1e-5)


def test_agreement_is_the_mean_pairwise_cosine(denoiser):
    some = first_step(denoiser, [[0, 1, 2]], seeds=(0, 1, 2))
    x0 = some.cond.x0[0, 0].reshape(3, -1)
    cosines = [x0[i] @ x0[j] / np.linalg.norm(x0[i]) / np.linalg.norm(x0[j]) for i, j in ((0, 1), (0, 2), (1, 2))]
    np.testing.assert_allclose(SCORES["agreement_v1"](some), np.mean(cosines), rtol=1e-5)


@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
def test_overestimation_against_a_reference_that_knows_every_image_is_exact(prediction_type):
    """The reference's mean is then the images' mean, whatever the noise: the score is g for every image."""
    denoiser = IdealDenoiser(CORNERS, prediction_type)
    some = with_reference(denoiser, first_step(denoiser, [[i] for i in range(8)]), [[i] for i in range(8)])
    np.testing.assert_allclose(SCORES["overestimation_ref_v1"](some), G, rtol=1e-3)


def test_the_reference_itself_scores_nothing(pair):
    some = with_reference(pair, first_step(pair, [[0]]), [[0]])
    np.testing.assert_allclose(SCORES["overestimation_ref_v1"](some), 0, atol=1e-6)
    assert SCORES["overestimation_v1"](some) > 1


def with_reference(denoiser, some: Trace, captions) -> Trace:
    first = Start(some.x_t[0, 0], some.uncond.at((0, 0)))
    return replace(some, reference=predict_reference(denoiser, captions, first, 50))


def test_distance_is_the_mahalanobis_length_under_the_shrunk_covariance():
    """Against the covariance formed in full; a caption of the reference is at about 1."""
    eps = np.random.default_rng(3).standard_normal((40, 2, 1, 3, 4)) * np.linspace(0.2, 5, 12).reshape(1, 1, 1, 3, 4)
    ordinary = Reference(eps.astype(np.float32))
    deviations = (eps - eps.mean(0)).reshape(80, 12)
    covariance = deviations.T @ deviations / (39 * 2)
    shrunk = (1 - SHRINKAGE) * covariance + SHRINKAGE * np.trace(covariance) / 12 * np.eye(12)
    z = np.random.default_rng(4).standard_normal((5, 2, 12))
    expected = np.sqrt(np.einsum("bsi,ij,bsj->bs", z, np.linalg.inv(shrunk), z) / 12)
    np.testing.assert_allclose(ordinary.covariance.distance(z.astype(np.float32)), expected, rtol=1e-4)
    assert 0.7 < np.sqrt(np.square(ordinary.covariance.distance(deviations.astype(np.float32))).mean()) < 1.1


def test_white_scores_do_not_count_what_varies_anyway():
    """Ordinary captions differ along one direction by 5 and by .1 along all others: as far along it is less unusual."""
    rng, shape = np.random.default_rng(5), (2, 1, 3, 4)
    ordinary = 0.1 * rng.standard_normal((60, *shape))
    ordinary[..., 0, 0, 0] += 5 * rng.standard_normal((60, 1))
    moved = np.zeros((2, *shape))
    moved[0, ..., 0, 0] = moved[1, ..., 2, 3] = 5
    zeros, eps_cond = np.zeros((1, 2, *shape), np.float32), (moved + ordinary.mean(0))[None].astype(np.float32)
    cond, uncond = Prediction(zeros, eps_cond), Prediction(zeros, zeros)
    some = Trace((0,), *RATES, zeros, cond, uncond, G, 1.0, reference=Reference(ordinary))
    np.testing.assert_allclose(*SCORES["overestimation_ref_v1"](some), rtol=1e-5)
    usual, unusual = SCORES["overestimation_white_v1"](some)
    assert unusual > 1.2 * usual


def test_estimate_ratio_white_is_the_estimate_ratio_where_captions_differ_alike_in_all_directions(pair):
    """With an isotropic reference around 0 the measure is Euclidean."""
    some = first_step(pair, [[0, 1]], seeds=range(3))
    x_T = some.x_t[0, 0]
    axes = np.concatenate([np.eye(32), -np.eye(32)]).reshape(64, 1, 2, 4, 4).astype(np.float32)
    a, s = some.signal_rate[0], some.noise_rate[0]
    eps = (x_T + axes * np.float32(a)) / np.float32(s)
    ordinary = Reference((eps if some.in_eps else axes).astype(np.float32))
    white = SCORES["estimate_ratio_white_v1"](replace(some, reference=ordinary))
    np.testing.assert_allclose(white, SCORES["estimate_ratio_v1"](some), atol=1e-3)


def test_estimate_ratio_white_is_measured_from_the_ordinary_estimate(pair):
    """Ordinary captions that differ alike in all directions around c: log(mean ||X - c|| / spread of X)."""
    some = first_step(pair, [[0, 1]], seeds=range(3))
    x_T, a, s = some.x_t[0, 0], some.signal_rate[0], some.noise_rate[0]
    axes = np.concatenate([np.eye(32), -np.eye(32)]).reshape(64, 1, 2, 4, 4)
    c = np.full(M.shape, 0.7)
    ordinary = Reference(((x_T - a * (c + axes)) / s if some.in_eps else c + axes).astype(np.float32))
    X = some.cond.x0[0, 0].astype(np.float64)
    spread = np.sqrt(np.square(X - X.mean(0)).sum() / 2)
    expected = np.log(np.linalg.norm((X - c).reshape(3, -1), axis=1).mean() / spread)
    found = SCORES["estimate_ratio_white_v1"](replace(some, reference=ordinary))
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_two_images_measured_by_the_prior(pair):
    """All estimates lie along m, where the covariance is ((1 - SHRINKAGE)*d + SHRINKAGE)/d * var(z) * ||m||^2."""
    some = replace(first_step(pair, [[0], [0, 1]], seeds=range(4)), prior=predict_prior(pair, 50))
    a, s = some.signal_rate[0], some.noise_rate[0]
    noise = initial_noise(PRIOR_SEEDS, M.shape).astype(np.float64)
    prior = np.tanh(a * (noise * M).sum((1, 2, 3)) / s**2)
    z, unit = posterior(some), np.sqrt(prior.var(ddof=1) * ((1 - SHRINKAGE) * M.size + SHRINKAGE))
    single, null = SCORES["overestimation_prior_v1"](some)
    np.testing.assert_allclose(single, (1 - z).mean() / unit, rtol=1e-3)
    assert null == 0
    single, null = SCORES["estimate_ratio_prior_v1"](some)
    assert single > 9
    np.testing.assert_allclose(null, np.log(np.abs(z - prior.mean()).mean() / z.std(ddof=1)), atol=1e-3)


def test_two_images_first_step(pair):
    some = first_step(pair, [[0]], seeds=range(4))
    z, (a, s) = posterior(some), (some.signal_rate[0], some.noise_rate[0])
    length = np.linalg.norm(M)
    np.testing.assert_allclose(SCORES["text_noise_norm_v1"](some), a / s * length * (1 - z).mean(), rtol=1e-4)
    # latent_std is ||m||/sqrt(d): the score is g times how far the empty prompt is from knowing the image
    np.testing.assert_allclose(SCORES["overestimation_v1"](some), G * (1 - z).mean(), rtol=1e-4)
    np.testing.assert_allclose(SCORES["guidance_spread_v1"](some), a / s * length * z.std(ddof=1), rtol=1e-3)


def test_estimate_ratio_of_the_empty_prompt_is_the_signal_to_noise_of_tanh(pair):
    null = first_step(pair, [[0, 1]], seeds=range(6))
    z = posterior(null)
    expected = np.log(np.abs(z).mean() / z.std(ddof=1))
    np.testing.assert_allclose(SCORES["estimate_ratio_v1"](null), expected, atol=1e-3)


def test_two_images_later_steps(pair):
    some = first_step(pair, [[0]], steps=3)
    a, s, length = some.signal_rate, some.noise_rate, np.linalg.norm(M)
    norms = [a[k] / s[k] * length * (1 - posterior(some, k)).mean() for k in range(3)]
    np.testing.assert_allclose(SCORES["text_noise_norm_steps_v1"](some), np.mean(norms), rtol=1e-3)
    gain = np.square(1 - posterior(some, 1)).sum() / np.square(1 - posterior(some, 0)).sum()
    expected = (a[1] * s[0] / (a[0] * s[1])) ** 2 * gain
    np.testing.assert_allclose(SCORES["growth_v1"](some), expected, rtol=1e-3)


def test_steadiness_is_one_for_a_fixed_estimate(pair, denoiser):
    for model, subset in ((pair, [0]), (denoiser, [3])):
        np.testing.assert_allclose(SCORES["steadiness_v1"](first_step(model, [subset], steps=2)), 1, atol=1e-3)


def test_steadiness_constant_of_stable_diffusion():
    """c = (k/s_1)*(g - 1)*s_0/a_0 = 0.804 for timesteps 981 and 961 at g = 7.5: the numerator of a unit ||De||."""
    some = first_step(IdealDenoiser(np.stack([M, -M])), [[0]], steps=2)
    assert some.timesteps == (981, 961)
    moved = np.linalg.norm((some.cond.eps[1] - some.cond.eps[0]).reshape(2, -1), axis=1).mean()
    np.testing.assert_allclose(moved / SCORES["text_noise_norm_v1"](some), 0.804, atol=1e-3)


def test_steadiness_is_undefined_without_guidance(denoiser):
    assert np.isnan(SCORES["steadiness_v1"](first_step(denoiser, [[3]], steps=2, guidance_scale=1.0)))


@pytest.mark.parametrize("steps", [2, 3])
def test_schedule_deviation_of_an_unguided_fixed_estimate_is_one(pair, steps):
    some = first_step(pair, [[0]], steps=steps, guidance_scale=1.0)
    np.testing.assert_allclose(SCORES["schedule_deviation_v1"](some), 1, atol=1e-3)


def test_schedule_deviation_after_one_guided_update(pair):
    """x_1 = k*(z + g*(1 - z))*m + (s_1/s_0)*x_T with k = a_1 - a_0*s_1/s_0: the raw w_0 is below the schedule."""
    some = first_step(pair, [[0]], seeds=range(4), steps=2)
    expected = (G - (G - 1) * posterior(some)).mean()
    np.testing.assert_allclose(SCORES["schedule_deviation_v1"](some), expected, rtol=2e-3)
    if pair.schedule.prediction_type == "epsilon":
        _, a_1, _, _, k = rates(some)
        assert (round(G * k, 4), round(a_1, 4)) == (0.0705, 0.0853)


@pytest.mark.parametrize(
    ("seeds", "steps", "baselines", "undefined"),
    [
        (
            1,
            1,
            True,
            [name for name, by in SCORES.items() if by.seeds > 1 or by.steps > 1 or by.told or by.needs == "base"],
        ),
        (2, 1, True, [name for name, by in SCORES.items() if by.steps > 1 or by.told or by.needs == "base"]),
        (1, 2, False, [name for name, by in SCORES.items() if by.seeds > 1 or by.needs or by.told]),
        (2, 2, True, [name for name, by in SCORES.items() if by.told or by.needs == "base"]),
    ],
)
def test_scores_that_need_more_than_the_trace_holds_are_undefined(denoiser, seeds, steps, baselines, undefined):
    some = first_step(denoiser, [[1], [2]], seeds=range(seeds), steps=steps)
    if baselines:
        some = with_reference(denoiser, some, [[0, 1], [2, 3]])
        some = replace(some, prior=predict_prior(denoiser, 50))
    values = {name: score(some) for name, score in SCORES.items()}
    assert [name for name, value in values.items() if np.isnan(value).all()] == undefined
    assert all(value.dtype == np.float32 and value.shape == (2,) for value in values.values())
    assert all(np.isfinite(value).all() for name, value in values.items() if name not in undefined)
