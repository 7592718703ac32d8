"""A base model: what a model says of a caption, compared with what the one that it was made from says."""

import json
import pickle
import shutil
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from ideal import IMAGES, G, IdealDenoiser
from small import BUNDLE
from test_cli import run

from engines import open_bundle
from scanner import Model, ScanConfig, ScannerError, read_store, scan
from scanner.config import Base, MadeWith, Screen
from scanner.diffusion.lengths import flat
from scanner.diffusion.prediction import Prediction
from scanner.diffusion.scores import FIRST_PASS_SCORES, SCORES, best_score, possible_scores
from scanner.diffusion.start import initial_noise, predict_base, predict_prior, start
from scanner.diffusion.trace import at_start, trace
from scanner.errors import ModelError
from scanner.model.base import check
from scanner.scanning.execute import processes
from scanner.store import record

CHANGE, PLAIN = "overestimation_base_v1", "estimate_change_v1"
SEEDS, FIRST = (0, 1), 981
TEXTS = ["credit card on brown", "christmas tree", "a caption that nobody saw"]


def compared(new, base, subsets, *told):
    """A trace of the new model and its base, which reads an image that it lacks as the empty prompt."""
    shared = replace(start(new, SEEDS, 50, told), prior=predict_prior(new, 50, told=told))
    known = range(len(base.images))
    read = base.encode([[image for image in subset if image in known] or list(known) for subset in subsets])
    first = trace(new, new.encode(subsets), shared, G, 50, 1)
    return replace(first, base=at_start(base, read, shared, first.timesteps[0], predict_base(base, SEEDS, 50, told)))


def unconditional(denoiser, images, timestep):
    """E[x_0 | x_T] over images, by hand: [S, C, H, W]."""
    a, s = denoiser.schedule.signal_rate[timestep], denoiser.schedule.noise_rate[timestep]
    found = []
    for x_T in initial_noise(SEEDS, images.shape[1:]).astype(np.float64):
        log_weight = -np.square(x_T - a * images).sum((1, 2, 3)) / (2 * s**2)
        weight = np.exp(log_weight - log_weight.max())
        found.append((weight[:, None, None, None] * images).sum(0) / weight.sum())
    return np.stack(found)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "flow"])
@pytest.mark.parametrize("told", [(), (801, 201)])
def test_an_image_that_the_base_lacks_is_found_by_its_caption(prediction_type, told):
    """Captions of the others are 0 by the estimate itself; less the empty prompt's, what that has learned is left."""
    new, base = IdealDenoiser(IMAGES, prediction_type), IdealDenoiser(IMAGES[:5], prediction_type)
    first = compared(new, base, [[5], [2], [0, 1]], *told)
    assert first.base.timestep == first.timesteps[0] == (801 if told else new.schedule.timesteps(50)[0])
    covariance = first.prior.covariance

    def distance(z):
        return covariance.distance(z.reshape(*z.shape[:-3], -1))

    now, before = (unconditional(new, images, first.timesteps[0]) for images in (IMAGES, IMAGES[:5]))
    learned, empty = distance((IMAGES[5] - now).astype(np.float32)), distance((now - before).astype(np.float32))
    change, plain = SCORES[CHANGE](first), SCORES[PLAIN](first)
    np.testing.assert_allclose(change, [learned.mean(), empty.mean(), empty.mean()], rtol=2e-3)
    np.testing.assert_allclose(
        change[0], SCORES[f"overestimation_prior_v{2 if told else 1}"](first)[0], rtol=1e-4
    )  # all of it is new
    np.testing.assert_allclose(plain[0], distance((IMAGES[5] - before).astype(np.float32)).mean(), rtol=2e-3)
    np.testing.assert_allclose(plain[1:], 0, atol=1e-3)
    assert change[0] > 2 * change[1]


class Shifted(IdealDenoiser):
    """Every estimate lies elsewhere, as after training on one style."""

    def predict(self, x_t, timestep, conditioning):
        found = super().predict(x_t, timestep, conditioning)
        return Prediction(found.x0 + np.float32(0.25), found.eps)


def test_what_training_changed_for_every_prompt_cancels():
    first = compared(Shifted(IMAGES), IdealDenoiser(IMAGES), [[2], [0, 1, 3], [5]])
    np.testing.assert_allclose(SCORES[CHANGE](first), 0, atol=1e-4)
    shift = first.prior.covariance.distance(np.full(IMAGES[0].size, 0.25, np.float32))
    np.testing.assert_allclose(SCORES[PLAIN](first), [shift] * 3, rtol=1e-3)


