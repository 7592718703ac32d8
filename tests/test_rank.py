import numpy as np
import polars as pl
import pytest

from scanner.audit.calibrate import Calibration
from scanner.audit.rank import Rule, rank, sources
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
