import json
import math

import numpy as np
import polars as pl
import pytest

from scanner.audit.calibrate import (
    Calibration,
    null_needed,
    null_needed_for_fpr,
    q_values,
    reach,
    read,
    scan_id_of,
    write,
)
from scanner.audit.rank import Rule, rank
from scanner.errors import ScannerError

CANARIES = pl.DataFrame({"canary": ["a dog"], "s_v1": [0.25]}, schema_overrides={"s_v1": pl.Float32})


def prompts(values, name="s_v1"):
    n = len(values)
    ids = [f"{i:032x}" for i in range(n)]
    frame = pl.DataFrame({"prompt_id": ids, "text": ["x" * (i % 7 + 1) for i in range(n)], "n_rows": [1] * n})
    return frame.with_columns(pl.Series(name, values, pl.Float32), status=pl.lit("scored"))


def calibration(values):
    return Calibration.of("scan", "s_v1", prompts(values), CANARIES, {})


def test_p_values_count_the_null_at_or_above():
    found = calibration([4.0, 1.0, 2.0, 2.0]).p_values(pl.Series([0.0, 1.0, 1.5, 2.0, 3.0, 4.0, 5.0, None]))
    assert found.to_list() == [1.0, 1.0, 4 / 5, 4 / 5, 2 / 5, 2 / 5, 1 / 5, None]


def test_null_scores_that_are_not_finite_are_left_out():
    made = calibration([1.0, None, math.nan, math.inf, 2.0])
    assert made.null.tolist() == [1.0, 2.0]
    assert made.smallest_p == 1 / 3
    with pytest.raises(ScannerError, match="no null caption has s_v1: calibrate with what it needs"):
        calibration([None, math.nan])
    with pytest.raises(ScannerError, match="the calibration holds no 'x_v1'; it has s_v1"):
        Calibration.of("scan", "x_v1", prompts([1.0]), CANARIES, {})


def benjamini_hochberg(p):
    """q by the definition: for each p, the least p' * m / #{p'' <= p'} over p' >= p. Quadratic."""
    return [min(x * len(p) / (p <= x).sum() for x in p if x >= value) for value in p]


@pytest.mark.parametrize("n", [1, 10, 500])
def test_q_values_are_benjamini_hochbergs(n):
    p = np.sort(np.random.default_rng(n).integers(1, 40, n) / 40)  # with many ties
    distinct, counts = np.unique(p, return_counts=True)
    frame = pl.DataFrame({"p": distinct, "rank": counts.cumsum()})
    found = frame.select(q_values(pl.col("p"), pl.col("rank"))).to_series()
    np.testing.assert_allclose(np.repeat(found, counts), benjamini_hochberg(p), rtol=1e-15)


def test_known_q_values():
    """Benjamini and Hochberg (1995), section 3.2: 15 p-values, four rejected at .05, three by Bonferroni."""
    p = [1, 4, 19, 95, 201, 278, 298, 344, 459, 3240, 4262, 5719, 6528, 7590, 10000]
    q = pl.DataFrame({"p": p}).select(q_values(pl.col("p") / 10000, pl.int_range(1, 16))).to_series()
    assert (q <= 0.05).sum() == 4
    np.testing.assert_allclose(q[:4], [0.0015, 0.003, 0.0095, 0.035625])


@pytest.mark.parametrize(("n", "fpr"), [(999, 1e-3), (1000, 1e-3), (1999, 1e-3), (99, 0.05), (20, 0.9)])
def test_flags_at_an_fpr_are_the_scores_above_its_threshold(n, fpr):
    made = calibration(np.random.default_rng(0).permutation(n))
    data = prompts(np.arange(-1, n + 2) - 0.5)
    ranked = rank(data, Rule("s_v1", fpr=fpr), made)
    assert ranked["flagged"].equals(ranked.select(pl.col("s_v1") > made.threshold(fpr)).to_series().alias("flagged"))
    assert ranked["flagged"].equals((ranked["p_value"] <= fpr).alias("flagged"))
    assert ranked["flagged"].any()