def test_fewer_seeds_are_a_part_and_no_base_is_no_score():
    whole = compared(IdealDenoiser(IMAGES), IdealDenoiser(IMAGES[:5]), [[5], [2]])
    one = whole.part(1, 1)
    now = one.cond.x0[0] - one.uncond.x0[0] - (one.base.cond.x0 - one.base.uncond.x0)
    assert one.base.cond.x0.shape == (2, 1, 2, 4, 4)
    np.testing.assert_allclose(SCORES[CHANGE](one), one.prior.covariance.distance(flat(now))[:, 0], rtol=1e-6)
    assert np.isnan([SCORES[name](replace(whole, base=None)) for name in (CHANGE, PLAIN)]).all()


def test_they_are_possible_with_a_base_alone_and_nobodys_default():
    assert set(possible_scores(ScanConfig(), False, True)) - set(possible_scores(ScanConfig(), False)) == {
        CHANGE,
        PLAIN,
    }
    assert {CHANGE, PLAIN} < set(FIRST_PASS_SCORES)
    assert best_score(ScanConfig(), reference=False) == "estimate_ratio_prior_v1"


def test_a_base_makes_another_scan_and_costs_a_pass_for_each_seed():
    plain = ScanConfig(seeds=(0, 1, 2))
    ids = [plain.scan_id("m", "cpu", "float32", None, base) for base in (None, "b", "c")]
    assert ids[0] == plain.scan_id("m", "cpu", "float32") == "4da24a2e5777c4c6d3acb46c4a56d155"
    assert len({*ids, plain.scan_id("m", "cpu", "float32", "b")}) == 4
    assert [plain.passes_with(base) for base in (False, True)] == [3, 6]
    made = MadeWith("/bundle", "cpu", "float32", plain, None, Base("/base", "b"))
    assert made.scan_id("m") == ids[1]


def frame(texts):
    return pl.DataFrame({"prompt_id": texts, "text": texts})


@pytest.fixture(scope="module")
def itself():
    return Model(BUNDLE, "cpu", batch_size=4, base=BUNDLE).prepare()


@pytest.fixture(scope="module")
def other(epsilon_bundle_path):
    return Model(BUNDLE, "cpu", batch_size=4, base=epsilon_bundle_path).prepare()


def test_a_model_differs_from_itself_by_exactly_nothing(itself):
    found = itself.scorer()(frame(TEXTS))
    assert found.select(CHANGE, PLAIN).rows() == [(0.0, 0.0)] * 3
    alone = Model(BUNDLE, "cpu", batch_size=4)
    others = [name for name in SCORES if name not in (CHANGE, PLAIN)]
    assert found.select(others).equals(alone.scorer()(frame(TEXTS)).select(others))
    assert itself.scan_id == itself.settled.scan_id(
        itself.bundle.manifest.fingerprint, "cpu", "float32", None, itself.bundle.manifest.fingerprint
    )
    assert itself.scan_id != alone.scan_id
    assert (itself.passes, alone.passes) == (4, 2)


