"""`overscan evaluate`, on hand-made scores and on a few prompts of the small real model."""

import io
import json
import re
import signal
import subprocess
import sys
import time
from xml.etree import ElementTree

import numpy as np
import polars as pl
import pytest
from small import BUNDLE
from test_cli import run

from scanner.dataset import captions
from scanner.diffusion.scores import SCORES
from scanner.errors import InputError, Interrupted, ScannerError
from scanner.evidence import kept
from scanner.evidence.evaluate import NORM, Setting, evaluate, score, settings
from scanner.evidence.kept import FOLDER
from scanner.evidence.labels import of_lists, read_labels
from scanner.evidence.peers import PEERS
from scanner.model import Model

LABELS = pl.DataFrame(
    {
        "prompt": list("abcdef"),
        "label": [True, True, False, False, None, False],
        "collapsed": [False, False, True, False, True, False],
        "cluster": list("aacdef"),
        "similarity": [0.9, 0.8, 0.7, 0.1, 0.5, None],
    }
)


def test_settings_cost_what_their_passes_say():
    found = settings()
    assert {setting.score for setting in found} == set(SCORES)
    assert [s.seeds for s in found if s.score == "agreement_v1"] == [2, 4, 8]
    assert [(s.seeds, s.steps, s.passes) for s in found if s.score == "text_noise_norm_steps_v1"] == [
        (1, 2, 3), (1, 3, 5), (1, 5, 9), (2, 2, 6), (2, 3, 10), (2, 5, 18),
    ]  # fmt: skip
    assert {s.steps for s in found if s.score == "steadiness_v1"} == {2}
    assert [(s.seeds, s.passes) for s in found if s.score == "two_noise_v1"] == [(1, 2), (2, 4), (4, 8), (8, 16)]
    assert [s.passes for s in found if s.score == "low_noise_norm_v1"] == [1, 2, 4, 8]


def test_collapsed_prompts_are_counted_three_ways():
    values = np.array([0.7, 0.8, 0.9, 0.1, 0.85, 0.2])
    found = evaluate({Setting(NORM, 1, 1): values}, LABELS)
    assert found.detection.select("collapsed", "positives", "negatives", "auroc").rows() == [
        ("negative", 2, 3, pytest.approx(4 / 6)),
        ("left out", 2, 2, 1.0),
        ("positive", 4, 2, 1.0),
    ]
    row = found.detection.row(0, named=True)
    ranks = pl.DataFrame({"score": [2, 3, 5, 1, 4], "similarity": [5, 4, 3, 1, 2]})
    assert row["spearman"] == pytest.approx(ranks.select(pl.corr("score", "similarity")).item())
    assert found.differences["auroc"].to_list() == [0, 0, 0]
    assert found.detection["collapsed_at_0.01"].to_list() == [None, 1.0, None]  # .9 and .85 are above .2


def test_a_score_is_compared_with_the_norm_of_equal_passes():
    base = {Setting(NORM, n, 1): np.array([0.0, 0, 0, 0, 0, 0]) + n * np.arange(6) for n in range(1, 9)}
    best = np.array([1.0, 1, 0, 0, 0, 0])
    wrong = {Setting(NORM, 3, 1): -base[Setting(NORM, 3, 1)]}  # of three passes, the cost of one seed, two steps
    found = evaluate(base | wrong | {Setting("steadiness_v1", 1, 2): best}, LABELS)
    row = found.differences.filter(score="steadiness_v1", collapsed="left out").row(0, named=True)
    assert (row["passes"], row["auroc"]) == (3, 0.0)  # that norm is right too; the others are all wrong


@pytest.mark.parametrize("worst", [np.nan, np.inf])
def test_prompts_without_a_norm_are_counted(worst):
    scores = {Setting(NORM, n, 1): np.arange(6.0) for n in range(1, 9)}
    scores[Setting(NORM, 4, 1)] = np.array([0.0, worst, 0.0, worst, 0.0, 0.0])
    with pytest.raises(ScannerError, match=rf"{NORM} is not finite for 2 of 6 prompts \('b' first\)"):
        evaluate(scores | {Setting("steadiness_v1", 1, 2): np.arange(6.0)}, LABELS)
    with pytest.raises(ScannerError, match="is not finite for 6 of 6 prompts"):
        evaluate({setting: np.full(6, worst) for setting in scores}, LABELS)


