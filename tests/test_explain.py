"""Explanations of the small model's captions: every number is one that the scorer, or a scan, gives for that text."""

import json
import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from small import BUNDLE
from test_cli import run

from scanner import Rule, rank, scan
from scanner.cli import cli, closer
from scanner.config import ScanConfig
from scanner.diffusion.scores import ABSOLUTE, RELATIVE
from scanner.errors import ScannerError
from scanner.evidence.edits import Caption
from scanner.evidence.explain import _search, explain, most, under, variants
from scanner.identity import prompt_id
from scanner.model import Model
from scanner.model.scorer import Scorer
from scanner.report import Beside, Look
from scanner.report.read import read_night

# memorized, as its labels say; with the word that names what is drawn
MEMORIZED = {
    "cityscape at dusk": "dusk",
    "whale on orange and red": "whale",
    "smiling face with sunglasses": "sunglasses",
    "necktie on black": "necktie",
    "helicopter on purple": "helicopter",
}
RATIO = "estimate_ratio_prior_v1"
ROUNDING = {"rtol": RELATIVE, "atol": ABSOLUTE}  # of another batch


@pytest.fixture(scope="module")
def scorer(bundle):
    return Model.of(bundle, ScanConfig(timesteps=())).scorer()


def direct(scorer, texts, score=RATIO):
    prompts = pl.DataFrame({"prompt_id": [str(i) for i in range(len(texts))], "text": texts})
    return scorer(prompts)[score].to_numpy()


def test_the_numbers_are_the_scorers(scorer):
    found = explain(scorer, list(MEMORIZED), RATIO, threshold=1.2)
    for item in found:
        words = item.text.split()
        without = [" ".join(words[:i] + words[i + 1 :]) for i in range(len(words))]
        expected = direct(scorer, [item.text, *without])
        np.testing.assert_allclose([item.score, *(word.score for word in item.words)], expected, **ROUNDING)
        assert [word.importance for word in item.words] == [item.score - word.score for word in item.words]
        assert item.edit.score < 1.2
        np.testing.assert_allclose(item.edit.score, direct(scorer, [item.edit.text])[0], **ROUNDING)
    table = variants(found)
    np.testing.assert_allclose(table["score"], direct(scorer, table["variant"].to_list()), **ROUNDING)
    assert set(table["prompt_id"]) == set(map(prompt_id, MEMORIZED))


def test_the_word_that_names_the_drawing_matters_most(scorer):
    for item in explain(scorer, list(MEMORIZED), RATIO):
        assert max(item.words, key=lambda word: word.importance).text == MEMORIZED[item.text]
        assert item.edit is None


@pytest.mark.parametrize(("threshold", "deleted"), [(1.6, (0,)), (1.2, (0, 2))])
def test_the_edit_is_the_smallest_by_exhaustion(scorer, threshold, deleted):
    (item,) = explain(scorer, ["whale on orange and red"], RATIO, threshold)
    assert (item.edit.deleted, item.edit.smallest) == (deleted, True)
    fewer = [variant for variant in item.tried if len(variant.deleted) < len(deleted)]
    assert not any(under(variant.score, threshold) for variant in fewer)
    assert sum(len(variant.deleted) == 1 for variant in item.tried) == 5


def searched(scorer, text, value, threshold):
    """What the search finds for scores made up for each set of deleted words."""
    search, asked = _search(Caption(scorer.denoiser.read, text), value, threshold), []
    while True:
        try:
            asked += next(search)
        except StopIteration as done:
            return done.value, asked


def test_a_pair_that_greed_misses_is_found(scorer):
    """Deleting word 0 helps most, and nothing with it suffices; words 1 and 2 without it do."""
    found, _ = searched(scorer, "a b c d", lambda gone: 1.5 if 0 in gone else 0.0 if {1, 2} <= gone else 2.0, 1.0)
    assert found == (frozenset({1, 2}), True)


