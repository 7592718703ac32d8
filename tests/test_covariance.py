"""The measure of what is usual, against matrices written out."""

import numpy as np
import pytest

from scanner.diffusion.baselines import Covariance, Prior, Reference
from scanner.errors import ScannerError

SHAPE = (2, 2, 3)
D = 12


def matrix(deviations, degrees, shrinkage=0.6):
    sample = deviations.T @ deviations / degrees
    return (1 - shrinkage) * sample + shrinkage * np.trace(sample) / D * np.eye(D)


def length(z, covariance):
    """[N, d] -> [N]."""
    return np.sqrt(np.einsum("ni,ij,nj->n", z, np.linalg.inv(covariance), z) / D)


@pytest.fixture
def drawn():
    return np.random.default_rng(0)


@pytest.mark.parametrize("n", [5, 40])  # fewer samples than elements, and more
@pytest.mark.parametrize("shrinkage", [None, 0.1, 0.9])
def test_distances_are_those_of_the_shrunk_matrix(drawn, n, shrinkage):
    deviations, z = (
        drawn.standard_normal((n, D)) * np.arange(1, D + 1),
        drawn.standard_normal((7, D)).astype(np.float32),
    )
    given = () if shrinkage is None else (shrinkage,)
    found = Covariance.of(deviations, n - 1, *given).distance(z)
    np.testing.assert_allclose(found, length(z, matrix(deviations, n - 1, *given)), rtol=1e-4)


def test_samples_that_are_all_the_same_measure_nothing():
    with pytest.raises(ScannerError, match="the model predicts the same for all of 4 captions and seeds"):
        Covariance.of(np.zeros((4, D)), 3)
    assert Covariance.of(np.eye(4, D) * D / np.sqrt(0.6), 4).isotropic == pytest.approx(D)  # a variance is any number


def test_a_priors_measure_is_of_its_estimates_around_their_mean(drawn):
    estimates = drawn.standard_normal((9, *SHAPE)).astype(np.float32)
    prior, z = Prior(estimates), drawn.standard_normal((3, D)).astype(np.float32)
    flat = estimates.reshape(9, D).astype(np.float64)
    expected = matrix(flat - flat.mean(0), 8)
    np.testing.assert_allclose(prior.covariance.distance(z), length(z, expected), rtol=1e-4)


def test_a_references_measure_is_pooled_over_seeds(drawn):
    predictions = drawn.standard_normal((6, 2, *SHAPE)).astype(np.float32) + np.arange(2)[None, :, None, None, None]
    reference, z = Reference(predictions.astype(np.float32)), drawn.standard_normal((3, D)).astype(np.float32)
    flat = predictions.reshape(6, 2, D).astype(np.float64)
    expected = matrix((flat - flat.mean(0)).reshape(12, D), 10)  # a mean for each seed
    np.testing.assert_allclose(reference.covariance.distance(z), length(z, expected), rtol=1e-4)
    assert reference.part(1).covariance.distance(z) == pytest.approx(
        length(z, matrix(flat[:, 0] - flat[:, 0].mean(0), 5)), rel=1e-4
    )