def test_labelled_prompts_are_those_that_a_scan_gives_the_model(tmp_path):
    pl.DataFrame({"prompt": [" a cafe\u0301\t", "b"], "label": [True, False]}).write_parquet(tmp_path / "l.parquet")
    (tmp_path / "p.txt").write_text(" a cafe\u0301\t\nb\n")
    labels = read_labels(tmp_path / "l.parquet")
    assert labels["prompt"].to_list() == ["a caf\u00e9", "b"]
    assert labels["prompt"].to_list() == captions.read([tmp_path / "p.txt"]).collect()["text"].to_list()
    pl.DataFrame({"prompt": ["b ", "b"], "label": [True, False]}).write_parquet(tmp_path / "l.parquet")
    with pytest.raises(InputError, match="appear twice"):
        read_labels(tmp_path / "l.parquet")


def test_labels_of_every_format(tmp_path):
    LABELS.write_parquet(tmp_path / "l.parquet")
    LABELS.write_csv(tmp_path / "l.csv")
    LABELS.select("prompt", "label").write_ndjson(tmp_path / "l.jsonl")
    assert read_labels(tmp_path / "l.parquet").equals(LABELS)
    assert read_labels(tmp_path / "l.csv").equals(LABELS)
    plain = read_labels(tmp_path / "l.jsonl")
    assert plain["cluster"].to_list() == list("abcdef")
    assert (plain["collapsed"].any(), plain["similarity"].null_count()) == (False, 6)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("l.txt", "a\n", "labels in .txt; needed one of .parquet, .csv, .jsonl"),
        ("l.csv", "text,label\na,true\n", "needed prompt and label"),
        ("l.csv", "prompt,label\na,maybe\n", "needed prompt and label"),
        ("l.csv", "prompt,label\na,true\na,false\n", "appear twice"),
        ("l.csv", "", "needed prompt and label"),
        ("none.csv", None, "no labelled list"),
    ],
)
def test_bad_labels_are_refused(tmp_path, name, text, message):
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=message):
        read_labels(tmp_path / name)


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluated")
    prompts = [f"caption number {i}" for i in range(12)]
    labels = pl.DataFrame(
        {"prompt": prompts, "label": [True] * 4 + [False] * 8, "similarity": [i / 12 for i in range(12)]}
    )
    labels.write_csv(folder / "labels.csv")
    (folder / "reference.txt").write_text("\n".join(f"an ordinary caption, {i}" for i in range(20)))
    arguments = ["evaluate", folder / "labels.csv", "--model", BUNDLE, "--out", folder / "out"]
    return folder, run(*arguments, "--reference", folder / "reference.txt")


def test_evaluate_writes_tables_and_plots(evaluated):
    folder, (out, err, code) = evaluated
    assert code == 0, err
    out_folder = folder / "out"
    assert sorted(path.name for path in out_folder.iterdir()) == [
        "detection.json", "detection.md", "detection.parquet", "differences.parquet", "evaluation.html", "roc.svg",
        "severity.svg",
    ]  # fmt: skip
    assert (out_folder / "detection.md").read_text() == out
    table = pl.read_parquet(out_folder / "detection.parquet")
    assert set(table["score"]) == {name for name, by in SCORES.items() if by.told < 2 and by.needs != "base"}
    at_most = pl.all_horizontal(pl.col("auroc_low") <= pl.col("auroc"), pl.col("auroc") <= pl.col("auroc_high"))
    assert table.select(at_most.all()).item()
    told = json.loads((out_folder / "detection.json").read_text())
    assert told["detection"][0]["auroc"] == table["auroc"][0]
    page = (out_folder / "evaluation.html").read_text()
    assert page.count("<svg") == 2
    assert not re.findall(r'(?:href|src)="', page)
    best = table["tpr_at_0.01"].max()
    assert f"<h1>{best:.0%} of the memorized captions are found at 1% false alarms</h1>" in page
    for name in ("roc.svg", "severity.svg"):
        assert ElementTree.parse(out_folder / name).getroot().tag.endswith("svg")


