import polars as pl
import pytest

from scanner.demo import CAPTIONS, LABELS, run
from scanner.evidence.evaluate import evaluate


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    return run(tmp_path_factory.mktemp("demo"))


def test_labels_come_from_generation():
    labels = pl.read_parquet(LABELS)
    columns = [
        "prompt",
        "role",
        "duplicates",
        "copied_seeds",
        "similarity",
        "cross_seed_similarity",
        "collapsed",
        "label",
    ]
    assert set(columns) <= set(labels.columns)
    assert len(labels) >= 1500
    assert labels["prompt"].n_unique() == len(labels)
    assert set(pl.read_parquet(CAPTIONS)["caption"]) == set(labels["prompt"])
    fixed = labels.filter(role="fixed")
    assert set(fixed["duplicates"]) == {1, 2, 4, 6, 8, 12, 16, 64}
    assert fixed.filter(pl.col("duplicates") >= 16)["label"].mean() > 0.95
    assert fixed.filter(pl.col("duplicates") == 1)["label"].mean() < 0.05
    assert labels.filter(role="varied")["label"].mean() < 0.05


def test_the_demo_finds_memorized_captions(demo):
    assert demo.result.unique == len(pl.read_parquet(LABELS))
    assert demo.precision > 0.9
    assert demo.recall > 0.6
    assert demo.auroc > 0.98


def test_every_score_separates_at_the_first_step(demo):
    table = evaluate(
        demo.ranked, pl.read_parquet(LABELS), ["text_noise_norm_v1", "seed_independence_v1", "agreement_v1"]
    )
    assert table.filter(collapsed="left out")["auroc"].min() > 0.95


def test_the_report_joins_every_row(demo):
    rows = pl.read_parquet(CAPTIONS).with_row_index("row")
    flagged = demo.ranked.filter("flagged")
    assert flagged["n_rows"].sum() == len(rows.filter(pl.col("caption").is_in(flagged["text"].to_list())))