def test_words_that_are_let_in_can_be_deleted_too(scorer):
    """The model reads fourteen of these words; the trigger is the fifteenth, once another is gone."""
    text = " ".join("abcdefghijklmnop")
    found, _ = searched(scorer, text, lambda gone: 0.0 if {0, 14} <= gone else 1.5 if 0 in gone else 2.0, 1.0)
    assert found == (frozenset({0, 14}), True)
    (reading,) = scorer.denoiser.read([text])
    assert len(reading.spans) == 14


def test_an_undefined_score_is_no_edit(scorer):
    found, asked = searched(scorer, "a b c", lambda gone: None if gone else 2.0, 1.0)
    assert found is None
    assert frozenset({0, 1, 2}) not in asked


def test_deep_edits_keep_no_word_deleted_in_vain(scorer):
    text = "no one under eighteen on black and brown please"
    (item,) = explain(scorer, [text], RATIO)
    floor = min(word.score for word in item.words)
    (item,) = explain(scorer, [text], RATIO, floor / 2)
    edit = item.edit
    assert len(edit.deleted) > 2
    words = text.split()
    for kept in edit.deleted:
        left = [word for i, word in enumerate(words) if i not in edit.deleted or i == kept]
        assert not under(direct(scorer, [" ".join(left)])[0], floor / 2)
    assert len(item.tried) <= 1 + len(words) + most(len(words))


def test_a_suggested_edit_is_not_flagged_by_a_scan(tmp_path, scorer):
    (item,) = explain(scorer, ["cityscape at dusk"], RATIO, threshold=2.1)
    (tmp_path / "p.txt").write_text(f"cityscape at dusk\n{item.edit.text}\n")
    result = scan(tmp_path / "p.txt", model=BUNDLE, store=tmp_path / "store", config=ScanConfig(timesteps=()))
    ranked = rank(result.scores, Rule(RATIO, threshold=2.1))
    assert ranked.select("text", "flagged").rows() == [("cityscape at dusk", True), ("cityscape at", False)]


def test_order_and_company_change_nothing(scorer):
    texts = [*MEMORIZED, "a caption nobody saw"]
    there, back = (explain(scorer, order, RATIO, 1.2) for order in (texts, texts[::-1]))
    for one, other in zip(there, back[::-1], strict=True):
        assert (one.text, one.edit and one.edit.deleted) == (other.text, other.edit and other.edit.deleted)
        np.testing.assert_allclose(
            [word.importance for word in one.words], [word.importance for word in other.words], atol=1e-3
        )


def test_words_beyond_the_tokenizers_length_cost_nothing(scorer):
    text = ("cityscape at dusk " * 556)[:10_000].strip()  # the model reads fourteen tokens
    announced = []
    (item,) = explain(scorer, [text], RATIO, announce=lambda *counts: announced.append(counts))
    read = sum(word.read for word in item.words)
    assert len(item.words) == len(text.split()) > 1600
    assert 0 < read <= 14
    assert announced == [(len({variant.text for variant in item.tried}), 0)]
    assert {(word.score, word.importance) for word in item.words[read:]} == {(item.score, 0.0)}
    without = " ".join(text.split()[:read] + text.split()[read + 1 :])
    np.testing.assert_allclose(direct(scorer, [without])[0], item.score, **ROUNDING)


def test_deleting_a_word_lets_later_ones_in(scorer):
    text = "the picture of a cityscape at dusk and of the picture of a cityscape at dusk"
    (item,) = explain(scorer, [text], RATIO, threshold=0.5)
    assert not item.words[-1].read
    expected = direct(scorer, [variant.text for variant in item.tried])
    np.testing.assert_allclose([variant.score for variant in item.tried], expected, **ROUNDING)