@pytest.mark.parametrize(
    ("given", "drawn"),
    [
        ([], "low_noise_norm_v1"),
        (["--timesteps", "first"], "estimate_ratio_prior_v1"),
        (["--timesteps", "first", "--reference", "reference.txt"], "estimate_ratio_white_v1"),
    ],
)
def test_what_a_scan_ranks_by_is_drawn_against_severity(evaluated, monkeypatch, given, drawn):
    monkeypatch.chdir(evaluated[0])
    assert run("evaluate", "labels.csv", "--model", BUNDLE, "--out", drawn, *given)[2] == 0
    assert f">bundle: {drawn}, 2 seeds</text>" in (evaluated[0] / drawn / "severity.svg").read_text()


def test_evaluate_prints_a_markdown_table(evaluated):
    _, (out, _, _) = evaluated
    lines = out.splitlines()
    assert lines[0] == "### 4 memorized, 8 not"
    assert lines[2] == (
        "| score | seeds | steps | passes | AUROC | TPR at 5.0% FPR | TPR at 1.0% FPR | TPR at 0.1% FPR | Pearson "
        "| Spearman |"
    )
    number, interval = r"-?\d\.\d+", r"\(\d\.\d+-\d\.\d+\)"
    row = rf"\| `\w+_v[12]` \| \d \| \d \| \d+ (\| {number} {interval} ){{4}}\| {number} \| {number} \|"
    measured = [by for by in (SCORES[setting.score] for setting in settings()) if by.told < 2 and by.needs != "base"]
    count = len(measured)  # neither two timesteps nor a base are named
    rows = lines[4 : 4 + count]
    assert all(re.fullmatch(row, line) for line in rows), rows
    assert lines[4 + count + 1] == f"### Difference from `{NORM}` at equal passes"


def test_evaluate_agrees_with_a_scan(evaluated):
    """The sub-selected traces give the scores that a scan with so many seeds and steps stores."""
    from scanner import ScanConfig

    prompts = [f"caption number {i}" for i in range(3)]
    reference = tuple(f"an ordinary caption, {i}" for i in range(20))
    model = Model(BUNDLE, reference=reference, config=ScanConfig(timesteps=()))
    scored = score(model, prompts)
    frame = pl.DataFrame({"prompt_id": prompts, "text": prompts})
    for seeds, steps in ((2, 1), (1, 3)):
        config = ScanConfig(seeds=tuple(range(seeds)), first_steps=steps, timesteps=())
        scan = model.adapted(config=config).scorer()(frame)
        compared = [setting for setting in scored if (setting.seeds, setting.steps) == (seeds, steps)]
        assert len(compared) >= 2
        for setting in compared:
            np.testing.assert_allclose(scored[setting], scan[setting.score], rtol=1e-3, err_msg=str(setting))


def test_evaluate_of_named_timesteps_agrees_with_a_scan():
    """What is of the sampler's own first timestep stays that; the rest is of those that are named."""
    from scanner import ScanConfig

    prompts = [f"caption number {i}" for i in range(3)]
    frame = pl.DataFrame({"prompt_id": prompts, "text": prompts})
    model = Model(BUNDLE, config=ScanConfig(timesteps=(901, 201)))
    scored, scan = score(model, prompts), model.scorer()(frame)
    own = model.adapted(config=ScanConfig(timesteps=())).scorer()(frame)
    for name in ("low_noise_norm_v1", "two_noise_v1", "estimate_ratio_prior_v2"):
        np.testing.assert_allclose(scored[Setting(name, 2, 1)], scan[name], rtol=1e-3, err_msg=name)
    assert scan[NORM].null_count() == 3
    np.testing.assert_allclose(scored[Setting(NORM, 2, 1)], own[NORM], rtol=1e-3)


