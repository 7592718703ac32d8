import re

import polars as pl
import pytest

from scanner.dataset.captions import reference
from scanner.demo import CAPTIONS, LABELS, REFERENCE, RULE, run
from scanner.evidence.evaluate import COLLAPSED, NORM
from scanner.evidence.metrics import auroc
from tools import first_screen
from tools.first_screen import README


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
    assert set(fixed["duplicates"]) == {1, 2, 3, 4, 6, 8, 12, 16, 32, 64}
    assert fixed.filter(pl.col("duplicates") >= 16)["label"].mean() > 0.95
    assert fixed.filter(pl.col("duplicates") == 1)["label"].mean() < 0.005
    assert labels.filter(role="varied")["label"].sum() == 0


def test_the_demo_finds_memorized_captions(demo):
    assert demo.result.unique == len(pl.read_parquet(LABELS))
    assert demo.precision > 0.85
    assert demo.recall > 0.6
    assert demo.auroc > 0.98


def test_the_readmes_sample_is_what_a_report_of_the_demo_prints(demo):
    (shown,) = re.findall(r"```text\n(.*?)\n```", README.read_text(), re.DOTALL)
    printed = first_screen.sample(demo.result.store)
    number = re.compile(r"\d\.\d{4}")
    assert number.sub("S", printed) == number.sub("S", shown), "run tools/first_screen.py"
    scores = [list(map(float, number.findall(text))) for text in (printed, shown)]
    assert scores[0] == pytest.approx(scores[1], abs=2e-4)  # the last digit may differ among processors


def test_two_seeds_beat_the_literatures_score_at_equal_passes(demo):
    labels = pl.read_parquet(LABELS).select(text="prompt", label=COLLAPSED["left out"]).drop_nulls()
    judged = labels.join(demo.contents.ranked.collect(), on="text")
    ours, theirs = (auroc(judged[name].to_numpy(), judged["label"].to_numpy()) for name in (RULE.score, NORM))
    assert ours > 0.99
    assert ours > theirs


def test_the_literatures_score_works_where_captions_name_no_background(demo):
    labels = pl.read_parquet(LABELS).select(text="prompt", label=COLLAPSED["left out"]).drop_nulls()
    judged = labels.join(demo.contents.ranked.collect(), on="text").filter(~pl.col("text").str.contains(" on "))
    assert auroc(judged[NORM].to_numpy(), judged["label"].to_numpy()) > 0.97


def test_the_reference_holds_none_of_the_labelled_captions():
    ordinary = reference(REFERENCE)
    assert len(ordinary) == len(set(ordinary)) == 500
    assert not set(ordinary) & set(pl.read_parquet(LABELS)["prompt"])


def test_the_report_joins_every_row(demo):
    rows = pl.read_parquet(CAPTIONS).with_row_index("row")
    flagged = demo.contents.prompts
    assert flagged["n_rows"].sum() == len(rows.filter(pl.col("caption").is_in(flagged["text"].to_list())))
