"""Prompts in order, from files: what a frame in memory gives, however scores are spread."""

import math

import numpy as np
import polars as pl
import pytest

from scanner.audit import order
from scanner.audit.calibrate import Calibration
from scanner.audit.rank import Rule, rank, ranked_in
from scanner.config import SCREENED_OUT

RULES = [
    Rule("s", **limit) for limit in ({"top": 40}, {"quantile": 0.9}, {"threshold": 0.5}, {"fpr": 0.2}, {"fdr": 0.5})
]
N = 1000


def prompts(spread, seed=0):
    """Prompts with scores that are all different, of a few values, one value, mostly screened out, or mostly absent."""
    random = np.random.default_rng(seed)
    scores = {
        "different": random.random(N),
        "few": random.integers(0, 3, N) / 2,
        "one": np.full(N, 0.75),
        "screened": np.where(random.random(N) < 0.9, np.nan, random.random(N)),
        "absent": np.where(random.random(N) < 0.9, np.nan, random.random(N)),
    }[spread]
    frame = pl.DataFrame({"prompt_id": [random.bytes(16).hex() for _ in range(N)], "s": scores.astype(np.float32)})
    left = SCREENED_OUT if spread == "screened" else "empty"
    return frame.with_columns(
        pl.col("s").fill_nan(None), text="text " + pl.col("prompt_id"), n_rows=pl.lit(1, pl.Int64),
        status=pl.when(pl.col("s").is_nan()).then(pl.lit(left)).otherwise(pl.lit("scored")),
        q1=pl.concat_list("s", "s"),
    ).with_columns(s=pl.when(pl.int_range(N) == 7).then(math.inf).otherwise("s").cast(pl.Float32))  # fmt: skip


def calibration():
    null = pl.DataFrame({"prompt_id": map(str, range(199)), "characters": [9] * 199, "s": np.arange(199) / 250})
    canaries = pl.DataFrame({"canary": ["a dog"], "s": [0.5]})
    return Calibration.of("scan", "s", null.with_columns(pl.col("s").cast(pl.Float32)), canaries, {})


SPREADS = ["different", "few", "one", "screened", "absent"]


@pytest.mark.parametrize(
    ("spread", "rule"),
    [*((spread, RULES[-1]) for spread in SPREADS), *(("few", rule) for rule in RULES[:-1])],
    ids=str,
)
def test_files_give_what_memory_gives(tmp_path, monkeypatch, spread, rule):
    """The same values in the same order, from parts of which none holds much more than it may."""
    monkeypatch.setattr(order, "ROWS", 50)
    given, null = prompts(spread), calibration()
    whole, streamed = (
        rank(given, rule, null),
        ranked_in(tmp_path, given.sample(fraction=1, shuffle=True).lazy(), rule, null),
    )
    assert streamed.collect().equals(whole)
    assert whole["flagged"].any()
    parts = [pl.read_parquet(file) for file in sorted(tmp_path.glob("ranked-*.parquet"))]
    assert len(parts) > 10
    assert max(map(len, parts)) < 150
    assert not any((tmp_path / "intervals").iterdir())


def test_a_small_scan_is_not_parted(tmp_path):
    assert ranked_in(tmp_path, prompts("different").lazy(), Rule("s", top=3)).collect()["flagged"].sum() == 3
    names = sorted(file.name for file in tmp_path.glob("ranked-*"))
    assert names == ["ranked-00000.parquet", "ranked-00001.parquet"]  # those that have a place, and the one without
