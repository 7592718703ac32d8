"""Timesteps that the network is told beside the starting noise, in place of the sampler's first or beside it."""

import json
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from ideal import IMAGES, G, IdealDenoiser
from small import BUNDLE
from test_cli import run

from engines import open_bundle
from scanner.config import ScanConfig, Screen
from scanner.diffusion.formulas import gram
from scanner.diffusion.lengths import flat
from scanner.diffusion.schedule import ON_GRIDS, Schedule
from scanner.diffusion.scores import SCORES
from scanner.diffusion.start import PRIOR_SEEDS, initial_noise, predict_prior, start
from scanner.diffusion.trace import trace
from scanner.errors import ScannerError
from scanner.model import Model
from scanner.model.usual import usual_noises, usual_timesteps
from scanner.store.ledger import Ledger

SUBSETS, SEEDS = [[2], [0, 1, 3]], (0, 1)
FIRST = 981


@pytest.fixture(params=["epsilon", "v_prediction"])
def denoiser(request):
    return IdealDenoiser(IMAGES, request.param)


def told(denoiser, *timesteps, steps=1):
    shared = replace(start(denoiser, SEEDS, 50, timesteps), prior=predict_prior(denoiser, 50, told=timesteps))
    return trace(denoiser, denoiser.encode(SUBSETS), shared, G, 50, steps)


def change(denoiser, timestep):
    """De by hand: [B, S, d]."""
    x_T = np.broadcast_to(initial_noise(SEEDS, denoiser.latent_shape), (2, 2, *denoiser.latent_shape))
    cond = denoiser.predict(x_T, timestep, denoiser.encode(SUBSETS)).eps
    uncond = denoiser.predict(x_T[:1], timestep, denoiser.null).eps
    return (cond - uncond).reshape(2, 2, -1)


def test_the_sampler_s_first_timestep_may_be_named(denoiser):
    """All scores are what they are without naming it, and those of other timesteps are there."""
    plain, named = told(denoiser), told(denoiser, FIRST, 201)
    assert (plain.sampled, named.sampled, plain.named, named.named) == (True, True, 0, 2)
    for name, score in SCORES.items():
        if not score.told:
            np.testing.assert_array_equal(score(plain), score(named), err_msg=name)
    low = np.linalg.norm(change(denoiser, 201), axis=-1)
    np.testing.assert_allclose(SCORES["low_noise_norm_v1"](named), low.mean(1), rtol=1e-5)
    both = np.log(low.mean(1)) + np.log(SCORES["overestimation_prior_v1"](named))
    np.testing.assert_allclose(SCORES["two_noise_v1"](named), both, rtol=1e-5)


def test_the_raw_numbers_of_the_low_noise(denoiser):
    raw, De = gram(told(denoiser, FIRST, 201)), change(denoiser, 201)
    np.testing.assert_allclose(raw["q1_low"], np.square(De).mean(-1), rtol=1e-4)
    x_T = initial_noise(SEEDS, denoiser.latent_shape).reshape(2, -1)
    np.testing.assert_allclose(raw["q3_low"], (De * x_T).mean(-1), rtol=1e-3, atol=1e-6)
    uncond = denoiser.predict(initial_noise(SEEDS, denoiser.latent_shape)[None], 201, denoiser.null).eps
    np.testing.assert_allclose(raw["q2_low"], (De * uncond.reshape(1, 2, -1)).mean(-1), rtol=1e-3, atol=1e-6)
    assert gram(told(denoiser)).keys() == {"q1", "q2", "q3"}


def test_scores_of_the_sampler_s_first_timestep_are_undefined_at_another(denoiser):
    other = told(denoiser, 801, 201)
    defined = {name for name, score in SCORES.items() if np.isfinite(score(other)).all()}
    assert defined == {"overestimation_prior_v2", "estimate_ratio_prior_v2", "low_noise_norm_v1", "two_noise_v1"}
    a, s = denoiser.schedule.signal_rate[801], denoiser.schedule.noise_rate[801]
    DX = (-s / a * change(denoiser, 801)).reshape(2, 2, *denoiser.latent_shape)
    noise = initial_noise(PRIOR_SEEDS, denoiser.latent_shape)[None]
    prior = denoiser.predict(noise, 801, denoiser.null).x0[0]
    np.testing.assert_allclose(other.prior.x0_uncond, prior, rtol=1e-5, atol=1e-6)  # at that timestep, too
    expected = other.prior.covariance.distance(flat(DX.astype(np.float32))).mean(1)
    np.testing.assert_allclose(SCORES["overestimation_prior_v2"](other), expected, rtol=1e-3)


