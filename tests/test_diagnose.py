import numpy as np
import polars as pl
import pytest

from scanner.audit.calibrate import Calibration
from scanner.audit.diagnose import (
    EngineChangedError,
    check_canaries,
    compare,
    exchangeability,
    kolmogorov_smirnov,
    warnings,
)

RNG = np.random.default_rng(0)


def prompts(values, text="ordinary"):
    n = len(values)
    frame = pl.DataFrame({"prompt_id": [f"{i:032x}" for i in range(n)], "text": [text] * n, "rank": range(1, n + 1)})
    return frame.with_columns(pl.Series("s_v1", values, pl.Float32))


def canaries(*values):
    frame = pl.DataFrame({"canary": [f"canary {i}" for i in range(len(values))], "s_v1": values})
    return frame.cast({"canary": pl.String, "s_v1": pl.Float32})


def calibration(values, text="ordinary"):
    return Calibration.of("scan", "s_v1", prompts(values, text), canaries(1.0, 2.0), {})


def test_kolmogorov_smirnov_by_hand():
    a, b = np.array([1.0, 2, 3, 4]), np.array([3.0, 4, 5, 6])
    assert kolmogorov_smirnov(a, b) == 0.5  # at 2: half of a, none of b; positive, as b is larger
    assert kolmogorov_smirnov(b, a) == -0.5
    assert kolmogorov_smirnov(a, b, up_to=1) == 0.25
    assert kolmogorov_smirnov(a, b, up_to=0) == 0.0
    assert kolmogorov_smirnov(a, a) == 0.0


def test_chance_explains_most_comparisons_of_equal_samples():
    beyond = 0
    for _ in range(300):
        found = compare(pl.Series(RNG.standard_normal(150)), pl.Series(RNG.standard_normal(100)))
        beyond += abs(found["distance"]) > found["chance"]
    assert beyond <= 9  # 1 % of 300, plus three of its standard errors


def test_a_tenth_of_memorized_prompts_is_no_sign_against_exchangeability():
    benign = RNG.standard_normal(3600)
    data = prompts(np.concatenate([benign, RNG.normal(6, 1, 400)]))
    checks = exchangeability(calibration(RNG.standard_normal(4000)), data.lazy())
    assert checks["check"].to_list() == ["bulk", "length"]
    assert 0.02 < checks["distance"][0] < 0.08  # half of a tenth
    assert warnings(checks) == []


@pytest.mark.parametrize(
    ("shift", "said"), [(0.5, "higher than the null captions"), (-0.5, "lower than the null captions")]
)
def test_a_null_of_another_kind_is_said(shift, said):
    checks = exchangeability(calibration(RNG.standard_normal(2000)), prompts(RNG.normal(shift, 1, 2000)).lazy())
    (warning,) = warnings(checks)
    assert f"ordinary prompts of this dataset score {said}" in warning
    assert ("more false alarms than asked" in warning) == (shift > 0)


@pytest.mark.parametrize(("share", "differs"), [(0.09, False), (0.1, False), (0.105, True)])
def test_a_distance_matters_from_a_tenth_up(share, differs):
    """Of so many that chance explains less, a share lies above all others."""
    before, n = np.zeros(100_000), round(share * 100_000)
    found = compare(pl.Series(before), pl.Series(np.concatenate([before[n:], np.ones(n)])))
    assert found["distance"] == pytest.approx(share)
    assert found["chance"] < 0.01
    assert found["differs"] == differs


def test_the_bulk_of_a_screened_scan_is_not_compared():
    """Not even where one prompt alone was screened out: the scores that are left are no sample."""
    data = prompts([*np.linspace(0, 1, 99), None])
    assert exchangeability(calibration(np.linspace(0, 1, 100)), data.lazy())["check"].to_list() == ["length"]


def test_length_matters_in_so_far_as_it_goes_with_the_score():
    null = prompts(np.linspace(0, 1, 100)).with_columns(text=pl.Series(["x" * i for i in range(1, 101)]))
    made = Calibration.of("scan", "s_v1", null, canaries(1.0, 2.0), {})
    checks = exchangeability(made, prompts(np.linspace(0, 1, 100)).lazy())
    assert checks["length_correlation"].to_list() == pytest.approx([1, 1])


def test_captions_of_another_length_are_said():
    scores = np.linspace(0, 1, 1000)
    (warning,) = warnings(exchangeability(calibration(scores), prompts(scores, text="a" * 30).lazy()))
    assert warning == (
        "captions have 30 characters here and 8 in the null (medians; distance 1.00, chance explains 0.07); length "
        "correlates 0.00 with the score"
    )


def test_canaries_tell_whether_the_engine_changed():
    made = calibration(np.linspace(0, 2, 101))  # interquartile range 1: 0.01 is allowed
    assert check_canaries(made, canaries(1.0, 2.0)) == 0
    assert check_canaries(made, canaries(1.005, 2.0)) == pytest.approx(0.005, rel=1e-4)
    with pytest.raises(
        EngineChangedError, match=r"the engine changed: s_v1 of a canary prompt differs by 0.02 .* 0.01"
    ):
        check_canaries(made, canaries(1.0, 1.98))
    assert check_canaries(made, canaries(1.0, 2.0099)) == pytest.approx(0.0099, rel=1e-3)
    with pytest.raises(EngineChangedError, match=r"differs by 0\.01"):
        check_canaries(made, canaries(1.0, 2.0102))
    with pytest.raises(EngineChangedError, match=r"allowed 0\.1 "):  # of a null ten times as wide
        check_canaries(calibration(np.linspace(0, 20, 101)), canaries(1.0, 2.15))
    assert check_canaries(calibration([1.0, 1.0]), canaries(1.0, 2.0)) == 0  # no width, no change
    nights = pl.concat([canaries(1.0, 2.0), canaries(1.0, 2.02), canaries(1.0, 2.0)])
    with pytest.raises(EngineChangedError, match=r"differs by 0.02"):  # one of the runs whose scores are judged
        check_canaries(made, nights)
    assert check_canaries(made, canaries(1.005)) == pytest.approx(0.005, rel=1e-4)  # of an overscan with fewer of them
    for tonight in (canaries(), canaries(1.0, None)):
        with pytest.raises(EngineChangedError, match="have not scored the same canary prompts"):
            check_canaries(made, tonight)
    assert EngineChangedError.exit_code == 4
