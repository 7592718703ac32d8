import numpy as np
import polars as pl
import pytest

from scanner.audit.calibrate import Calibration
from scanner.audit.rank import Rule, rank, sources
from scanner.config import SCREENED_OUT
from scanner.errors import ScannerError

SCORES = pl.DataFrame(
    {
        "prompt_id": ["d", "c", "b", "a", "e"],
        "text": ["four", "three", "two", "one", ""],
        "n_rows": [1, 2, 1, 1, 3],
        "status": ["scored"] * 4 + ["empty"],
        "s": [0.5, 0.9, 0.5, 0.1, None],
    },
    schema_overrides={"s": pl.Float32},
)


@pytest.mark.parametrize(
    ("rule", "flagged"),
    [
        (Rule("s", top=2), ["c", "b"]),  # b before d: equal scores go by id
        (Rule("s", top=99), ["c", "b", "d", "a"]),
        (Rule("s", threshold=0.5), ["c", "b", "d"]),
        (Rule("s", quantile=0.5), ["c", "b", "d"]),
        (Rule("s", quantile=1.0), ["c"]),
        (Rule("s", threshold=2), []),
    ],
)
def test_rules(rule, flagged):
    ranked = rank(SCORES, rule)
    assert ranked["prompt_id"].to_list() == ["c", "b", "d", "a", "e"]
    assert ranked["rank"].to_list() == [1, 2, 3, 4, None]
    assert ranked.filter("flagged")["prompt_id"].to_list() == flagged


def test_rules_refuse_nonsense():
    for bad in ({}, {"top": 1, "quantile": 0.5}, {"top": 0}, {"quantile": 2.0}, {"threshold": float("nan")}):
        with pytest.raises(ScannerError, match="needed"):
            Rule("s", **bad)
    with pytest.raises(ScannerError, match="score 'x' is not in the store; it has s"):
        rank(SCORES, Rule("x", top=1))
    with pytest.raises(ScannerError, match="no prompt has s: scan with what it needs"):
        rank(SCORES.with_columns(s=pl.lit(None, pl.Float32)), Rule("s", top=1))


def test_flagged_rows_are_every_row_that_bears_the_prompt():
    captions = pl.LazyFrame({"file": ["x", "x", "y"], "row": [0, 1, 7], "text": ["three", "one", "three"]})
    ranked = rank(SCORES, Rule("s", top=1))
    flagged = sources(ranked, captions)
    assert flagged.select("rank", "prompt_id", "file", "row").rows() == [(1, "c", "x", 0), (1, "c", "y", 7)]


def test_a_q_value_that_equals_the_rate_flags_though_its_last_digit_lies_above():
    """Three of six prompts above all of 39 null scores: q = (1/40)*6/3 = 0.05, in float64 0.05000000000000001."""
    null = pl.DataFrame({"prompt_id": [f"n{i}" for i in range(39)], "text": ["x"] * 39, "s": np.arange(39.0)})
    canaries = pl.DataFrame({"canary": ["a dog"], "s": [0.0]})
    calibration = Calibration.of("scan", "s", null, canaries, {})
    scores = pl.DataFrame({"prompt_id": list("abcdef"), "status": ["scored"] * 6, "s": [50.0] * 3 + [-1.0] * 3})
    ranked = rank(scores, Rule("s", fdr=0.05), calibration)
    assert ranked["q_value"][0] > 0.05
    assert ranked["flagged"].to_list() == [True] * 3 + [False] * 3


def some(scores, status=None):
    ids = list("abcdefgh")[: len(scores)]
    frame = pl.DataFrame({"prompt_id": ids, "text": ids, "s_v1": pl.Series(scores, dtype=pl.Float32)})
    return frame if status is None else frame.with_columns(status=pl.Series(status))


def test_quantiles_from_end_to_end():
    scores = some([0.1, 0.4, 0.2, None])
    assert rank(scores, Rule("s_v1", quantile=0.0))["flagged"].to_list() == [True, True, True, False]
    assert rank(scores, Rule("s_v1", quantile=1.0))["flagged"].to_list() == [True, False, False, False]


def test_prompts_that_were_screened_out_come_after_all_that_have_a_score():
    status = ["scored", SCREENED_OUT, "scored", SCREENED_OUT, "empty"]
    found = rank(some([-5.0, None, 0.5, None, None], status), Rule("s_v1", quantile=0.5))
    assert found.select("prompt_id", "rank", "flagged").rows() == [
        ("c", 1, True), ("a", 2, True), ("b", 3, False), ("d", 4, False), ("e", None, False),
    ]  # fmt: skip
    assert rank(some([-5.0, None, 0.5, None, None], status), Rule("s_v1", top=4))["flagged"].sum() == 2


def test_a_screen_may_leave_nothing_and_a_scan_may_not():
    nothing = some([None, None], [SCREENED_OUT, SCREENED_OUT])
    assert rank(nothing, Rule("s_v1", top=1))["flagged"].to_list() == [False, False]
    for status in (None, ["scored", SCREENED_OUT], ["empty", "null"]):
        with pytest.raises(ScannerError, match="no prompt has s_v1: scan with what it needs"):
            rank(some([None, None], status), Rule("s_v1", top=1))