def test_one_timestep_is_both_the_noisiest_and_the_least_noisy(denoiser):
    one = told(denoiser, 401)
    assert (one.named, one.low.timestep, one.timesteps) == (1, 401, (401,))
    low = np.linalg.norm(change(denoiser, 401), axis=-1).mean(1)
    np.testing.assert_allclose(SCORES["low_noise_norm_v1"](one), low, rtol=1e-5)
    assert np.isnan(SCORES["two_noise_v1"](one)).all()  # one timestep is no two


def test_fewer_seeds_are_a_part(denoiser):
    part, whole = told(denoiser, FIRST, 201).part(1, 1), change(denoiser, 201)
    np.testing.assert_allclose(SCORES["low_noise_norm_v1"](part), np.linalg.norm(whole[:, 0], axis=-1), rtol=1e-5)


def test_steps_follow_only_from_the_sampler_s_own_first_timestep(denoiser):
    assert told(denoiser, FIRST, 201, steps=2).timesteps == (FIRST, 961)
    with pytest.raises(ScannerError, match=r"first_steps 2 with timesteps 901: only the sampler's first timestep, 981"):
        told(denoiser, 901, steps=2)


@pytest.mark.parametrize(
    ("timestep", "problem"), [(1000, "needed 0 to 999"), (-1, "needed 0 to 999"), (999, "all noise or none")]
)
def test_a_timestep_that_a_schedule_does_not_have_is_refused(timestep, problem):
    denoiser = IdealDenoiser(IMAGES, "flow")  # all noise at its last
    with pytest.raises(ScannerError, match=f"timestep {timestep}: .*{problem}"):
        start(denoiser, SEEDS, 50, (timestep,))


def test_a_schedule_of_a_sampler_s_own_points_has_no_others():
    grid = {"timesteps": [900.5, 300.25], "signal_rate": [0.1, 0.8], "noise_rate": [0.9, 0.2], "initial_noise_scale": 1}
    schedule = Schedule.from_manifest({"curve": ON_GRIDS}, "flow", {"2": grid})
    with pytest.raises(ScannerError, match="timestep 900: of this model only its sampler's own steps are known"):
        schedule.trained(900)


def test_a_flow_model_that_is_told_sigma_can_be_told_any():
    """Shifted by size, its sampler tells thousandths of sigma: x_t = (1 - sigma)*x0 + sigma*eps there and between."""
    sigma = [1.0, 0.9, 0.6]
    grid = {"timesteps": [1000 * s for s in sigma], "signal_rate": [0.0, 0.1, 0.4], "noise_rate": sigma}
    made = Schedule.from_manifest({"curve": ON_GRIDS}, "flow", {"3": grid | {"initial_noise_scale": 1.0}})
    assert [made.told(t) for t in made.timesteps(3)] == [1000, 900, 600]
    np.testing.assert_allclose(made.noise_rate[made.timesteps(3)], sigma)
    at = made.trained(444)
    assert (made.told(at), made.signal_rate[at], made.noise_rate[at]) == (444, pytest.approx(0.556), 0.444)
    x_T, velocity = np.ones((1, 1, 1, 1, 1), np.float32), np.full((1, 1, 1, 1, 1), 0.5, np.float32)
    read = made.read(x_T, velocity, at)
    assert read.x0.item() == pytest.approx(1 - 0.444 * 0.5)
    assert read.eps.item() == pytest.approx(1 + 0.556 * 0.5)
    with pytest.raises(ScannerError, match="timestep 0: there the latent is all noise or none"):
        made.trained(0)