def test_what_is_one_to_the_model_is_scored_once(scorer, monkeypatch):
    scored = []
    original = Scorer.__call__
    monkeypatch.setattr(Scorer, "__call__", lambda self, frame: scored.extend(frame["text"]) or original(self, frame))
    (item,) = explain(scorer, ["dog dog  Dog"], RATIO)
    assert len(item.tried) == 4
    assert len(scored) == 2  # to this tokenizer capitals are small, and blanks one
    assert len({word.importance for word in item.words}) == 1


def test_a_caption_of_one_word_is_explained_by_tokens(scorer):
    (item,) = explain(scorer, ["badger"], RATIO, threshold=1.0)
    assert [word.text for word in item.words] == ["ba", "dger"]
    assert item.edit.text == "ba"
    (item,) = explain(scorer, ["a"], RATIO, threshold=-5.0)
    np.testing.assert_allclose(item.words[0].score, direct(scorer, [""])[0], **ROUNDING)
    assert item.edit is None  # an empty caption is no edit


@pytest.mark.parametrize("text", ["شجرة", "x" * 10_000, "🎄🎄", "\u200b"])
def test_words_of_any_script_and_length_are_whole_pieces_of_the_caption(scorer, text):
    (item,) = explain(scorer, [text], RATIO, threshold=-5.0)
    assert item.status == "scored"
    assert "".join(word.text for word in item.words) == text
    assert len(item.words) <= 14


def test_captions_that_cannot_be_scored_keep_their_place(scorer):
    found = explain(scorer, ["", "bad \ufffd bytes", "a cat", " a cat "], RATIO)
    assert [(item.text, item.status) for item in found] == [
        ("", "empty"), ("bad \ufffd bytes", "undecodable"), ("a cat", "scored"),
    ]  # fmt: skip


def test_refusals(bundle, scorer):
    with pytest.raises(ScannerError, match="no caption has steadiness_v1: give what it needs"):
        explain(scorer, ["a cat"], "steadiness_v1")
    with pytest.raises(ScannerError, match="threshold nan: needed a finite number"):
        explain(scorer, ["a cat"], RATIO, float("nan"))


@pytest.fixture(scope="module")
def reported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reported")
    (folder / "p.txt").write_text("\n".join([*MEMORIZED, "a caption nobody saw"]))
    run("scan", folder / "p.txt", "--model", BUNDLE, "--store", folder / "store")
    for name, options in (
        ("report", ["--top", 3]),
        ("redacted", ["--top", 3, "--redact"]),
        ("none", ["--threshold", 99]),
    ):
        _, err, code = run("report", "--store", folder / "store", "--out", folder / name, *options)
        assert code == 0, err
    return folder


def texts_of(item):
    return [variant["text"] for variant in item["tried"]]


