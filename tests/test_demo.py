"""The demo: its files, what it finds, and the README's sample. Mostly on a part of its captions: all take minutes."""

import re
import sys
from pathlib import Path

import polars as pl
import pytest

from scanner import demo as demos
from scanner.cli.demo import _activated, _announced
from scanner.dataset.captions import reference
from scanner.demo import BUNDLE, CAPTIONS, LABELS, REFERENCE, RULE, run
from scanner.evidence.evaluate import COLLAPSED, NORM
from scanner.evidence.metrics import auroc
from tools import first_screen
from tools.first_screen import DOCS, README

ORDINARY = 800  # captions of the part, beside all that are memorized
GET_STARTED = DOCS / "get-started.md"
NUMBER = re.compile(r"\d\.\d{4}")


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """A demo of the memorized captions and as many of the others by chance as ORDINARY says, each with all its rows."""
    labels = pl.read_parquet(LABELS).drop_nulls("label")
    others = labels.filter(~pl.col("label")).sample(ORDINARY, seed=0)
    part = pl.concat([labels.filter("label"), others])["prompt"]
    folder = tmp_path_factory.mktemp("demo")
    pl.read_parquet(CAPTIONS).filter(pl.col("caption").is_in(part.to_list())).write_parquet(folder / "part.parquet")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(demos, "CAPTIONS", folder / "part.parquet")
        return run(folder / "demo")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return run(tmp_path_factory.mktemp("whole"))


def labelled(demo):
    """What was scored and decided, with `memorized`: collapsed captions left out."""
    labels = pl.read_parquet(LABELS).select(text="prompt", memorized=COLLAPSED["left out"]).drop_nulls()
    return labels.join(demo.contents.ranked.collect(), on="text")


def test_labels_come_from_generation():
    labels = pl.read_parquet(LABELS)
    assert labels["prompt"].n_unique() == len(labels) == 6930
    assert (labels["label"].sum(), labels["label"].null_count(), labels["collapsed"].sum()) == (455, 36, 542)
    assert labels.filter("label")["copied_seeds"].min() == 3
    assert labels.filter(~pl.col("label"))["copied_seeds"].max() == 0
    assert not labels.filter("collapsed")["label"].any()
    fixed = labels.filter(role="fixed").drop_nulls("label")
    assert set(fixed["duplicates"]) == {1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64}
    assert fixed.filter(pl.col("duplicates") >= 16)["label"].mean() > 0.9
    assert fixed.filter(pl.col("duplicates") == 1)["label"].mean() < 0.002
    assert labels.filter(role="varied")["label"].sum() == 0


def test_captions_come_as_often_as_the_training_shows_them():
    rows = pl.read_parquet(CAPTIONS)["caption"].value_counts()
    labels = pl.read_parquet(LABELS).join(rows, left_on="prompt", right_on="caption")
    assert len(labels) == len(rows) == 6930
    assert labels["count"].to_list() == labels["duplicates"].clip(1).to_list()


def test_the_reference_holds_none_of_the_labelled_captions():
    ordinary = reference(REFERENCE)
    assert len(ordinary) == len(set(ordinary)) == 500
    assert not set(map(str.lower, ordinary)) & set(pl.read_parquet(LABELS)["prompt"].str.to_lowercase())


def test_a_clone_can_carry_the_bundle():
    assert sum(file.stat().st_size for file in BUNDLE.iterdir()) < 40e6


def test_the_demo_finds_memorized_captions(demo):
    judged = labelled(demo)
    assert demo.result.unique == demo.memorized + ORDINARY == 455 + ORDINARY
    assert judged["memorized"].sum() == 455
    assert auroc(judged[RULE.score].to_numpy(), judged["memorized"].to_numpy()) > 0.95
    flagged = judged.filter("flagged")
    assert demo.confirmed == flagged["memorized"].sum()
    assert (
        demo.labelled == len(demo.contents.prompts) == demo.confirmed + demo.collapsed + (~flagged["memorized"]).sum()
    )
    assert demo.copies == (3, 4)


def test_what_is_scored_is_not_planned_again_and_pictures_have_a_price(demo, monkeypatch):
    folder = Path(demo.result.store).parent
    monkeypatch.setattr(demos, "CAPTIONS", folder.parent / "part.parquet")
    planned = demos.plan(folder)
    assert (planned.pending, planned.already_scored, planned.seconds) == (0, demo.result.unique, 0)
    said = _announced(planned, folder, 6)
    assert f"{demo.result.unique:,} of them are scored there already. Then the 6 highest findings are generated" in said
    assert re.search(r"That takes about [\d.]+ (s|min) here\.$", said)


def test_the_next_command_is_one_that_the_shell_finds(tmp_path, monkeypatch):
    (tmp_path / ".venv/bin").mkdir(parents=True)
    (tmp_path / ".venv/bin/activate").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "prefix", str(tmp_path / ".venv"))
    monkeypatch.setenv("PATH", "/nowhere")
    assert _activated() == "source .venv/bin/activate && "
    (tmp_path / ".venv/bin/overscan").touch(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / ".venv/bin"))
    assert _activated() == ""


def test_the_report_joins_every_row(demo):
    rows = pl.read_parquet(CAPTIONS)
    flagged = demo.contents.prompts
    assert flagged["n_rows"].sum() == len(rows.filter(pl.col("caption").is_in(flagged["text"].to_list())))


def test_the_readmes_sample_is_what_stands_out_most(demo):
    """A part's highest are those of all captions where these are in it; what is said of all is tested with all."""
    (shown,) = re.findall(r"```text\n(.*?)\n```", README.read_text(), re.DOTALL)
    agree(table(first_screen.sample(demo.result.store)), table(shown))


def table(text):
    """The lines below the two that count what was scored."""
    return text.split("\n", 2)[2]


def agree(printed, shown):
    assert NUMBER.sub("S", printed) == NUMBER.sub("S", shown), "run tools/first_screen.py"
    scores = [list(map(float, NUMBER.findall(text))) for text in (printed, shown)]
    assert scores[0] == pytest.approx(scores[1], abs=2e-4)  # the last digit may differ among processors


@pytest.mark.slow
def test_the_readmes_sample_is_what_a_report_of_the_demo_prints(whole):
    (shown,) = re.findall(r"```text\n(.*?)\n```", README.read_text(), re.DOTALL)
    agree(first_screen.sample(whole.result.store), shown)


@pytest.mark.slow
def test_the_demos_ending_is_what_its_labels_say(whole):
    assert whole.result.unique == 6930
    assert whole.memorized == 455
    judged = labelled(whole)
    assert judged[NORM].null_count() == len(judged)  # of the sampler's first timestep, which the demo does not tell
    theirs = first_screen.measured()["v-prediction"].filter(score=NORM, seeds=2, steps=1)["auroc"].item()
    assert auroc(judged[RULE.score].to_numpy(), judged["memorized"].to_numpy()) > theirs
    (said,) = re.findall(r"^> (.*\n> .*)$", GET_STARTED.read_text(), re.MULTILINE)
    found = (whole.confirmed, whole.labelled, whole.copies[0], whole.copies[1], whole.confirmed, whole.memorized,
             whole.labelled - whole.confirmed, whole.collapsed,
             len(whole.contents.prompts) - whole.labelled)  # fmt: skip
    assert list(map(int, re.findall(r"\d+", said))) == pytest.approx(found, abs=2)  # as processors round