def test_what_cannot_be_told_is_refused_with_the_number_needed():
    assert (null_needed_for_fpr(1e-3), null_needed_for_fpr(3e-3)) == (999, 333)  # 1/334 is the first below 0.003
    assert (null_needed(10**6, 100, 0.05), null_needed(100, 3, 0.05)) == (199_999, 666)
    wanted = "fpr 0.001 needs smaller: calibrate with 999 or more"
    with pytest.raises(ScannerError, match=f"998 null captions give p-values from 0.001 up, {wanted}"):
        calibration(np.arange(998)).threshold(1e-3)
    made = calibration(np.arange(18))
    with pytest.raises(
        ScannerError,
        match=r"18 null captions give p-values from 0.053 up, so fdr 0.05 can never flag: calibrate with 19 or more "
        r"\(1,999 to find 10 of 1,000 prompts\), or rank with top, quantile or threshold",
    ):
        rank(prompts(np.arange(1000)), Rule("s_v1", fdr=0.05), made)
    assert calibration(np.arange(19)).least_hits(7, 0.05) == 7  # all of them, or none
    assert calibration(np.arange(19)).threshold(1.0) == -math.inf
    assert reach(18) == "18 null captions: p-values from 0.053 up; too few for fdr 0.05, which needs 19 at the least"
    assert reach(19).endswith("p-values from 0.05 up; at fdr 0.05 they flag 1 of a dataset's prompts or more, or none")
    assert reach(1999) == (
        "1,999 null captions: p-values from 0.0005 up; "
        "at fdr 0.05 they flag 0.01 of a dataset's prompts or more, or none"
    )


@pytest.mark.parametrize(("n", "m", "fdr"), [(99, 50, 0.05), (199, 1000, 0.1), (1999, 1000, 0.05), (30, 47, 0.05)])
def test_fewer_hits_than_detectable_are_never_flagged_and_as_many_are(n, m, fdr):
    made = calibration(np.arange(n))
    least = made.least_hits(m, fdr)
    for hits, flagged in ((least, least), (least - 1, 0)):
        data = prompts([n + 1.0] * hits + [-1.0] * (m - hits))
        assert rank(data, Rule("s_v1", fdr=fdr), made)["flagged"].sum() == flagged


def test_decisions_are_the_same_in_any_order_and_never_of_a_missing_score():
    made = calibration(np.arange(99))
    values = [200.0, 200.0, None, math.nan, math.inf, 150.0, 3.0]
    data = prompts(values)
    ranked = rank(data, Rule("s_v1", fdr=0.1), made)
    assert ranked["prompt_id"].str.slice(-1).to_list() == ["0", "1", "5", "6", "2", "3", "4"]
    assert ranked["flagged"].to_list() == [True] * 3 + [False] * 4
    assert ranked["p_value"].to_list() == [0.01, 0.01, 0.01, 0.97, None, None, None]
    assert ranked["q_value"].to_list()[:4] == [4 * 0.01 / 3] * 3 + [0.97]
    assert ranked.equals(rank(data.sample(fraction=1.0, shuffle=True, seed=3), Rule("s_v1", fdr=0.1), made))


def test_a_decision_needs_the_right_calibration():
    with pytest.raises(ScannerError, match="fdr and fpr need a calibration"):
        rank(prompts([1.0]), Rule("s_v1", fdr=0.1))
    other = prompts([1.0]).rename({"s_v1": "r_v1"})
    with pytest.raises(ScannerError, match="a calibration of s_v1 cannot judge r_v1"):
        rank(other, Rule("r_v1", fpr=0.1), calibration(np.arange(9)))
    for bad in (0.0, 1.0, -1.0, math.nan):
        with pytest.raises(ScannerError, match="needed more than 0 and less than 1"):
            Rule("s_v1", fdr=bad)


def realised_fdp(rng, n, m, hits, fdr, draws):
    """False discovery proportion of each draw: benign scores and null are of one distribution, hits stand higher."""
    found = []
    for _ in range(draws):
        made = Calibration.of("scan", "s_v1", prompts(rng.standard_normal(n)), CANARIES, {})
        data = prompts(np.concatenate([rng.standard_normal(m - hits), rng.normal(3.5, 1, hits)]))
        flagged = rank(data, Rule("s_v1", fdr=fdr), made).filter("flagged")["prompt_id"]
        false = (flagged.str.to_integer(base=16, dtype=pl.Int128) < m - hits).sum()
        found.append(false / max(1, len(flagged)))
    return np.array(found)