@pytest.mark.slow
def test_a_killed_evaluation_goes_on_and_ends_as_an_undisturbed_one(tmp_path):
    """Also with a damaged file, whose prompts are computed again; nothing but the results stays."""
    prompts = [f"caption number {i}" for i in range(101)]
    pl.DataFrame({"prompt": prompts, "label": [i % 3 == 0 for i in range(len(prompts))]}).write_csv(tmp_path / "l.csv")
    arguments = ["evaluate", tmp_path / "l.csv", "--model", BUNDLE, "--backend", "cpu", "--batch-size", "32"]
    out, err, code = run(*arguments, "--out", tmp_path / "whole")
    assert code == 0, err
    often = "from scanner.evidence import kept; kept.SECONDS = 0.2; from scanner.cli import main; main()"
    command = [sys.executable, "-c", often, *map(str, arguments), "--out", str(tmp_path / "killed")]
    held = tmp_path / "killed" / FOLDER
    for signal_, code in ((signal.SIGKILL, -9), (signal.SIGTERM, 3)):
        process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
        before = len(list(held.glob("*.array")))
        while len(list(held.glob("*.array"))) == before:
            assert process.poll() is None, process.communicate()
            time.sleep(0.01)
        process.send_signal(signal_)
        _, err = process.communicate(timeout=120)
        assert process.returncode == code, err
    said = re.search(r"interrupted: what was computed is kept \((\d+) of 101 prompts\); the same command", err)
    assert said, err
    assert int(said[1]) == sum(len(np.load(io.BytesIO(path.read_bytes()[32:]))) for path in held.glob("*.array"))
    first = next(held.glob("*-0.array"))
    first.write_bytes(first.read_bytes()[:-1] + b"x")
    assert len(list(held.glob("*.array"))) >= 2
    again, err, code = run(*arguments, "--out", tmp_path / "killed")
    assert (code, again) == (0, out), err
    files = sorted(path.name for path in (tmp_path / "whole").iterdir())
    assert sorted(path.name for path in (tmp_path / "killed").iterdir()) == files
    for name in files:
        same = (tmp_path / "whole" / name).read_bytes() == (tmp_path / "killed" / name).read_bytes()
        assert same or (
            name.endswith(".parquet")
            and pl.read_parquet(tmp_path / "whole" / name).equals(pl.read_parquet(tmp_path / "killed" / name))
        ), name


def test_what_a_kill_costs_follows_time_and_the_scores_do_not(tmp_path, monkeypatch):
    """A trace has a batch of prompts, and takes 9 seconds here: two of them are kept at a time."""
    prompts = [f"caption number {i}" for i in range(7)]
    model = Model(BUNDLE, "cpu", batch_size=9)  # one prompt of 8 seeds
    whole = score(model, prompts)
    clock, heard = iter(range(0, 10_000, 9)), []
    monkeypatch.setattr(kept.time, "monotonic", lambda: float(next(clock)))
    with pytest.raises(Interrupted, match=r"what was computed is kept \(5 of 7 prompts\)"):
        score(model, prompts, lambda *it: heard.append(it), lambda: ("evaluate", 4, 7) in heard, tmp_path)
    held = {int(path.stem.rpartition("-")[2]): path for path in (tmp_path / FOLDER).iterdir()}
    assert sorted(held) == [0, 2, 4]
    held[2].unlink()
    stamps = {path: path.stat().st_mtime_ns for path in (held[0], held[4])}
    again = score(model, prompts, folder=tmp_path)
    assert all(np.array_equal(whole[setting], again[setting]) for setting in whole)
    assert stamps == {path: path.stat().st_mtime_ns for path in stamps}