def test_timesteps_make_another_scan_and_cost_a_pass_each():
    plain, two = ScanConfig(), ScanConfig(timesteps=(981, 201))
    ids = {config.scan_id("m", "cpu", "float32") for config in (plain, two, ScanConfig(timesteps=(201,)))}
    assert len(ids) == 3
    assert plain.scan_id("m", "cpu", "float32") == "3ad81c09dc5151b26d4a3ff9a8301a46"  # as before there was a choice
    assert [config.passes for config in (plain, two, ScanConfig(timesteps=(201,), seeds=(0,)))] == [2, 4, 1]
    assert ScanConfig(first_steps=2, timesteps=(981, 201)).passes == 8
    assert ScanConfig.of_json({"seeds": [0], "timesteps": [901, 201]}).timesteps == (901, 201)
    assert ScanConfig.of_json({"seeds": [0]}).timesteps == ()


def flow(side, told=1000):
    """A sampler of two steps, of latents of a side, that tells so many times sigma."""
    grid = {"timesteps": [told, 0.5 * told], "signal_rate": [0.0, 0.5], "noise_rate": [1.0, 0.5]}
    schedule = {"curve": ON_GRIDS, "num_train_timesteps": 1000}
    grids = {"2": grid | {"initial_noise_scale": 1.0}}
    return {"prediction_type": "flow", "schedule": schedule, "grids": grids, "latent_shape": (16, side, side)}


@pytest.mark.parametrize(
    ("kind", "usual"),
    [
        ({"prediction_type": "epsilon"}, (289,)),
        ({"prediction_type": "v_prediction"}, (289,)),
        ({"latent_shape": (4, 16, 16)}, (497,)),
        ({"latent_shape": (4, 8, 32)}, (497,)),
        ({"latent_shape": (4, 64, 64)}, (848,)),
        ({"latent_shape": (4, 128, 128)}, ()),
        ({"grids": {"50": {"timesteps": [999], "signal_rate": [0.0], "noise_rate": [1.0]}}}, ()),
        ({"prediction_type": "epsilon", "schedule": {"curve": "linear", "num_train_timesteps": 1000}}, ()),
        ({"prediction_type": "epsilon", "schedule": {"curve": "scaled_linear", "num_train_timesteps": 100}}, ()),
        ({"prediction_type": "flow", "schedule": {"curve": "flow", "num_train_timesteps": 1000}}, ()),
        (flow(8), (444,)),
        (flow(64), (865,)),
        (flow(128), (928,)),
        (flow(8, told=1), ()),
        (flow(8) | {"prediction_type": "edm"}, ()),
    ],
)
def test_what_is_usual_depends_on_the_kind_and_size_of_model(made, kind, usual):
    """SNR*H*W = 100, by hand: abar = 100/(100 + H*W), .6098, .2809 and .0238, of Stable Diffusion's curve.

    Of a flow model 1/sigma = 1 + 10/sqrt(H*W): .4444, .8649, .9275.
    """
    assert usual_timesteps(replace(made, **kind)) == usual
    assert [ScanConfig(first_steps=steps).settled(usual).timesteps for steps in (1, 2)] == [usual, ()]
    assert ScanConfig(timesteps=()).settled(usual).timesteps == ()
    assert ScanConfig(timesteps=(901, 201)).settled(usual).timesteps == (901, 201)


@pytest.mark.parametrize(
    ("latent_shape", "told", "noises"),
    [
        ((4, 8, 8), (289,), 64),
        ((4, 31, 33), (690,), 64),
        ((4, 32, 32), (690,), 16),
        ((4, 16, 64), (690,), 16),
        ((4, 64, 64), (848, 201), 16),
        ((4, 64, 64), (), 64),
        ((4, 64, 64), (981,), 64),
        ((4, 64, 64), (981, 848), 64),
        ((4, 64, 64), (690,), 64),
        ((4, 128, 128), (981,), 64),
    ],
)
def test_large_latents_have_a_prior_of_fewer_noises_where_what_is_usual_is_told(made, latent_shape, told, noises):
    """Nothing was measured for other timesteps than the usual one and the sampler's first."""
    manifest = replace(made, latent_shape=latent_shape)
    assert usual_noises(manifest, told) == noises
    model = Model.of(replace(open_bundle(BUNDLE, "cpu"), manifest=manifest), ScanConfig(timesteps=told))
    assert model.settled == ScanConfig(timesteps=told, prior_noises=noises)
    asked = model.adapted(config=ScanConfig(timesteps=told, prior_noises=7))
    assert asked.settled.prior_noises == 7
    if told == usual_timesteps(manifest):
        assert model.adapted(config=ScanConfig()).settled == model.settled