def test_a_settings_file_can_ask(reported, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    ids = read_night(reported / "report").ranked.collect()["prompt_id"][2:4].to_list()
    settings = f'[explain]\nreport = "{reported / "report"}"\nmodel = "{BUNDLE}"\nids = {json.dumps(ids)}\n'
    (tmp_path / "overscan.toml").write_text(settings)
    out, err, code = run("explain", "--json")
    assert code == 0, err
    assert [item["prompt_id"] for item in json.loads(out)["captions"]] == ids


def test_the_page_says_what_the_command_takes_and_costs():
    page = (Path(__file__).parent.parent / "docs/explain.md").read_text()
    options = {option for command in cli.commands.values() for item in command.params for option in item.opts}
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", page)) <= options
    assert f"up to {most(1000)} variants more" in page
    assert [most(words) for words in (0, 1, 2, 3)] == [0, 0, 0, 3]


def test_a_reports_prompts_under_the_reports_threshold(reported):
    night = read_night(reported / "report")
    asked = ["explain", "--report", reported / "report", "--model", BUNDLE, "--out", reported / "variants.parquet"]
    out, err, code = run(*asked, "--json", "--top", 2)
    found = json.loads(out)
    assert code == 0
    assert (found["scan_id"], found["score"]) == (night.summary.scan_id, "low_noise_norm_v1")
    assert found["threshold"] == night.summary.lowest_flagged
    assert [item["text"] for item in found["captions"]] == night.ranked.collect()["text"].head(2).to_list()
    assert all(item["edit"]["score"] < found["threshold"] for item in found["captions"])
    table = pl.read_parquet(reported / "variants.parquet")
    assert len(table) == sum(len(item["tried"]) for item in found["captions"])
    assert table.filter(pl.col("deleted").list.len() == 0)["importance"].to_list() == [0.0, 0.0]
    once = len({text for item in found["captions"] for text in texts_of(item)})
    assert f"2 captions, {once} with each word left out: {2 * once} UNet passes" in err
    chosen = night.ranked.collect()["prompt_id"][4]
    out, _, code = run(*asked[:-2], "--json", "--ids", chosen[:8])
    assert [item["prompt_id"] for item in json.loads(out)["captions"]] == [chosen]
    out, _, code = run(*asked[:-2], "--json", "--prompt", "a b", "--ids", chosen)
    assert [item["prompt_id"] for item in json.loads(out)["captions"]] == [prompt_id("a b"), chosen]


def test_what_is_left_in_a_reports_folder_is_shown_when_it_is_made_again(reported):
    asked = ["explain", "--report", reported / "report", "--model", BUNDLE, "--top", 1, "--out"]
    assert closer.AGAIN in run(*asked, reported / "report")[1]
    assert closer.AGAIN not in run(*asked, reported / "alone")[1]
    _, err, code = run("report", "--store", reported / "store", "--out", reported / "report", "--top", 3)
    assert code == 0, err
    assert "Without the words struck through it is not flagged" in (reported / "report/report.html").read_text()


def test_the_next_command_is_none_that_was_done():
    pictures = ["report", "--verify", "6"]
    assert closer.following(None, "out", Beside(), pictures) == "overscan report --verify 6"
    seen = Beside(looks={"p": Look(words=(("a", True),))}, files={"verified.html": ""})
    assert closer.following(None, "out", seen, pictures) is None


def test_the_table_reads_without_colour(reported):
    asked = ["--prompt", "cityscape at dusk", "--threshold", 2.1, "--timesteps", "first"]
    out, _, code = run("explain", *asked, "--model", BUNDLE)
    assert code == 0
    out = re.sub(r"(?<=\.\d)\d\d\d", "", out)
    assert [line.rstrip() for line in out.splitlines()] == [
        "cityscape at dusk",
        "estimate_ratio_prior_v1 2.4, threshold 2.1",
        "importance  without it                        word",
        "   +0.0      2.4  █                     cityscape",
        "   +0.0      2.4  █                     at",
        "   +1.9      0.5  ████████████████████  dusk",
        "delete 1 of 3, no smaller deletion does: dusk",
        "then 0.5, not flagged: cityscape at",
        "",
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "needed --prompt or --report"),
        (["--prompt", "a", "--ids", "0"], "--ids needs --report"),
        (["--report", "report", "--seeds", 3], "the report is of scan_id "),
        (["--report", "redacted"], "the report is redacted"),
        (["--report", "report", "--ids", "0123abcdef"], "prompt_id '0123abcdef': 0 scored prompts of the report"),
        (["--report", "report", "--score", "agreement_v1"], "not by agreement_v1: name a --threshold for that"),
        (["--report", "store"], "not a whole report"),
        (["--prompt", "a", "--out", "a.csv"], "a.csv: a file in .csv; needed one of .parquet, .jsonl"),
        (["--prompt", "a b", "--score", "estimate_ratio_white_v1"], "no caption has estimate_ratio_white_v1"),
    ],
)
def test_the_command_refuses(reported, monkeypatch, arguments, message):
    monkeypatch.chdir(reported)
    out, err, code = run("explain", "--model", BUNDLE, *arguments)
    assert (code, out) == (2, "")
    assert message in err
