"""The correlations of docs/severity.md, and which prompts they are of."""

import numpy as np
import polars as pl
import pytest

severity = pytest.importorskip("tools.severity")


def test_a_weight_is_so_many_copies():
    rng = np.random.default_rng(0)
    x = rng.standard_normal(30)
    y = x + rng.standard_normal(30)
    weights = rng.integers(0, 3, (4, 30))
    expected = [np.corrcoef(np.repeat(x, of), np.repeat(y, of))[0, 1] for of in weights]
    np.testing.assert_allclose(severity.pearson(x, y, weights), expected)


def test_a_monotonous_measure_has_spearman_one_and_an_interval():
    rng = np.random.default_rng(0)
    similarity = rng.random(40)
    found = pl.DataFrame({"similarity": similarity, "group": np.arange(40) // 2, "a": np.exp(5 * similarity)})
    pearson, spearman = severity.correlations(found, "a")
    assert spearman.value == pytest.approx(1)
    low, high = pearson.interval()
    assert low < pearson.value < high < 1


def test_a_smaller_sample_is_the_beginning_of_a_larger_one():
    labels = pl.DataFrame({"prompt": [str(i) for i in range(100)], "label": [i % 5 == 0 for i in range(99)] + [None]})
    few, more = severity.sample(labels, 6), severity.sample(labels, 12)
    assert few["label"].to_list() == [True, False] * 3
    assert more["prompt"].to_list()[:6] == few["prompt"].to_list()
    assert len(severity.sample(labels, 100)) == 20 + 50