def test_the_prior_is_made_of_as_many_noises_as_are_asked_for(epsilon_bundle_path):
    """Fewer are another scan; as many as it always were, the scan of before there was a choice."""
    config = ScanConfig(seeds=(0, 1), timesteps=(289,))
    usual = Model(epsilon_bundle_path, "cpu", config=config, batch_size=16).prepare()
    named, few = (usual.adapted(config=replace(config, prior_noises=n)).prepare() for n in (64, 5))
    assert usual.config == named.config == replace(config, prior_noises=64)
    assert usual.scan_id == named.scan_id == config.scan_id(usual.bundle.manifest.fingerprint, "cpu", "float32")
    assert few.scan_id not in {usual.scan_id, few.adapted(config=replace(config, prior_noises=6)).scan_id}
    whole, part = (model.prepared.start.prior.x0_uncond for model in (usual, few))
    assert (whole.shape, part.shape) == ((64, 4, 8, 8), (5, 4, 8, 8))
    np.testing.assert_allclose(part, whole[:5], rtol=1e-4, atol=1e-4)
    for asked in (1, 65):
        with pytest.raises(ScannerError, match=f"prior_noises {asked}: needed 2 to 64"):
            ScanConfig(prior_noises=asked)


def test_the_number_of_noises_is_kept_and_an_older_record_had_64():
    assert ScanConfig.of_json({"seeds": [0]}).prior_noises == 64
    assert ScanConfig.of_json({"seeds": [0], "prior_noises": 16}).prior_noises == 16
    few = ScanConfig(timesteps=(848,), prior_noises=16)
    assert few.with_timesteps(()) == ScanConfig(timesteps=())
    assert few.with_timesteps((848,)) == few
    asked = ScanConfig(prior_noises=16)
    assert asked.with_timesteps(()) == replace(asked, timesteps=()), "what was asked for stays"
    assert Screen(0.1).first_pass(few) == replace(few, seeds=(0,))
    assert Screen(0.1, told=()).first_pass(few) == ScanConfig(seeds=(0,), timesteps=())


def test_a_prior_of_fewer_noises_from_the_command_line_to_the_report(tmp_path, epsilon_bundle_path):
    (tmp_path / "p.txt").write_text("a cat\nthe moon\nred car\n")
    model = ["--model", epsilon_bundle_path, "--backend", "cpu"]
    asked = ["scan", tmp_path / "p.txt", *model, "--store", tmp_path / "s", "--seeds", 1]
    usual, few = (run(*asked, *words)[0].strip() for words in ([], ["--prior-noises", 5]))
    assert usual != few
    config = ScanConfig(seeds=(0,), timesteps=(289,), prior_noises=5)
    (record,) = Ledger(tmp_path / "s", tuple(SCORES)).records(few)
    assert record.config == config
    assert few == Model(epsilon_bundle_path, "cpu", config=config).scan_id
    shown, _, _ = run("status", "--store", tmp_path / "s")
    assert "told 289; guidance scale 7.5; prior of 5 noises\n" in shown
    report = ["report", "--store", tmp_path / "s", "--out", tmp_path / "r", "--top", 1]
    _, err, code = run(*report, "--scan-id", few)
    assert code == 0, err
    for page in ("report.html", "summary.md"):
        assert "of 5 noises" in (tmp_path / "r" / page).read_text(encoding="utf-8")
    explain = ["explain", "--report", tmp_path / "r", *model, "--seeds", 1]
    _, err, code = run(*explain)
    assert (code, "--prior-noises" in err) == (2, True)
    _, err, code = run(*explain, "--prior-noises", 5)
    assert code == 0, err
    _, err, code = run(*asked, "--prior-noises", 65)
    assert (code, "--prior-noises" in err) == (2, True)


