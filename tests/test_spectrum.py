"""A covariance of latents from far fewer samples than elements."""

import numpy as np
import pytest

from scanner.diffusion.baselines import Covariance
from tools.ground_truth.spectrum import SHRINKAGES, Spectrum, shrinkage

GAINS = np.array([2.0, 1.0, 0.7, 0.5])[:, None, None]


def amplitude(side, slope):
    """[C, H, W], falling with frequency as in natural images, of mean square 1 before the gains."""
    f = np.fft.fftfreq(side) * side
    power = np.maximum(np.hypot(f[:, None], f), 1) ** -slope
    return GAINS * np.sqrt(power / power.mean())


def drawn(rng, n, side, slope=2.0):
    noise = np.fft.fft2(rng.standard_normal((n, 4, side, side)))
    return np.fft.ifft2(noise * amplitude(side, slope)).real


def flat(z):
    return z.reshape(len(z), -1).astype(np.float32)


def test_the_spectrum_is_that_of_the_draws():
    z = drawn(np.random.default_rng(0), 200, 16)
    found = Spectrum.of(z - z.mean(0), 199)
    f = np.fft.fftfreq(16) * 16
    inside = np.hypot(f[:, None], f) >= 1.5  # the band of the lowest frequencies is as wide as itself
    ratio = found.power / np.square(amplitude(16, 2.0))
    assert ratio[:, inside].mean() == pytest.approx(1, abs=0.1)
    np.testing.assert_allclose(np.square(found.whitened(z)).mean(), 1, atol=0.02)
    power = np.square(np.abs(np.fft.fft2(found.whitened(z - z.mean(0)), norm="ortho"))).sum(0) / 199
    np.testing.assert_allclose(power.mean((1, 2)), 1, atol=1e-3)


def test_whitening_is_a_filter_of_each_channel():
    spectrum = Spectrum(np.full((2, 4, 6), 4.0))
    z = np.random.default_rng(0).standard_normal((3, 5, 2, 4, 6)).astype(np.float32)
    np.testing.assert_allclose(spectrum.whitened(z), z / 2, rtol=1e-5, atol=1e-6)
    constant = Spectrum.of(np.ones((3, 2, 4, 6)), 2)
    assert np.isfinite(constant.whitened(z)).all()  # frequencies without power


@pytest.mark.parametrize("side", [8, 16, 64])  # 256, 1,024 and 16,384 elements
def test_fresh_draws_lie_where_the_model_says(side):
    """By the identity target they lie beyond, the samples far inside; the spectral target knows both and detects."""
    rng = np.random.default_rng(side)
    samples = drawn(rng, 64, side)
    mean = samples.mean(0)
    fresh, layouts, pictures = drawn(rng, 100, side), drawn(rng, 100, side, slope=4.0), drawn(rng, 100, side)
    spectrum = Spectrum.of(samples - mean, 63)
    whitened = flat(spectrum.whitened(samples - mean))
    by_spectrum = Covariance.of(whitened, 63, shrinkage(whitened))
    by_identity = Covariance.of(flat(samples - mean), 63)
    assert by_spectrum.distance(flat(spectrum.whitened(fresh - mean))).mean() == pytest.approx(1, abs=0.05)
    inside = by_identity.distance(flat(samples - mean)).mean() / by_identity.distance(flat(fresh - mean)).mean()
    assert inside < {8: 0.7, 16: 0.4, 64: 0.1}[side]

    def area(low, high):
        return (low[:, None] < high).mean()

    # captions that fix a layout move the estimate far, along what varies anyway; a picture's details move it less far
    detected = [spectrum.whitened(0.7 * layouts), spectrum.whitened(0.6 * pictures)]
    assert area(*(by_spectrum.distance(flat(z)) for z in detected)) > 0.99
    assert area(*(by_identity.distance(flat(z)) for z in (0.7 * layouts, 0.6 * pictures))) < 0.9


def test_shrinkage_follows_the_data():
    rng = np.random.default_rng(1)
    noise = rng.standard_normal((64, 300))
    assert shrinkage(noise) == SHRINKAGES[-1]  # nothing but the identity
    strong = noise + rng.standard_normal((64, 3)) @ rng.standard_normal((3, 300)) * 3
    assert shrinkage(strong) <= 0.8  # three directions that the identity does not know
    assert shrinkage(strong) == shrinkage(strong[::-1])


def test_leaving_one_out_is_what_it_says():
    """Against densities computed the long way."""
    rng = np.random.default_rng(2)
    x = rng.standard_normal((12, 5)) * [3, 2, 1, 1, 1]
    total = []
    for weight in SHRINKAGES:
        log = 0.0
        for i in range(12):
            others = np.delete(x, i, axis=0)
            covariance = (1 - weight) * np.cov(others.T) + weight * np.eye(5)
            z = x[i] - others.mean(0)
            log -= (z @ np.linalg.solve(covariance, z) + np.linalg.slogdet(covariance)[1]) / 2
        total.append(log)
    assert shrinkage(x) == SHRINKAGES[int(np.argmax(total))]