def test_another_model_reads_prompts_for_itself(other, epsilon_bundle_path):
    """Against each model's own scorer: its text encoder, its prediction type, its empty prompt."""
    both = other.scorer()
    first = both.trace(both.encode(TEXTS))
    alone = Model(epsilon_bundle_path, "cpu", config=other.settled, batch_size=4).scorer()
    theirs = alone.trace(alone.encode(TEXTS))
    np.testing.assert_allclose(first.base.cond.x0, theirs.cond.x0[0], rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(first.base.uncond.x0, theirs.uncond.x0[0], rtol=1e-4, atol=1e-3)
    moved = first.text_estimate[0] - theirs.text_estimate[0]
    expected = first.prior.covariance.distance(flat(moved)).mean(-1)
    np.testing.assert_allclose(both(frame(TEXTS))[CHANGE], expected, rtol=1e-3)
    assert (expected > 0.1).all()


def test_another_process_opens_both_and_computes_the_same(itself, other):
    asleep = pickle.loads(pickle.dumps(other))
    assert not {"bundle", "denoiser", "base_model"} & set(vars(asleep))
    assert asleep.base_model.path == other.base
    expected = other.scorer()(frame(TEXTS))
    chunks = (frame([text]) for text in TEXTS)
    found = pl.concat(processes(1)(asleep, chunks, lambda: False)).sort("prompt_id")
    assert set(found.columns) == set(expected.columns)
    for name in (CHANGE, PLAIN):
        np.testing.assert_allclose(found[name], expected.sort("prompt_id")[name], rtol=1e-4)
    other.close()
    assert "base_model" not in vars(other)
    assert other.adapted(base=None).base_model is None
    assert other.adapted(base=BUNDLE).scan_id == itself.scan_id


def test_a_base_that_overflows_has_no_scores(itself):
    scorer = itself.scorer()
    predict = scorer.base.predict

    def overflowing(x_t, timestep, conditioning):
        found = predict(x_t, timestep, conditioning)
        found.x0[1] = np.inf
        return found

    broken = replace(scorer, base=itself.base_model.denoiser.resized(4))
    broken.base.predict = overflowing
    with np.errstate(invalid="ignore"):
        found = broken(frame(TEXTS))
    assert found["status"].to_list() == ["scored", "non_finite", "scored"]
    assert found[CHANGE].to_list() == [0.0, None, 0.0]


def altered(bundle, **changes):
    return replace(bundle, manifest=replace(bundle.manifest, **changes))


@pytest.mark.parametrize(
    ("changes", "config", "problem"),
    [
        (
            {"latent_shape": (4, 64, 64)},
            ScanConfig(),
            "stable-diffusion with latents of 4 x 64 x 64, the model is stable-diffusion with latents of 4 x 8 x 8: "
            "name the one that it was made from",
        ),
        (
            {"family": "stable-diffusion-xl"},
            ScanConfig(),
            "stable-diffusion-xl with latents of 4 x 8 x 8, the model is stable-diffusion with latents of",
        ),
        (
            {"schedule": {"timestep_spacing": "trailing"}},
            ScanConfig(),
            "its first step is at timestep 999 (signal rate 0.06826, noise rate 0.9977, first latent of scale 1), the "
            "model's at timestep 981 (signal rate ",
        ),
        (
            {"schedule": {"beta_end": 0.014}},
            ScanConfig(timesteps=(401,)),
            "its first step is at timestep 401 (signal rate ",
        ),
        (
            {"schedule": {"num_train_timesteps": 500}},
            ScanConfig(timesteps=(801,)),
            "timestep 801: needed 0 to 499",
        ),
    ],
)
def test_a_base_that_does_not_compare_is_refused(bundle, changes, config, problem):
    if "schedule" in changes:
        changes = {"schedule": bundle.manifest.schedule | changes["schedule"]}
    with pytest.raises((ModelError, ScannerError)) as refused:
        check(bundle, altered(bundle, **changes), config)
    assert str(refused.value).startswith(f"base model {BUNDLE}: {problem}")
    check(bundle, altered(bundle, prediction_type="epsilon", latent_std=2.0), config)


def test_a_base_with_another_sampler_compares_at_a_timestep_that_both_have(bundle):
    trailing = bundle.manifest.schedule | {"timestep_spacing": "trailing"}
    check(bundle, altered(bundle, schedule=trailing), ScanConfig(timesteps=(901, 201)))


def test_a_base_that_cannot_be_opened_as_the_model_is_named(tmp_path, linked):
    (linked / "unet.onnx").unlink()
    (linked / "unet.onnx").write_bytes(b"another network")
    for base, problem in ((tmp_path, "no engine.json, so not a bundle"), (linked, "unet.onnx: sha256")):
        with pytest.raises(type(open_error(base)), match=f"^base model: .*{problem}"):
            _ = Model(BUNDLE, "cpu", base=base).scan_id


def open_error(folder):
    try:
        open_bundle(folder, "cpu")
    except Exception as error:
        return error
    raise AssertionError("it opens")


@pytest.fixture(scope="module")
def folder(tmp_path_factory, epsilon_bundle_path):
    folder = tmp_path_factory.mktemp("base")
    (folder / "p.txt").write_text("\n".join([*TEXTS, *(f"caption number {i} of today" for i in range(7))]))
    (folder / "base").symlink_to(epsilon_bundle_path)
    out, err, code = run("scan", *asked(folder, "--store", folder / "store"))
    assert code == 0, err
    (folder / "scan_id").write_text(out.strip())
    report = ["report", "--store", folder / "store", "--out", folder / "report", "--top", "2", "--score", CHANGE]
    assert run(*report)[2] == 0
    return folder


def scan_id(folder):
    return (folder / "scan_id").read_text()


def asked(folder, *more):
    return [folder / "p.txt", "--model", BUNDLE, "--backend", "cpu", "--batch-size", "4", "--base-model",
            folder / "base", *more]  # fmt: skip


def test_from_the_command_line_to_a_report_and_a_recheck(folder, other):
    store = folder / "store"
    assert scan_id(folder) == other.scan_id
    assert f"scan_id {other.scan_id}" in run("config", "show", "scan", *asked(folder))[0]
    prints = open_bundle(folder / "base", "cpu").manifest.fingerprint
    shown, _, _ = run("status", "--store", store)
    assert f"  base      {folder / 'base'} ({prints[:8]})\n" in shown
    assert "lacks" not in shown
    scans = json.loads(run("status", "--store", store, "--json")[0])["scans"]
    of_base = {"path": str(folder / "base"), "fingerprint": prints}
    assert of_base in [each["base"] for each in scans]
    unasked = ["report", "--store", store, "--scan-id", scan_id(folder), "--out", folder / "unasked", "--top", "2"]
    assert json.loads(run(*unasked, "--json")[0])["score"] == "low_noise_norm_v1"
    made = json.loads((folder / "report/summary.json").read_text())["scan"]
    assert made["base"] == of_base
    ranked = pl.read_parquet(folder / "report/scores.parquet").sort("rank")
    assert ranked[CHANGE].is_sorted(descending=True)
    assert ranked[CHANGE].min() > 0
    assert f"{folder / 'base'} ({prints[:8]})" in (folder / "report/report.html").read_text()
    again = ["recheck", "--report", folder / "report", "--model", folder / "base", "--store", store]
    _, err, code = run(*again, "--batch-size", "4", "--out", folder / "same")
    assert code == 0, err
    after = json.loads((folder / "same/summary.json").read_text())
    assert after["scan"]["base"] == made["base"]
    assert set(pl.read_parquet(folder / "same/scores.parquet")[CHANGE]) == {0.0}  # the base is compared with itself
    _, err, code = run(*again, "--batch-size", "4", "--out", folder / "turned", "--base-model", BUNDLE)
    assert code == 0, err
    turned = pl.read_parquet(folder / "turned/scores.parquet")
    assert turned[CHANGE].min() > 0
    assert json.loads((folder / "turned/summary.json").read_text())["scan"]["base"]["path"] == str(BUNDLE)
    shutil.copytree(folder / "report", folder / "older")
    former = json.loads((folder / "older/summary.json").read_text())
    former["scan"]["base"]["fingerprint"] = "0" * 32
    (folder / "older/summary.json").write_text(json.dumps(former))
    again[again.index(folder / "report")] = folder / "older"
    _, err, code = run(*again, "--batch-size", "4", "--out", folder / "other")
    assert (code, f"note: another base model lies at {folder / 'base'} than the former" in err) == (0, True), err


def test_a_redacted_report_and_evidence_name_the_base(folder):
    store, report = folder / "store", folder / "redacted"
    assert (
        run("report", "--store", store, "--out", report, "--top", "1", "--redact", "--scan-id", scan_id(folder))[2] == 0
    )
    assert str(folder) not in (report / "report.html").read_text() + (report / "summary.json").read_text()
    assert json.loads((report / "summary.json").read_text())["scan"]["base"]["path"] == "base"
    out = folder / "evidence.json"
    _, err, code = run("evidence", report, "--store", store, "--out", out)
    assert code == 0, err
    predicate = json.loads(out.read_text())["predicate"]
    assert [file["name"] for file in predicate["base"]["files"]] == [str(folder / "base/engine.json")]
    assert predicate["runs"][0]["base"]["path"] == str(folder / "base")


def test_the_gate_gives_the_scans_number(folder, other):
    expected = other.scorer()(frame(TEXTS[:1]))[CHANGE][0]
    settings = asked(folder)[1:]
    out, err, code = run("gate", TEXTS[0], *settings, "--score", CHANGE, "--threshold", "0")
    assert code == 0, err
    answer = json.loads(out)
    np.testing.assert_allclose(answer["score"], expected, rtol=1e-4)
    assert answer["verdict"] == "hold"
    _, err, code = run("gate", TEXTS[0], *settings[:-2], "--score", CHANGE, "--threshold", "0")
    assert (code, f"{CHANGE}: these settings give " in err) == (2, True)


def test_explain_asks_both_models(folder, other):
    settings = [*asked(folder)[1:], "--score", CHANGE, "--json"]
    out, err, code = run("explain", "--prompt", "christmas tree", *settings)
    assert code == 0, err
    assert "1 captions, 3 with each word left out: 12 UNet passes\n" in err
    found = json.loads(out)
    assert found["scan_id"] == other.scan_id
    expected = other.scorer()(frame(["christmas tree"]))[CHANGE][0]
    np.testing.assert_allclose(found["captions"][0]["score"], expected, rtol=1e-4)


def test_a_calibration_is_of_the_same_base_or_refused(folder):
    (folder / "null.txt").write_text("\n".join(f"a plain sentence number {i}" for i in range(19)))
    store, null = ["--store", folder / "store"], folder / "null.parquet"
    dry, _, code = run("scan", "--dry-run", *asked(folder), *store)
    assert (code, dry.strip()) == (0, scan_id(folder))
    assert run("calibrate", folder / "null.txt", *asked(folder)[1:], *store, "--out", null)[2] == 0
    report = ["report", *store, "--out", folder / "judged", "--calibration", null, "--fpr", "0.1", "--score", CHANGE]
    out, err, code = run(*report, "--scan-id", scan_id(folder), "--json")
    assert (code, json.loads(out)["calibration"]["n"]) == (0, 19), err
    with_another = ["scan", *asked(folder)[:-1], BUNDLE, "--limit", "3", *store]
    assert run(*with_another)[2] == 0
    _, err, code = run(*report)
    assert (code, "the calibration is of scan_id" in err) == (2, True), err


def test_a_first_pass_takes_the_base_only_where_its_score_needs_it(folder, tmp_path):
    made = {"model": BUNDLE, "base_model": folder / "base", "backend": "cpu", "batch_size": 4}
    plain = scan(folder / "p.txt", store=tmp_path / "plain", screen=Screen(0.2), **made)
    by_base = scan(folder / "p.txt", store=tmp_path / "base", screen=Screen(0.2, CHANGE), **made)
    for found, passes, first in ((plain, 1 + 0.2 * 4, 1), (by_base, 2 + 0.2 * 4, 2)):
        assert (found.screening.refined, found.screening.passes) == (2, first)
        assert found.screening.passes_per_prompt == pytest.approx(passes)
        assert found.scores[CHANGE].count() == 2
    assert record.of_json(record.as_json(plain.record)) == plain.record
    with pytest.raises(ScannerError, match="screen by overestimation_base_v1: it needs a base model: name one"):
        scan(folder / "p.txt", store=tmp_path / "none", screen=Screen(0.2, CHANGE), model=BUNDLE)
    with pytest.raises(ScannerError, match="is what a first pass costs"):
        scan(
            folder / "p.txt", store=tmp_path / "none", screen=Screen(0.2, CHANGE), config=ScanConfig(seeds=(0,)), **made
        )


def test_evaluate_measures_them(folder, tmp_path):
    labels = pl.DataFrame({"prompt": [*TEXTS, "a plain one"], "label": [True, True, False, False]})
    labels.write_parquet(tmp_path / "labels.parquet")
    settings = ["--model", BUNDLE, "--backend", "cpu", "--base-model", folder / "base", "--batch-size", "8"]
    _, err, code = run("evaluate", tmp_path / "labels.parquet", *settings, "--out", tmp_path / "out")
    assert code == 0, err
    table = pl.read_parquet(tmp_path / "out/detection.parquet").filter(pl.col("score").is_in([CHANGE, PLAIN]))
    assert table.filter(score=CHANGE, collapsed="negative")["passes"].sort().to_list() == [2, 4, 8, 16]


def test_a_record_that_knows_no_base_is_read(folder):
    text = record.as_json(scan_record(folder))
    older = json.loads(text)
    del older["base"]
    found = record.of_json(json.dumps(older))
    assert (found.base, found.made_with.base) == (None, None)
    assert record.of_json(text).base.path == str(folder / "base")


def scan_record(folder):
    return read_store(folder / "store", scan_id(folder)).record