def test_kept_scores_are_of_one_model_and_one_list_of_prompts(tmp_path):
    computed = []

    def values(prompts, **model):
        return score(Model(BUNDLE, "cpu", batch_size=32, **model), prompts, folder=tmp_path,
                     watch=lambda what, *_: computed.append(what))  # fmt: skip

    first = values(["a", "b"])
    held = sorted((tmp_path / FOLDER).iterdir())
    assert len(held) == 1
    again = values(["a", "b"])
    assert all(np.array_equal(first[setting], again[setting]) for setting in first)
    assert sorted((tmp_path / FOLDER).iterdir()) == held
    values(["b", "a"])
    values(["a", "b"], reference=("one", "two", "three"))
    assert len(list((tmp_path / FOLDER).iterdir())) == 3


def test_two_lists_are_a_labelled_one(tmp_path):
    (tmp_path / "memorized.csv").write_text("Caption;URL\na kite;u\na bell;u\na kite;v\n")
    (tmp_path / "ordinary.txt").write_text("a dog \n\na cat\n")
    labels = of_lists([tmp_path / "memorized.csv"], [tmp_path / "ordinary.txt"])
    assert labels.select("prompt", "label", "cluster").rows() == [
        ("a kite", True, "a kite"), ("a bell", True, "a bell"), ("a dog", False, "a dog"), ("a cat", False, "a cat"),
    ]  # fmt: skip
    assert (labels["collapsed"].any(), labels["similarity"].null_count()) == (False, 4)
    (tmp_path / "ordinary.txt").write_text("a dog\na bell\n")
    with pytest.raises(InputError, match=r"1 prompts are among .*\('a bell' first\): give each one label"):
        of_lists([tmp_path / "memorized.csv"], [tmp_path / "ordinary.txt"])


def test_labels_or_two_lists_are_needed(tmp_path):
    (tmp_path / "l.txt").write_text("a dog\n")
    for given in ([], ["--memorized", tmp_path / "l.txt"], ["--ordinary", tmp_path / "l.txt"]):
        out, err, code = run("evaluate", *given, "--model", BUNDLE, "--out", tmp_path / "out")
        assert (out, code) == ("", 2)
        assert "needed LABELS, or both --memorized and --ordinary" in err


def test_the_literature_is_measured_beside_our_scores(tmp_path):
    (tmp_path / "memorized.jsonl").write_text("".join(f'{{"caption": "a caption {i}"}}\n' for i in range(4)))
    (tmp_path / "ordinary.txt").write_text("".join(f"an ordinary thing, {i}\n" for i in range(6)))
    lists = ["--memorized", tmp_path / "memorized.jsonl", "--ordinary", tmp_path / "ordinary.txt"]
    arguments = ["evaluate", *lists, "--model", BUNDLE, "--backend", "cpu", "--out", tmp_path / "out", "--peers"]
    out, err, code = run(*arguments)
    assert code == 0, err
    table = pl.read_parquet(tmp_path / "out/peers.parquet").filter(collapsed="negative")
    missing = {"seeds' SSIM"}  # the small model's latents are smaller than SSIM's window
    assert set(table["detector"]) - set(PEERS) == {
        "caption length in tokens", "embedding length", "embedding length, whitened", "ridge probe on the embedding",
    }  # fmt: skip
    assert set(PEERS) - set(table["detector"]) == missing
    by_name = {row["detector"]: row for row in table.iter_rows(named=True)}
    detection = pl.read_parquet(tmp_path / "out/detection.parquet").filter(collapsed="negative")
    ours = detection.filter(score=NORM, seeds=1).row(0, named=True)
    assert by_name["Wen"]["auroc"] == ours["auroc"]
    assert (by_name["Wen"]["passes"], by_name["Wen"]["our_seeds"], by_name["Wen, 5 steps"]["our_seeds"]) == (1, 1, 2)
    best = detection.filter(score=by_name["Wen"]["ours"], seeds=1).row(0, named=True)
    assert by_name["Wen"]["more_auroc"] == pytest.approx(best["auroc"] - ours["auroc"])
    assert (by_name["Broken Memories"]["positives"], by_name["Broken Memories"]["negatives"]) == (4, 3)
    assert out.count("| Asthana | 2 | 4 / 6 |") == 1
    assert json.loads((tmp_path / "out/detection.json").read_text())["peers"][0]["detector"] == "Wen"
