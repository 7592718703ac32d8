"""Scans that spend all passes only on prompts that stand out after one."""

import json
from dataclasses import asdict, replace

import numpy as np
import polars as pl
import pytest
from small import BUNDLE, CAPTIONS, CHECKPOINTS
from stores import by_id
from test_cli import run
from test_end_to_end import FIRST_STEP, PROMPTS

from engines import BACKENDS
from scanner import Rule, ScanConfig, ScannerError, rank, read_store, scan
from scanner.audit.calibrate import Calibration
from scanner.config import Screen
from scanner.dataset import captions
from scanner.dataset.shards import sampled
from scanner.diffusion.scores import ABSOLUTE, RELATIVE
from scanner.errors import Interrupted, StoreError
from scanner.identity import prompt_id
from scanner.model import Model
from scanner.scanning import execute
from scanner.scanning.dry_run import dry_run
from scanner.scanning.screen import screened_out
from scanner.store.ledger import Ledger
from scanner.store.record import Screening

SHARE, CONFIG = 0.1, ScanConfig(seeds=(0, 1, 2))
FIRST = ScanConfig(seeds=(0,))
MORE = pl.read_parquet(CAPTIONS)["caption"].unique(maintain_order=True)[:90]
SCORE = "low_noise_norm_v1"


def screened(path, store, **asked):
    given = {"model": BUNDLE, "config": CONFIG, "screen": Screen(SHARE)} | asked
    return scan(path, store=store, **given)


