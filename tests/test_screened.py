"""What a screen loses, by a random sample."""

import numpy as np
import polars as pl
import pytest

from scanner import ScannerError
from scanner.audit.screened import Kept, in_words, kept
from scanner.config import Screen
from scanner.dataset.shards import Shard, sampled
from scanner.identity import identity
from scanner.store.record import Screening

SCREENING = Screening("full", "first", "model", "s_v1", 0.02, 1.5, sample=0.25)


def ids(n, kind=""):
    return pl.DataFrame({"prompt_id": [identity(f"{kind}{i}") for i in range(n)]})


def test_a_sample_is_a_share_of_every_shard_and_grows_by_adding():
    frame = ids(20_000)
    small, large = (set(frame.filter(sampled(share))["prompt_id"]) for share in (0.02, 0.05))
    assert (len(small) / 20_000, len(large) / 20_000) == (
        pytest.approx(0.02, abs=0.003),
        pytest.approx(0.05, abs=0.005),
    )
    assert small < large
    parts = [Shard(i, 4).of(frame.lazy()).filter(sampled(0.05)).collect().height for i in (1, 2, 3, 4)]
    assert sum(parts) == len(large)
    assert min(parts) > 0.8 * len(large) / 4
    assert frame.filter(sampled(0.0)).is_empty()


def test_what_is_kept_is_counted_among_the_flagged_prompts_of_the_sample():
    flagged = ids(400)
    inside = flagged.filter(sampled(0.25))["prompt_id"]
    first = [1.0 if i % 10 == 0 else 2.0 for i in range(len(inside))]  # a tenth is lost
    first[1], first[2] = None, float("nan")  # no score, and one that is not finite: refined by the scan
    scores = pl.LazyFrame({"prompt_id": inside, "s_v1": first}, schema_overrides={"s_v1": pl.Float32})
    others = flagged.filter(~sampled(0.25)).lazy().with_columns(s_v1=pl.lit(0.0, pl.Float32))  # prove nothing
    found = kept(flagged, pl.concat([scores, others, scores]), SCREENING)  # two scans at once
    lost = len(range(0, len(inside), 10))
    assert (found.flagged, found.kept) == (len(inside), len(inside) - lost)
    assert found.share == pytest.approx(1 - lost / len(inside))


@pytest.mark.parametrize(
    ("flagged", "kept_", "interval"),
    [(20, 20, (0.8389, 1.0)), (30, 28, (0.7868, 0.9815)), (50, 25, (0.3664, 0.6336))],  # Wilson, by hand
)
def test_the_interval_is_wilsons(flagged, kept_, interval):
    np.testing.assert_allclose(Kept(flagged, kept_).interval, interval, atol=1e-4)


def test_in_words():
    assert in_words(Kept(30, 28), 0.02) == (
        "the screen keeps 93.3 % of what all passes flag (95 % interval 78.7 to 98.2 %): 28 of 30 flagged ones among a "
        "random 2 % of the prompts"
    )
    assert in_words(Kept(1, 1), 0.02) == (
        "what the screen loses of the flags is unknown: 1 of a random 2 % of the prompts, which got all passes, is "
        "flagged; needed 20: raise --screen-sample"
    )
    assert Kept(19, 19).share is None


def test_a_sample_of_all_or_less_than_none_is_refused():
    for sample in (1.0, -0.1):
        with pytest.raises(ScannerError, match="screen sample"):
            Screen(0.02, sample=sample)


def test_the_samples_own_estimate_against_the_truth():
    """Over 200 draws of a dataset with 2,000 flags, of which the screen keeps 90 %: the interval holds it."""
    rng, held, shares = np.random.default_rng(0), 0, []
    for draw in range(200):
        flagged = ids(2_000, f"{draw} ")
        truth = rng.random(2_000) < 0.9
        first = flagged.lazy().with_columns(s_v1=pl.Series(np.where(truth, 2.0, 1.0)).cast(pl.Float32))
        found = kept(flagged, first, Screening("f", "1", "m", "s_v1", 0.02, 1.5, sample=0.05))
        assert found.share is not None
        low, high = found.interval
        held += low <= truth.mean() <= high
        shares.append(found.share)
    assert np.mean(shares) == pytest.approx(0.9, abs=0.01)
    assert held >= 184  # 190 of 200 expected, 3 its deviation
