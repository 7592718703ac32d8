"""Norms, spreads and ratios by hand."""

import numpy as np
import pytest

from scanner.diffusion.baselines import Covariance
from scanner.diffusion.lengths import RESOLUTION, flat, measured_ratio, norm, ratio, spread

X = np.array([[[3, 4], [0, 0]], [[0, 5], [12, 0]]], np.float32)  # [B, S, d]: two prompts, two seeds


def test_a_norm_is_the_mean_length_over_seeds():
    np.testing.assert_array_equal(norm(X), np.array([2.5, 8.5], np.float32))


def test_a_spread_is_the_standard_deviation_over_seeds_of_all_elements_together():
    """Half the squared distance of two seeds: n - 1 is 1."""
    np.testing.assert_allclose(spread(X), np.sqrt([25 / 2, 169 / 2]), rtol=1e-6)
    three = np.array([[[0.0], [3.0], [6.0]]], np.float32)
    np.testing.assert_allclose(spread(three), [3])


def test_latents_become_vectors_in_order():
    latents = np.arange(2 * 3 * 4, dtype=np.float32).reshape(2, 3, 2, 1, 2)
    np.testing.assert_array_equal(flat(latents)[1, 2], [20, 21, 22, 23])


def test_a_ratio_is_undefined_where_nothing_is_below():
    found = ratio(np.array([1, 2, 0, 3], np.float32), np.array([2, 0, 0, -1], np.float32))
    np.testing.assert_array_equal(found, [0.5, np.nan, np.nan, np.nan])
    assert found.dtype == np.float32


@pytest.mark.parametrize("isotropic", [1.0, 4.0])
def test_a_measured_ratio_is_distance_over_spread(isotropic):
    """With C = v*I the measure cancels. Seeds 1 apart around 3 from the centre: log(3 / sqrt(2 * 0.5^2))."""
    estimate = np.zeros((1, 2, 1, 1, 4), np.float32)
    estimate[0, :, 0, 0, 0] = 1
    estimate[0, :, 0, 0, 1] = [2.5, 3.5]
    centre = np.zeros((1, 1, 4), np.float32)
    centre[0, 0, 0] = 1
    measure = Covariance(isotropic, np.zeros((1, 4), np.float32))

    def distance(z):
        return measure.distance(flat(z))

    np.testing.assert_allclose(measured_ratio(estimate, centre, distance), np.log(3 / np.sqrt(0.5)), rtol=1e-6)


def test_seeds_that_agree_wholly_give_a_ratio_that_float32_can_tell():
    estimate = np.ones((1, 2, 1, 1, 4), np.float32)
    found = measured_ratio(estimate, np.zeros((1, 1, 4), np.float32), lambda z: np.linalg.norm(flat(z), axis=-1))
    np.testing.assert_allclose(found, -np.log(RESOLUTION), rtol=1e-6)
