"""Which scores a scan can have, and which it is ranked by where none is named."""

from dataclasses import replace

import polars as pl
import pytest
from reports import RECORD, stored_scan

from scanner.audit.choice import best, possible
from scanner.config import Base, Reference, ScanConfig
from scanner.diffusion.scores import SCORES, best_score, best_scores

FIRST_STEP = {name for name, score in SCORES.items() if score.steps == 1}
TOLD = {name for name, score in SCORES.items() if score.told}
OF_BASE = {name for name, score in SCORES.items() if score.needs == "base"}


@pytest.mark.parametrize(
    ("config", "reference", "lacking"),
    [
        (ScanConfig(seeds=(0, 1), first_steps=2, timesteps=(981, 201)), True, set()),
        (ScanConfig(seeds=(0, 1), first_steps=2, timesteps=(981,)), True, {"two_noise_v1"}),
        (ScanConfig(seeds=(0, 1), first_steps=2), True, TOLD),
        (ScanConfig(seeds=(0, 1), first_steps=2, guidance_scale=1), True, {"steadiness_v1"} | TOLD),
        (ScanConfig(seeds=(0, 1)), True, SCORES.keys() - FIRST_STEP | TOLD),
        (
            ScanConfig(seeds=(0, 1), first_steps=2),
            False,
            {name for name, score in SCORES.items() if score.needs == "reference"} | TOLD,
        ),
        (
            ScanConfig(seeds=(0,)),
            True,
            {name for name, score in SCORES.items() if score.seeds == 2} | (SCORES.keys() - FIRST_STEP) | TOLD,
        ),
    ],
)
def test_a_score_that_the_settings_do_not_allow_is_not_possible(config, reference, lacking):
    record = replace(RECORD, config=config, reference=Reference("r", "f") if reference else None)
    assert SCORES.keys() - set(possible(record)) == lacking | OF_BASE
    assert SCORES.keys() - set(possible(replace(record, base=Base("/base", "f")))) == lacking


def test_a_score_that_no_canary_has_is_not_possible():
    """Of a model whose path starts without signal; a run that did not know a score may have it today."""
    config = ScanConfig(seeds=(0, 1), first_steps=2)
    canaries = ({"canary": "a dog", "text_noise_norm_v1": None, "growth_v1": None, "agreement_v1": 0.5},
                {"canary": "mountains", "text_noise_norm_v1": None, "growth_v1": 1.0, "agreement_v1": 0.6})  # fmt: skip
    plain, without = (possible(replace(RECORD, config=config, canaries=held)) for held in ((), canaries))
    assert set(plain) - set(without) == {"text_noise_norm_v1"}


def scan_of(**scores):
    frame = pl.DataFrame({"prompt_id": ["a", "b"]}).with_columns(
        **{name: pl.Series(values, dtype=pl.Float32) for name, values in scores.items()}
    )
    return stored_scan(frame, pl.LazyFrame())


def test_the_best_is_one_that_most_prompts_have():
    measured, second = best_score(ScanConfig(), reference=False), "overestimation_prior_v1"
    assert best(scan_of(**{measured: [1.0, 2.0], second: [1.0, 2.0]})) == measured
    assert best(scan_of(**{measured: [1.0, None], second: [1.0, 2.0]})) == second
    assert best(scan_of(**{second: [1.0, 2.0]})) == second
    assert best(scan_of(**{measured: [None, None], second: [None, None]})) == measured
    assert best(scan_of()) == measured


def test_scores_that_a_scan_has_of_no_prompt_are_not_chosen():
    worse = best_scores(ScanConfig(), False)[1]
    assert best(scan_of(**{worse: [0.5, None]})) == worse  # the best has no column
    assert best(scan_of(**{best_score(ScanConfig(), False): [None, None], worse: [0.5, None]})) == worse
