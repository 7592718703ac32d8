"""Sketches against the whitened changes that they stand for, written out."""

from dataclasses import replace

import numpy as np
import pytest
from ideal import PREDICTION_TYPES, IdealDenoiser, first_step

from scanner.diffusion import sketch as module
from scanner.diffusion.baselines import SKETCH, Covariance, Prior
from scanner.diffusion.sketch import sketch
from scanner.diffusion.start import predict_prior
from scanner.store import ledger

PICTURES = np.random.default_rng(3).standard_normal((12, 4, 8, 8)).astype(np.float32)


@pytest.fixture(params=PREDICTION_TYPES)
def denoiser(request):
    return IdealDenoiser(PICTURES, request.param)


def traced(denoiser, subsets, seeds=(0, 1)):
    return replace(first_step(denoiser, subsets, seeds), prior=predict_prior(denoiser, 50))


def cosines(vectors):
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return units @ units.T


@pytest.mark.parametrize("n", [5, 300])  # samples that span a few directions, and all of them
def test_whitening_is_the_inverse_root_of_the_covariance(n):
    drawn = np.random.default_rng(0)
    deviations, z = drawn.standard_normal((n, 40)) * np.arange(1, 41), drawn.standard_normal((6, 40)).astype(np.float32)
    covariance = Covariance.of(deviations, n - 1)
    sample = deviations.T @ deviations / (n - 1)
    values, vectors = np.linalg.eigh(0.4 * sample + 0.6 * np.trace(sample) / 40 * np.eye(40))
    expected = z @ (vectors / np.sqrt(values)) @ vectors.T / np.sqrt(40)
    np.testing.assert_allclose(covariance.whitened(z), expected, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(covariance.whitened(z), axis=1), covariance.distance(z), rtol=1e-4)


def test_angles_and_lengths_are_those_of_the_whitened_changes(denoiser):
    some = traced(denoiser, [[i] for i in range(12)] + [[0, 1], [0, 1, 2]])
    change = some.text_estimate[0].mean(1).reshape(14, -1).astype(np.float64)
    deviations = some.prior.x0_uncond.reshape(64, -1).astype(np.float64)
    sample = np.cov(deviations, rowvar=False)
    inverse = np.linalg.inv(0.4 * sample + 0.6 * np.trace(sample) / 256 * np.eye(256))
    inner = change @ inverse @ change.T
    lengths = np.sqrt(np.diag(inner))
    expected = inner / lengths[:, None] / lengths
    found = sketch(some).astype(np.float64)
    wrong = (cosines(found) - expected)[np.triu_indices(14, 1)] * np.sqrt(SKETCH)
    assert np.sqrt(np.square(wrong).mean()) < 1.5  # in standard errors of unlike vectors
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), lengths / 16, rtol=0.35)  # 4 standard errors


def test_prompts_that_fix_one_picture_have_one_sketch_whatever_the_seeds(denoiser):
    """Of a prompt that one picture explains the estimate is that picture; the empty prompt's part does not cancel."""
    one = sketch(traced(denoiser, [[4], [4], [5]]))
    assert (one[0] == one[1]).all()
    assert cosines(one.astype(np.float64))[0, 2] < 0.6
    assert one.dtype == np.float16
    assert one.shape == (3, SKETCH)


def test_a_prompt_that_overflows_has_no_finite_sketch():
    some = traced(IdealDenoiser(PICTURES), [[0], [1]])
    some.cond.x0[0, 1, 0, 0, 0, 0] = np.inf
    found = sketch(some)
    assert np.isfinite(found[0]).all()
    assert not np.isfinite(found[1]).any()


def test_the_projection_is_the_same_in_every_process():
    prior = Prior(np.random.default_rng(1).standard_normal((9, 2, 3, 3)).astype(np.float32))
    drawn = np.random.Generator(np.random.PCG64(0)).standard_normal((SKETCH, 18), np.float32)
    np.testing.assert_array_equal(prior.projection, prior.covariance.whitened(drawn).T / np.float32(8))


def test_the_store_has_it_by_the_name_of_its_version():
    assert ledger.SKETCH == module.NAME