def test_a_model_is_told_less_noise_unless_asked(tmp_path, epsilon_bundle_path):
    """From the command line to the report; the sampler's own first is another scan."""
    (tmp_path / "p.txt").write_text("a cat\nthe moon\nred car\n")
    asked = ["scan", tmp_path / "p.txt", "--model", epsilon_bundle_path, "--backend", "cpu", "--store", tmp_path / "s"]
    found = {}
    for words in ([], ["--timesteps", "289"], ["--timesteps", "first"], ["--timesteps", "981"]):
        out, err, code = run(*asked, *words)
        assert code == 0, err
        found[" ".join(words)] = out.strip()
    usual, named, first, own = found.values()
    assert usual == named
    assert len({usual, first, own}) == 3
    assert first == Model(epsilon_bundle_path, "cpu", config=ScanConfig(timesteps=())).scan_id
    scores = pl.scan_delta(str(tmp_path / "s/scores")).collect().sort("prompt_id")
    by_usual, by_first, by_own = (scores.filter(scan_id=scan_id) for scan_id in (usual, first, own))
    assert (by_usual["text_noise_norm_v1"].null_count(), by_first["text_noise_norm_v1"].null_count()) == (3, 0)
    np.testing.assert_allclose(by_first["text_noise_norm_v1"], by_own["text_noise_norm_v1"], rtol=1e-6)
    report = ["report", "--store", tmp_path / "s", "--out", tmp_path / "r", "--top", 1, "--json"]
    out, err, code = run(*report, "--scan-id", usual)
    assert (code, json.loads(out)["score"]) == (0, "low_noise_norm_v1"), err
    shown, _, _ = run("status", "--store", tmp_path / "s")
    assert "first 1 of 50 steps, told 289; guidance scale 7.5" in shown
    out, err, code = run(*asked, "--seeds", 3, "--screen", "0.4")
    assert code == 0, err
    record = next(r for r in Ledger(tmp_path / "s", tuple(SCORES)).records() if r.screening)
    assert (record.screening.score, record.config.timesteps) == ("low_noise_norm_v1", (289,))


@pytest.mark.parametrize("timesteps", [(981, 401, 201), (201, 981), (201, 201)])
def test_a_configuration_takes_one_or_two_in_their_order(timesteps):
    with pytest.raises(ScannerError, match="needed one or two, the larger"):
        ScanConfig(timesteps=timesteps)


def test_a_scan_of_named_timesteps_from_the_command_line_to_its_report(tmp_path):
    (tmp_path / "p.txt").write_text("a cat\nthe moon\nred car\n")
    (tmp_path / "overscan.toml").write_text('timesteps = "901,201"\n')
    asked = ["scan", tmp_path / "p.txt", "--model", BUNDLE, "--backend", "cpu"]
    _, err, code = run(*asked, "--store", tmp_path / "s", "--timesteps", "981,201")
    assert code == 0, err
    out, err, code = run("--config", tmp_path / "overscan.toml", *asked, "--store", tmp_path / "s", "--seeds", 1)
    assert code == 0, err
    scores = pl.scan_delta(str(tmp_path / "s/scores")).filter(scan_id=out.strip()).collect()
    assert scores["text_noise_norm_v1"].null_count() == 3  # of the sampler's own first timestep
    assert np.isfinite(scores["two_noise_v1"].to_numpy()).all()
    low = [np.sqrt(q[0] * 256) for q in scores["q1_low"]]
    np.testing.assert_allclose(scores["low_noise_norm_v1"], low, rtol=1e-5)
    shown, _, _ = run("status", "--store", tmp_path / "s")
    assert "first 1 of 50 steps, told 901 and 201; guidance scale 7.5" in shown
    assert "first 1 of 50 steps, told 981 and 201; guidance scale 7.5" in shown
    report = ["report", "--store", tmp_path / "s", "--out", tmp_path / "r", "--top", 1, "--json"]
    out, err, code = run(*report, "--scan-id", out.strip())
    assert (code, json.loads(out)["score"]) == (0, "overestimation_prior_v2"), err
    assert "901, 201" in (tmp_path / "r/report.html").read_text()


@pytest.mark.parametrize(
    ("asked", "problem"),
    [
        ("981,x", "'981,x': needed one or two timesteps by commas, such as 981,201, or first"),
        ("201,981", "timesteps (201, 981): needed one or two, the larger (the noisier) first"),
        ("1000", "timestep 1000: needed 0 to 999"),
    ],
)
def test_timesteps_that_cannot_be_are_refused(tmp_path, asked, problem):
    (tmp_path / "p.txt").write_text("a cat\n")
    scan = ["scan", tmp_path / "p.txt", "--model", BUNDLE, "--backend", "cpu", "--store", tmp_path / "s"]
    _, err, code = run(*scan, "--timesteps", asked)
    assert code == 2
    assert problem in err