def write(path, prompts):
    path.write_text("\n".join(prompts))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Sixty captions; `full`: a store of their unscreened scan, `store`: of a screened one. Tests only read them."""
    folder = tmp_path_factory.mktemp("screening")
    write(folder / "p.txt", PROMPTS)
    scan(folder / "p.txt", model=BUNDLE, store=folder / "full", config=CONFIG)
    screened(folder / "p.txt", folder / "store")
    return folder


def assert_refined_rows_are_those_of(full, found):
    refined = found.filter(status="scored")
    expected = full.filter(pl.col("prompt_id").is_in(refined["prompt_id"].implode()))
    assert refined["prompt_id"].to_list() == expected["prompt_id"].to_list()
    for name in FIRST_STEP:  # to float32 rounding: other batches take other kernels
        np.testing.assert_allclose(refined[name], expected[name], rtol=RELATIVE, atol=ABSOLUTE, err_msg=name)


def test_the_share_that_stands_out_gets_the_unscreened_scans_rows(folder):
    found, full = by_id(folder / "store"), by_id(folder / "full")
    assert found["status"].value_counts().sort("status").rows() == [("scored", 6), ("screened_out", 54)]
    assert_refined_rows_are_those_of(full, found)
    first = by_id(folder / "store", Model(BUNDLE, "auto", config=FIRST).scan_id)
    highest = first.top_k(6, by=SCORE)["prompt_id"]
    assert set(found.filter(status="scored")["prompt_id"]) == set(highest)
    assert found.filter(status="screened_out").select(FIRST_STEP).null_count().row(0) == (54,) * len(FIRST_STEP)


def test_what_it_costs_is_told(folder):
    result = screened(folder / "p.txt", folder / "store")
    assert asdict(result.screening) == {
        "full_scan_id": Model(BUNDLE, "auto", config=CONFIG).scan_id,
        "first_scan_id": Model(BUNDLE, "auto", config=FIRST).scan_id,
        "model": str(BUNDLE),
        "score": SCORE,
        "share": SHARE,
        "threshold": result.screening.threshold,
        "sample": 0.0,
        "refined": 6,
        "screened_out": 54,
        "passes_per_prompt": pytest.approx(1 + 0.1 * 3),
        "passes": 1,
        "wanted": None,
        "why": "",
    }
    assert (result.unique, result.already_scored, result.scored) == (60, 60, 0)
    assert (result.skipped, result.other_scans) == ({"screened_out": 54}, 0)
    steps = ScanConfig(seeds=(0, 1), first_steps=3)
    assert steps.passes == 10


def test_a_sample_gets_all_passes_whatever_the_first_finds(folder, tmp_path):
    result = screened(folder / "p.txt", tmp_path / "store", screen=Screen(SHARE, sample=0.3))
    found, first = by_id(tmp_path / "store"), by_id(tmp_path / "store", result.screening.first_scan_id)
    drawn = set(first.filter(sampled(0.3))["prompt_id"])
    above = set(first.filter(pl.col(SCORE) >= result.screening.threshold)["prompt_id"])
    assert 10 < len(drawn) < 27
    assert drawn - above
    assert set(found.filter(status="scored")["prompt_id"]) == drawn | above
    assert_refined_rows_are_those_of(by_id(folder / "full"), found)
    assert result.screening.refined == len(drawn | above)
    plain = read_store(folder / "store").record.screening
    assert result.screening.threshold == plain.threshold
    assert result.scan_id != plain.scan_id
    asked = ["report", "--store", tmp_path / "store", "--out", tmp_path / "report", "--json"]
    out, err, code = run(*asked, "--top", str(len(drawn)))
    assert code == 0, err
    inside = set(pl.read_parquet(tmp_path / "report/flagged.parquet")["prompt_id"]) & drawn
    told = next(note for note in json.loads(out)["notes"] if "the screen" in note)
    if len(inside) < 20:
        assert told.startswith(f"what the screen loses of the flags is unknown: {len(inside)} of a random 30 % of the")
    else:
        assert f"{len(inside & above)} of {len(inside)} flagged ones among a random 30 % of the prompts" in told
    shown, _, _ = run("status", "--store", tmp_path / "store")
    assert "UNet passes per prompt on average; 0.3 of all by chance got all" in shown


def test_a_second_run_pays_nothing(folder, monkeypatch):
    def local(scorer, chunks):
        return (pytest.fail(f"scored again: {chunk['text'].to_list()}") for chunk in chunks)

    monkeypatch.setattr(execute, "local", local)
    before = len(pl.read_delta(str(folder / "store/scores")))
    assert screened(folder / "p.txt", folder / "store").scored == 0
    assert len(pl.read_delta(str(folder / "store/scores"))) == before == 120


def test_a_grown_dataset_keeps_the_threshold_and_another_share_has_its_own(tmp_path):
    path, store = tmp_path / "p.txt", tmp_path / "store"
    trial = screened(write(path, MORE), store, limit=20)
    first = screened(write(path, PROMPTS), store)
    grown = screened(write(path, MORE), store)
    assert (grown.scan_id, grown.screening.threshold) == (first.scan_id, first.screening.threshold)
    assert (grown.unique, grown.already_scored) == (90, 60)
    scores = by_id(store, grown.screening.first_scan_id)
    above = scores.filter(pl.col(SCORE) >= grown.screening.threshold)
    assert set(by_id(store).filter(status="scored")["prompt_id"]) == set(above["prompt_id"])
    assert trial.scan_id != first.scan_id, "a trial's threshold must not rule the nights after it"
    assert screened(path, store, limit=20).scan_id == trial.scan_id
    assert screened(path, store, screen=Screen(0.5)).scan_id not in (trial.scan_id, first.scan_id)


def test_a_plain_scan_of_one_seed_is_a_first_pass(tmp_path, folder):
    scan(folder / "p.txt", model=BUNDLE, store=tmp_path / "store", config=FIRST)
    totals = []
    screened(
        folder / "p.txt",
        tmp_path / "store",
        watch=lambda what, done, total: totals.append(total) if what == "scan" else None,
    )
    assert set(totals) == {0, 6}  # nothing in the first pass, six prompts in the second


@pytest.mark.parametrize("after", [2, 12])  # chunks: two in the first pass; eight there and some in the second
def test_interrupted_in_either_pass_it_goes_on(tmp_path, folder, after):
    heard = []

    def stop():
        return len(heard) > after

    with pytest.raises(Interrupted, match="the same command goes on from there"):
        screened(
            folder / "p.txt", tmp_path / "store", batch_size=8, screen=Screen(0.5), stop=stop,
            watch=lambda what, done, total: heard.append(done) if what == "scan" else None,
        )  # fmt: skip
    rows = pl.read_delta(str(tmp_path / "store/scores"))
    assert (rows["scan_id"].n_unique() == 2) == (after > 8)
    if after < 8:
        with pytest.raises(StoreError, match="no scan in this store yet"):
            read_store(tmp_path / "store")
    result = screened(folder / "p.txt", tmp_path / "store", screen=Screen(0.5))
    rows = pl.read_delta(str(tmp_path / "store/scores"))
    assert len(rows) == rows.n_unique(["scan_id", "prompt_id"]) == 120
    assert result.screening.refined == 30
    assert_refined_rows_are_those_of(by_id(folder / "full"), by_id(tmp_path / "store"))


def test_another_model_may_make_the_first_pass(tmp_path, folder):
    other = CHECKPOINTS["epsilon"]  # on another backend, too
    found = screened(folder / "p.txt", tmp_path, screen=Screen(SHARE, "text_noise_norm_v1", other))
    assert found.screening.first_scan_id == Model(other, "auto", config=replace(FIRST, timesteps=())).scan_id
    first = by_id(tmp_path, found.screening.first_scan_id).top_k(6, by="text_noise_norm_v1")
    assert set(by_id(tmp_path).filter(status="scored")["prompt_id"]) == set(first["prompt_id"])
    assert_refined_rows_are_those_of(by_id(folder / "full"), by_id(tmp_path))
    assert found.scan_id != read_store(folder / "store").scan_id


def test_another_precision_may_make_the_first_pass(tmp_path, folder, monkeypatch):
    def in_name(path, precision):
        return replace(open_cpu(path, "auto"), precision="float32" if precision == "auto" else precision)

    open_cpu = BACKENDS["cpu"]
    monkeypatch.setitem(BACKENDS, "cpu", in_name)  # not every processor has two
    found = screened(folder / "p.txt", tmp_path, screen=Screen(SHARE, precision="bfloat16"))
    first = found.screening.first_scan_id
    assert first == Model(BUNDLE, "auto", "bfloat16", FIRST).scan_id
    assert found.screening.full_scan_id == Model(BUNDLE, "auto", config=CONFIG).scan_id
    assert [read_store(tmp_path, scan_id).record.precision for scan_id in (first, None)] == ["bfloat16", "float32"]
    assert_refined_rows_are_those_of(by_id(folder / "full"), by_id(tmp_path))
    asked = ["--model", BUNDLE, "--store", tmp_path, "--screen", "0.1", "--screen-precision", "bfloat16"]
    out, err, code = run("scan", folder / "p.txt", *asked, "--seeds", "3")
    assert (code, out) == (0, f"{found.scan_id}\n")
    assert "already scored  60" in err
    _, err, code = run("scan", folder / "p.txt", *asked, "--seeds", "1")
    assert (code, "1.10 UNet passes per prompt" in err) == (0, True)


def test_a_reference_is_for_those_who_need_it(tmp_path, folder):
    reference = write(tmp_path / "reference.txt", MORE[60:])
    by_norm = Screen(SHARE, "low_noise_norm_v1")
    found = screened(folder / "p.txt", tmp_path / "a", reference=reference, screen=by_norm)
    ordinary = tuple(captions.reference(reference))
    assert found.screening.first_scan_id == Model(BUNDLE, "auto", config=FIRST).scan_id
    assert found.screening.full_scan_id == Model(BUNDLE, config=CONFIG, reference=ordinary).scan_id
    by_reference = Screen(SHARE, "overestimation_white_v2")
    found = screened(folder / "p.txt", tmp_path / "b", reference=reference, screen=by_reference)
    assert found.screening.first_scan_id == Model(BUNDLE, config=FIRST, reference=ordinary).scan_id
    assert found.scores.filter(status="scored")["overestimation_white_v2"].null_count() == 0


def test_a_report_counts_the_screened_out_and_never_flags_them(folder, tmp_path):
    out = ["--store", folder / "store", "--out", tmp_path, "--json"]
    for rule, flagged in ((["--top", "9"], 6), (["--quantile", "0.95"], 3), (["--threshold", "-99"], 6)):
        summary = json.loads(run("report", *out, *rule)[0])
        assert (summary["prompts"], summary["scored"], summary["flagged"]) == (60, 60, flagged), rule
        assert summary["notes"] == [
            "screened: 54 prompts were found ordinary by a first pass, got no other, and are never flagged; all counts "
            "of scored prompts include them"
        ]
    ranked = pl.read_parquet(tmp_path / "scores.parquet")
    assert ranked["rank"].to_list() == list(range(1, 61))
    assert ranked["status"].to_list() == ["scored"] * 6 + ["screened_out"] * 54
    assert "unique captions scored" in (tmp_path / "report.html").read_text()


def test_a_calibration_of_the_unscreened_scan_holds(folder, tmp_path):
    null = write(tmp_path / "null.txt", MORE[60:])
    settings = ["--model", BUNDLE, "--seeds", "3", "--store", folder / "store"]
    _, err, code = run("calibrate", null, "--out", tmp_path / "c.parquet", *settings)
    assert code == 0, err
    judged = {}
    for store in ("full", "store"):
        asked = ["--calibration", tmp_path / "c.parquet", "--fpr", "0.1", "--json"]
        out, err, code = run("report", "--store", folder / store, "--out", tmp_path / store, *asked)
        assert code == 0, err
        checks = [check["check"] for check in json.loads(out)["calibration"]["exchangeability"]]
        assert checks == (["bulk", "length"] if store == "full" else ["length"])
        judged[store] = pl.read_parquet(tmp_path / store / "scores.parquet").sort("prompt_id")
        assert json.loads(out)["full_scan_id"] == read_store(folder / "full").scan_id
    full, found = judged["full"], judged["store"]
    refined = found["status"] == "scored"
    assert found.filter(refined)["p_value"].to_list() == full.filter(refined)["p_value"].to_list()
    assert found.filter(~refined)["p_value"].unique().to_list() == [1.0]
    assert found["q_value"].count() == 60
    assert (found["q_value"] >= full["q_value"] - 1e-12).all()
    assert set(found.filter("flagged")["prompt_id"]) <= set(full.filter("flagged")["prompt_id"])


def test_benjamini_hochberg_counts_the_screened_out():
    scores = pl.DataFrame(
        {
            "prompt_id": ["a", "b", "c", "d", "e"],
            "text": ["t"] * 5,
            "status": ["scored", "scored", "screened_out", "screened_out", "empty"],
            "s": pl.Series([9.0, 0.6, None, None, None], dtype=pl.Float32),
        }
    )
    null = pl.DataFrame({"prompt_id": [f"{i}" for i in range(99)], "text": "t", "s": np.linspace(0, 1, 99)})
    canaries = pl.DataFrame({"canary": [""], "s": [0.0]})
    calibration = Calibration.of("scan", "s", null, canaries, {})
    ranked = rank(scores, Rule("s", fdr=0.04), calibration)
    assert ranked.select("prompt_id", "rank", "p_value", "q_value", "flagged").rows() == [
        ("a", 1, 0.01, 0.04, True),  # q = p * m / rank with m = 4
        ("b", 2, 0.41, 0.82, False),
        ("c", 3, 1.0, 1.0, False),
        ("d", 4, 1.0, 1.0, False),
        ("e", None, None, None, False),
    ]
    nobody = scores.filter(pl.col("status") != "scored")
    assert rank(nobody, Rule("s", quantile=0.5))["flagged"].sum() == 0  # a night of ordinary prompts is no error


def test_a_prompt_whose_first_scores_overflowed_is_not_screened_out(tmp_path):
    ledger = Ledger(tmp_path, (SCORE,))
    ids = [prompt_id(text) for text in "abc"]
    rows = pl.DataFrame({"prompt_id": ids, "status": ["scored", "scored", "non_finite"], "truncated": False})
    values = pl.Series([1.0, 2.0, None], dtype=pl.Float32)
    ledger.append("first", rows.with_columns(**{SCORE: values}, q1=[0.0], q2=[0.0], q3=[0.0]))
    screening = Screening("full", "first", "model", SCORE, 0.5, threshold=2.0)
    assert screened_out(screening, ledger).collect()["prompt_id"].to_list() == [ids[0]]
    assert screening.scan_id != Screening("full", "first", "model", SCORE, 0.5, threshold=1.5).scan_id


def test_a_dry_run_estimates_both_passes(folder, tmp_path):
    asked = {"model": BUNDLE, "config": CONFIG, "screen": Screen(SHARE)}
    plan = dry_run(folder / "p.txt", store=tmp_path / "none", **asked)
    assert (plan.scan_id, plan.pending, plan.first_pass, plan.refine) == (None, 60, 60, 6)
    assert plan.seconds > 0
    assert not (tmp_path / "none").exists()
    plan = dry_run(write(tmp_path / "more.txt", MORE), store=folder / "store", **asked)
    assert plan.scan_id == read_store(folder / "store").scan_id
    assert (plan.already_scored, plan.pending, plan.first_pass, plan.refine) == (60, 30, 30, 3)


def test_the_command_line_says_how_many_were_screened_out(folder, tmp_path):
    asked = ["--model", BUNDLE, "--store", tmp_path / "store", "--seeds", "3", "--screen", "0.1"]
    out, err, code = run("scan", folder / "p.txt", *asked)
    assert (code, out.strip()) == (0, read_store(folder / "store").scan_id)
    threshold = read_store(folder / "store").record.screening.threshold
    below = f"screened out    54 of 60, with {SCORE} below {threshold:.4g} after one pass; 1.30 UNet passes per prompt"
    assert "refined now     6 of 60 new prompts in " in err
    assert below in err
    out, _, _ = run("status", "--store", tmp_path / "store")
    assert below in out
    assert "rows      6 scored, 54 screened_out" in out


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (["--screen", "0"], "screen 0: needed a share of the prompts between 0 and 1, such as 0.02"),
        (["--screen", "2"], "screen 2: needed a share"),
        (
            ["--screen", "0.1", "--screen-score", "agreement_v1"],
            "'agreement_v1' is no score here. There are text_noise_norm_v1",
        ),
        (["--screen", "0.1", "--screen-score", "overestimation_white_v1"], "it needs a reference"),
        (["--screen", "0.1", "--seeds", "1"], "a scan of one seed and one step is what a first pass costs"),
        (
            ["--screen-score", "concentration_v1"],
            "--screen-score without a screen: needed",
        ),
        (
            ["--screen-model", BUNDLE],
            "--screen-model without a screen: needed --screen SHARE",
        ),
        (
            ["--screen-precision", "auto"],
            "--screen-precision without a screen: needed --screen",
        ),
        (["--screen", "0.1", "--screen-precision", "int4"], "'int4' is not one of 'auto', 'float32'"),
    ],
)
def test_what_cannot_screen_is_refused(folder, tmp_path, asked, message):
    _, err, code = run("scan", folder / "p.txt", "--model", BUNDLE, "--store", tmp_path / "store", *asked)
    assert code == 2
    assert message in " ".join(err.split())
    assert not (tmp_path / "store").exists()


def test_captions_without_any_score_choose_no_threshold(tmp_path):
    with pytest.raises(ScannerError, match="no caption has low_noise_norm_v1 after the first pass"):
        screened(write(tmp_path / "p.txt", ["", ""]), tmp_path / "store")


def test_the_scan_ids_of_unscreened_scans_are_what_they_were():
    assert ScanConfig().scan_id("manifest", "cpu", "float32") == "2fe27fc01aaf378aa3666b167bed8f2c"
