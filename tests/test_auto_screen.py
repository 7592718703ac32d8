"""Screens that are chosen: by a table, and by what the last one lost."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from small import BUNDLE, CHECKPOINTS, LABELS
from test_cli import run
from test_end_to_end import PROMPTS

from engines.bundle import read_manifest
from scanner import ScannerError, read_store, scan
from scanner.audit import screened, screens
from scanner.config import AutoScreen, ScanConfig, Screen
from scanner.dataset.shards import Shard, sampled
from scanner.diffusion.scores import SCORES
from scanner.evidence.screens import SHARES, curve, lowest
from scanner.identity import identity
from scanner.model import Model
from scanner.model.usual import usual_timesteps
from scanner.scanning import auto, execute
from scanner.scanning.auto import lost, settled, widened
from scanner.scanning.dry_run import dry_run
from scanner.scanning.request import Request
from scanner.store.ledger import Ledger
from scanner.store.record import Screening

NORM, PRIOR, RATIO = "text_noise_norm_v1", "overestimation_prior_v1", "estimate_ratio_prior_v1"
LOOSE = [(1.0, "first", NORM, share, 1.0) for share in (0.05, 0.1, 0.5)]  # claims that any share keeps all


def test_a_curve_by_hand():
    others = np.arange(100.0)
    first = np.r_[others, 98.5, 97.5, 50.0, 10.0]
    full = np.r_[others, 99.5, 99.5, 99.5, 3.0]  # the last is found by nothing
    labels = pl.DataFrame({"label": [False] * 100 + [True] * 4, "collapsed": [False] * 104})
    rows = pl.DataFrame(list(curve(first, full, labels)))
    kept = rows.filter(collapsed="negative").select("share", "kept", "recall", "found", "found_by_all")
    assert kept.row(0) == (0.01, 0.0, 0.0, 0.0, 0.75)
    assert kept.row(1) == (0.02, pytest.approx(1 / 3), 0.25, 0.25, 0.75)
    assert kept.row(7) == (0.5, 1.0, 0.75, 0.75, 0.75)
    named = rows.with_columns(side=1.0, told=pl.lit("first"), score=pl.lit(NORM))
    worst = lowest(pl.concat([named, named.with_columns(pl.col("kept") / 2)]))
    assert worst["share"].to_list() == list(SHARES)
    assert worst["kept"].to_list()[-1] == 0.5


def ledger_of(path, n, lose):
    """Sampled prompts whose full score is their number; of the highest, a first pass would miss `lose`."""
    screening = Screening("full", "first", "m", NORM, 0.05, threshold=0.95 * n, sample=0.5, wanted=0.9)
    ids = pl.DataFrame({"prompt_id": [identity(str(i)) for i in range(n)]}).filter(sampled(0.5))
    number = np.arange(len(ids), dtype=np.float32)
    first = number * n / len(ids)
    if lose:
        first[-lose:] = 0.8 * n + np.arange(lose)
    ledger = Ledger(path, tuple(SCORES))
    ledger.append(screening.scan_id, ids.with_columns(pl.Series(RATIO, number), status=pl.lit("scored")))
    ledger.append("first", ids.with_columns(pl.Series(NORM, first, pl.Float32), status=pl.lit("scored")))
    return screening, ledger


def test_a_screen_that_loses_too_much_is_widened(tmp_path):
    screening, ledger = ledger_of(tmp_path / "lossy", 8000, lose=30)
    found, needed = lost(screening, ledger, RATIO)
    assert (found.flagged, found.kept) == (41, 11)
    assert needed == pytest.approx(0.2, abs=0.01), "a fifth of the prompts holds nine in ten of the highest"
    share, why = widened(screening, ledger, RATIO)
    assert share == 0.2
    assert why.startswith(
        "; here it kept 26.8 % (15.7 to 41.9 %) of the highest of a sample, less than is wanted: widened"
    )
    assert why.endswith("from 0.05 to 0.2")


def test_a_screen_that_keeps_enough_stays_and_too_few_tell_nothing(tmp_path):
    screening, ledger = ledger_of(tmp_path / "good", 8000, lose=0)
    assert widened(screening, ledger, RATIO) == (
        0.05,
        "; here it kept 100 % (91.4 to 100 %) of the highest of a sample",
    )
    screening, ledger = ledger_of(tmp_path / "few", 400, lose=2)
    assert widened(screening, ledger, RATIO) == (0.05, "; what it loses here is unknown yet, 2 of 20 of a sample")


@pytest.fixture
def asked(tmp_path):
    (tmp_path / "p.txt").write_text("\n".join(PROMPTS))
    pl.DataFrame(LOOSE, schema=screens.SCHEMA, orient="row").write_csv(tmp_path / "curves.csv")
    screen = AutoScreen(0.97, tmp_path / "curves.csv", sample=0.4)
    return {"model": BUNDLE, "config": ScanConfig(seeds=(0, 1, 2)), "screen": screen, "store": tmp_path / "store"}


def by_id(store, scan_id):
    return read_store(store, scan_id).scores.sort("prompt_id")


def test_a_night_that_loses_too_much_widens_the_next_which_computes_only_what_is_new(tmp_path, asked, monkeypatch):
    monkeypatch.setattr(auto, "FOUND", 0.5)
    monkeypatch.setattr(screened, "LEAST", 5)
    planned = dry_run(tmp_path / "p.txt", **asked)
    first = scan(tmp_path / "p.txt", **asked)
    chosen = first.screening
    assert (chosen.share, chosen.score, chosen.wanted) == (0.05, NORM, 0.97)
    assert planned.screened_because == chosen.why
    assert chosen.why == (
        f"chosen to keep 0.97 of what all passes find: the highest 0.05 by {NORM}, told the first timestep, "
        f"keep 1 by {tmp_path / 'curves.csv'}, for about 2.29 passes instead of 3"
    )
    scored = []
    local = execute.local

    def counting(model, chunks, stop):
        for frame in local(model, chunks, stop):
            scored.extend(frame["prompt_id"])
            yield frame

    second = scan(tmp_path / "p.txt", executor=counting, **asked)
    assert second.scan_id != first.scan_id
    assert second.screening.share in (0.1, 0.5)
    assert "less than is wanted: widened from 0.05 to" in second.screening.why
    refined = {found.scan_id: by_id(asked["store"], found.scan_id).filter(status="scored") for found in (first, second)}
    before, after = refined[first.scan_id], refined[second.scan_id]
    assert set(scored) == set(after["prompt_id"]) - set(before["prompt_id"])
    carried = after.filter(pl.col("prompt_id").is_in(before["prompt_id"].implode()))
    assert carried.equals(before.filter(pl.col("prompt_id").is_in(carried["prompt_id"].implode())))
    sketches = [read_store(asked["store"], id_).sketches(carried["prompt_id"]).sort("prompt_id") for id_ in refined]
    assert sketches[0].equals(sketches[1])
    assert len(sketches[0]) == len(carried)
    request = Request(tmp_path / "p.txt", **asked | {"shard": Shard(1, 2)})
    assert settled(request).screen.share == second.screening.share, "shards take the screen as it was last"


def test_a_scan_without_a_screen_is_carried_over_whole(tmp_path, asked):
    plain = scan(tmp_path / "p.txt", **asked | {"screen": None})
    result = scan(tmp_path / "p.txt", **asked | {"screen": Screen(0.2)})
    assert (result.scored, result.screening.refined) == (0, 12)
    found, full = by_id(asked["store"], result.scan_id), by_id(asked["store"], plain.scan_id)
    refined = found.filter(status="scored")
    assert refined.equals(full.filter(pl.col("prompt_id").is_in(refined["prompt_id"].implode())))


@pytest.mark.slow
def test_a_first_pass_of_half_the_side_costs_a_quarter(tmp_path, asked):
    _, err, code = run("export", CHECKPOINTS["v_prediction"], tmp_path / "half", "--size", "16")
    assert code == 0, err
    rows = [(0.5, "usual", "low_noise_norm_v1", 0.2, 0.98)]
    pl.DataFrame(rows, schema=screens.SCHEMA, orient="row").write_csv(tmp_path / "half.csv")
    screen = AutoScreen(0.97, tmp_path / "half.csv", tmp_path / "half", sample=0.0)
    result = scan(tmp_path / "p.txt", **asked | {"screen": screen})
    chosen = result.screening
    assert (chosen.score, chosen.share, chosen.passes, chosen.refined) == ("low_noise_norm_v1", 0.2, 0.25, 12)
    assert chosen.passes_per_prompt == pytest.approx(0.25 + 3 * 0.2)
    first = Ledger(asked["store"]).records(chosen.first_scan_id)[0]
    (usual,) = usual_timesteps(read_manifest(tmp_path / "half"))
    assert usual < 289, "of smaller latents, where noise hides more, less noise"
    assert (first.config.timesteps, first.config.seeds, first.model) == ((usual,), (0,), str(tmp_path / "half"))
    highest = by_id(asked["store"], chosen.first_scan_id).top_k(12, by="low_noise_norm_v1")["prompt_id"]
    assert set(by_id(asked["store"], result.scan_id).filter(status="scored")["prompt_id"]) == set(highest)
    shown, _, _ = run("status", "-s", asked["store"])
    assert "after 0.25 passes; 0.85 UNet passes per prompt on average" in shown


def test_kinds_of_models_that_no_table_speaks_of_are_refused():
    manifest = Model(BUNDLE).bundle.manifest
    auto._measured(manifest)
    with pytest.raises(
        ScannerError, match=r"screen auto: what a first pass keeps was measured .* \(stable-diffusion, latents of 8x8\)"
    ):
        auto._measured(replace(manifest, prediction_type="flow"))
    with pytest.raises(ScannerError, match="latents of 128x128"):
        auto._measured(replace(manifest, latent_shape=(4, 128, 128)))


def test_on_the_command_line(tmp_path, asked):
    given = ["scan", tmp_path / "p.txt", "-m", BUNDLE, "-s", tmp_path / "s", "--seeds", "3", "--screen", "auto"]
    curves = ["--screen-curves", tmp_path / "curves.csv", "--screen-keep", "0.97", "--screen-sample", "0.4"]
    _, err, code = run(*given, *curves, "--dry-run")
    assert code == 0, err
    assert "screen          chosen to keep 0.97 of what all passes find" in err
    for extra, words in (
        (["--screen-score", NORM], "--screen-score with --screen auto: --screen auto chooses it: leave it out"),
        (["--screen", "0.1", "--screen-keep", "0.9"], "--screen-keep with --screen 0.1: it is for --screen auto"),
    ):
        _, err, code = run(*given, *extra)
        assert code == 2
        assert words in err
    _, err, code = run(*given[:6], "--screen-sample", "0.1")
    assert code == 2
    assert "--screen-sample without a screen: needed --screen SHARE, such as 0.02, or --screen auto" in err


def test_evaluate_writes_the_table_of_ones_own_model(tmp_path):
    labels = pl.read_parquet(LABELS).drop_nulls("label").sort("label", descending=True, maintain_order=True)
    pl.concat([labels[:10], labels[-30:]]).write_parquet(tmp_path / "l.parquet")
    asked = ["evaluate", tmp_path / "l.parquet", "-m", BUNDLE, "-o", tmp_path / "out", "--screens"]
    _, err, code = run(*asked, "--batch-size", "16")
    assert code == 0, err
    table = screens.read(tmp_path / "out/screens.csv")
    measured = pl.read_parquet(tmp_path / "out/screens-measured.parquet")
    assert len(table) == 4 * len(screens.SHARES)
    assert len(measured) == 2 * len(table)
    assert (measured["found"] <= measured["found_by_all"]).all()
    row = table.row(0, named=True)
    key = {name: row[name] for name in ("side", "told", "score", "share")}
    assert row["kept"] == pytest.approx(measured.filter(**key)["kept"].min(), abs=1e-4)
    _, err, code = run(*asked[:-1], "--screen-model", BUNDLE)
    assert code == 2
    assert "--screen-model is for --screens" in err
