"""The scores by name: which of them a scan can have, and the best of these."""

import pytest

from scanner.config import ScanConfig
from scanner.diffusion.scores import SCORES, best_score, best_scores


@pytest.mark.parametrize(
    ("timesteps", "seeds", "reference", "expected"),
    [
        ((981, 201), 2, True, "estimate_ratio_white_v2"),
        ((901,), 2, True, "estimate_ratio_white_v2"),
        ((901,), 2, False, "estimate_ratio_prior_v2"),
        ((901,), 1, False, "overestimation_prior_v2"),
        ((701,), 2, True, "low_noise_norm_v1"),
        ((701,), 1, False, "low_noise_norm_v1"),
        ((), 1, False, "overestimation_prior_v1"),
    ],
)
def test_the_best_of_a_scan_that_names_its_timesteps_is_one_that_it_has(timesteps, seeds, reference, expected):
    config = ScanConfig(seeds=tuple(range(seeds)), timesteps=timesteps)
    assert best_score(config, reference) == expected


def test_what_is_ranked_by_unasked_needs_no_base_and_is_a_score():
    for config in (ScanConfig(), ScanConfig(timesteps=(901, 201))):
        found = best_scores(config, reference=True)
        assert found
        assert all(SCORES[name].needs != "base" for name in found)