@pytest.mark.parametrize(("hits", "fdr"), [(0, 0.1), (20, 0.05), (20, 0.2)])
def test_the_false_discovery_rate_is_held(hits, fdr):
    fdp = realised_fdp(np.random.default_rng(5), n=600, m=200, hits=hits, fdr=fdr, draws=400)
    error = fdp.std() / math.sqrt(len(fdp))
    assert fdp.mean() <= fdr * (1 - hits / 200) + 3 * error
    if hits:
        assert fdp.mean() > fdr / 3  # and not by flagging nothing


@pytest.fixture
def written(tmp_path):
    scores = prompts([3.0, 1.0, None, 2.0]).with_columns(t_v1=pl.Series([0.1, 0.2, 0.3, 0.4], dtype=pl.Float32))
    skipped = scores.with_columns(status=pl.lit("empty"), prompt_id=pl.lit("f" * 32))
    canaries = CANARIES.with_columns(t_v1=pl.lit(0.7, pl.Float32))
    path = tmp_path / "made" / "cal.parquet"
    n = write(path, "scan", pl.concat([scores, skipped]), ["s_v1", "t_v1"], canaries, {"inputs": ["x"]})
    assert (n, [file.name for file in path.parent.iterdir()]) == (4, ["cal.parquet"])
    return path


def test_one_file_holds_every_scores_null(written):
    s, t = read(written, "s_v1"), read(written, "t_v1")
    assert (s.scan_id, s.null.tolist()) == ("scan", [1.0, 2.0, 3.0])
    assert scan_id_of(written) == "scan"
    assert t.null.tolist() == pytest.approx([0.1, 0.2, 0.3, 0.4])
    assert t.canaries.rows() == [("a dog", pytest.approx(0.7))]
    assert s.prompts["characters"].to_list() == [1, 2, 4]
    assert s.source == {"captions": 4, "inputs": ["x"]}


def rewrite(path, head=None, **columns):
    found = json.loads(pl.read_parquet_metadata(path)["overscan_calibration"])
    metadata = {"overscan_calibration": json.dumps(found | (head or {}))}
    pl.read_parquet(path).with_columns(**columns).write_parquet(path, metadata=metadata)


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda path: path.unlink(), "no such file; `overscan calibrate NULL_INPUT... --out"),
        (lambda path: path.write_bytes(path.read_bytes()[:-100]), "damaged, or no calibration"),
        (lambda path: path.write_bytes(b""), "damaged, or no calibration"),
        (lambda path: path.write_text("{}"), "damaged, or no calibration"),
        (lambda path: pl.DataFrame({"x": [1]}).write_parquet(path), "not one that `overscan calibrate` wrote"),
        (lambda path: rewrite(path, {"format": 2}), "calibration format 2, this overscan reads 1"),
        (lambda path: rewrite(path, {"scan_id": "other"}), "damaged or edited"),
        (lambda path: rewrite(path, s_v1=pl.col("s_v1") + 1), "damaged or edited"),
        (lambda path: rewrite(path, prompt_id=pl.col("prompt_id").reverse()), "damaged or edited"),
    ],
)
def test_a_file_that_is_not_whole_or_not_ours_is_refused(written, harm, message):
    harm(written)
    with pytest.raises(ScannerError, match=message):
        read(written, "s_v1")


def test_the_order_of_what_a_file_says_of_itself_is_no_damage(written):
    found = json.loads(pl.read_parquet_metadata(written)["overscan_calibration"])
    turned = {"overscan_calibration": json.dumps(dict(reversed(found.items())))}
    pl.read_parquet(written).write_parquet(written, metadata=turned)
    assert read(written, "s_v1").null.tolist() == [1.0, 2.0, 3.0]


def test_captions_that_cannot_be_scored_calibrate_nothing(tmp_path):
    with pytest.raises(ScannerError, match="none of the null captions could be scored"):
        write(tmp_path / "c", "scan", prompts([1.0]).with_columns(status=pl.lit("empty")), ["s_v1"], CANARIES, {})
