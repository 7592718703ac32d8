"""Scans with baselines: the model's own prior, and ordinary captions."""

import json

import numpy as np
import polars as pl
import pytest
from small import BUNDLE
from test_cli import run

from engines.cache import cache_folder
from scanner import ScanConfig, ScannerError, read_store, scan
from scanner.cli.console import status_table
from scanner.config import Reference
from scanner.dataset.captions import reference
from scanner.diffusion.scores import SCORES
from scanner.errors import InputError
from scanner.identity import captions_fingerprint
from scanner.model.cache import cached
from scanner.model.cache import read_packed as load
from scanner.store.ledger import Ledger
from scanner.store.status import status

REFERENCE_SCORES = [name for name, score in SCORES.items() if score.needs == "reference" and not score.told]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache/overscan"


@pytest.fixture
def files(tmp_path):
    (tmp_path / "p.txt").write_text("a cat\nthe moon\nred car\n")
    (tmp_path / "r.txt").write_text("\n".join(f"ordinary caption {i}" for i in range(40)) + "\n\n")
    return tmp_path


FIRST = ScanConfig(timesteps=())


def scanned(folder, reference="r.txt", config=FIRST, **settings):
    chosen = None if reference is None else folder / reference
    return scan(folder / "p.txt", model=BUNDLE, store=folder / "store", reference=chosen, config=config, **settings)


def test_reference_scores_exist_only_with_a_reference(files):
    without, with_ = scanned(files, None), scanned(files)
    assert without.scan_id != with_.scan_id
    assert without.scores.select(REFERENCE_SCORES).null_count().row(0) == (3,) * len(REFERENCE_SCORES)
    assert with_.scores.select(REFERENCE_SCORES).null_count().row(0) == (0,) * len(REFERENCE_SCORES)
    others = [
        name for name, score in SCORES.items() if score.needs in (None, "prior") and score.steps == 1 and not score.told
    ]
    for name in others:
        np.testing.assert_allclose(without.scores[name], with_.scores[name], rtol=1e-6)


def test_a_caption_at_the_references_mean_scores_nothing(files):
    (files / "r.txt").write_text("a cat\nA CAT\na  cat\na cat!\n")
    scores = scanned(files).scores
    for name in ("overestimation_ref_v1", "overestimation_white_v1"):
        assert scores[name][0] < 0.5 * scores[name][1:].min()


def test_captions_that_are_all_the_same_to_the_model_are_no_reference(files):
    (files / "r.txt").write_text("a cat\nA CAT\na  cat\n")
    with pytest.raises(ScannerError, match="predicts the same for all of 6 captions and seeds"):
        scanned(files)


def test_the_order_of_the_reference_does_not_matter(files):
    first = scanned(files)
    lines = (files / "r.txt").read_text().split("\n")
    (files / "s.txt").write_text("\n".join(reversed(lines)) + "\nordinary caption 3\n")
    again = scanned(files, "s.txt")
    assert (again.scan_id, again.already_scored) == (first.scan_id, 3)
    assert captions_fingerprint(["a", "b"]) == captions_fingerprint(["b", "a"]) != captions_fingerprint(["a b"])


def test_another_reference_is_another_scan(files):
    first = scanned(files)
    (files / "s.txt").write_text((files / "r.txt").read_text() + "one more\n")
    second = scanned(files, "s.txt")
    assert (second.scored, second.other_scans) == (3, 3)
    assert second.scan_id != first.scan_id
    recorded = Reference(str(files / "s.txt"), captions_fingerprint(reference(files / "s.txt")))
    assert read_store(files / "store").record.reference == recorded
    newer, older = (scan.reference for scan in status(Ledger(files / "store")).scans)
    assert (newer, older.path) == (recorded, str(files / "r.txt"))
    lines = status_table(status(Ledger(files / "store"))).splitlines()
    assert f"  reference {files / 's.txt'} ({recorded.fingerprint[:8]})" in lines


def test_the_predictions_are_kept_and_found_again(files, cache):
    scanned(files)
    kept = {path.name.split("-")[0]: path for path in cache.glob("*-*")}
    assert json.loads(kept.pop("batch").read_text())["rates"][0] > 0
    assert {name: load(path).shape for name, path in kept.items()} == {
        "prior": (64, 4, 8, 8),
        "reference": (40, 2, 4, 8, 8),
    }
    marked = {path.stat().st_mtime_ns for path in kept.values()}
    (files / "p.txt").write_text("something new\n")
    scanned(files)
    assert {path.stat().st_mtime_ns for path in cache.glob("*.array")} == marked
    scanned(files, config=ScanConfig(seeds=(0, 1, 2), timesteps=()))
    assert sorted(path.name.split("-")[0] for path in cache.glob("*-*")) == ["batch", "prior", "reference", "reference"]


@pytest.mark.parametrize("damage", [b"", b"\x93NUMPY", b"no array", None])
def test_a_damaged_cache_is_computed_anew(cache, damage):
    fresh = np.ones((2, 3), np.float32)
    assert cached("kind", ("k",), (2, 3), lambda: fresh) is fresh
    (path,) = cache.iterdir()
    path.write_bytes(path.read_bytes()[:-1] + b"\0" if damage is None else damage)
    assert cached("kind", ("k",), (2, 3), lambda: fresh) is fresh
    np.testing.assert_array_equal(cached("kind", ("k",), (2, 3), pytest.fail), fresh)


def test_a_cache_that_cannot_be_written_stops_nothing(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    fresh = np.ones((2, 3), np.float32)
    assert cached("kind", ("k",), (2, 3), lambda: fresh) is fresh
    assert not cache_folder().exists()


@pytest.mark.parametrize(
    ("text", "found"), [("", "0 captions"), ("\n\n", "0 captions"), ("a cat\na cat\n", "1 captions")]
)
def test_a_reference_of_nothing_is_refused(files, text, found):
    (files / "r.txt").write_text(text)
    with pytest.raises(InputError, match=f"r.txt: {found} in it; needed a list of ordinary captions"):
        scanned(files)


def test_scores_are_those_of_the_definition(files):
    """overestimation_ref by the plain formula from the predictions that the cache holds."""
    from engines import open_bundle
    from scanner.diffusion.denoiser import Denoiser
    from scanner.diffusion.start import start
    from scanner.diffusion.trace import trace

    scores = scanned(files).scores
    (kept,) = cache_folder().glob("reference-*")
    denoiser = Denoiser(open_bundle(BUNDLE))
    some = trace(denoiser, denoiser.encode(["a cat"]), start(denoiser, (0, 1), 50), 7.5, 50, 1)
    distance = np.linalg.norm((some.cond.eps[0, 0] - load(kept).mean(0)).reshape(2, -1), axis=1).mean()
    expected = 7.5 * some.noise_rate[0] / some.signal_rate[0] * distance / (16 * denoiser.latent_std)
    assert scores.filter(pl.col("text") == "a cat")["overestimation_ref_v1"][0] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ("seeds", "compared", "best"),
    [
        (2, True, "estimate_ratio_white_v1"),
        (4, False, "estimate_ratio_prior_v1"),
        (1, True, "overestimation_white_v1"),
        (1, False, "overestimation_prior_v1"),
    ],
)
def test_reports_rank_by_the_best_that_the_scan_has(files, seeds, compared, best):
    scanned(files, "r.txt" if compared else None, config=ScanConfig(seeds=tuple(range(seeds)), timesteps=()))
    out, err, code = run("report", "--store", files / "store", "--out", files / "report", "--top", 1, "--json")
    assert (code, json.loads(out)["score"]) == (0, best), err
    assert f"{best}, the best measured of those that the scan has" in (files / "report/report.html").read_text()
    out, _, code = run(
        "report", "--store", files / "store", "--out", files / "o", "--score", "overestimation_v1", "--json"
    )
    assert (code, json.loads(out)["score"]) == (0, "overestimation_v1")
    assert "the best measured" not in (files / "o/report.html").read_text()


def test_a_reference_does_not_change_what_a_threshold_means(files):
    scanned(files, None)
    asked = ["report", "--store", files / "store", "--threshold", 1.5]
    assert run(*asked, "--out", files / "before")[2] == 0
    scanned(files)
    _, err, code = run(*asked, "--out", files / "after")
    assert (code, err) == (
        2,
        "error: a threshold without a score: by default this scan is ranked by estimate_ratio_white_v1, the same of "
        "two seeds and without a reference by estimate_ratio_prior_v1: name the --score that the --threshold is of\n",
    )
    assert run(*asked, "--out", files / "after", "--score", "estimate_ratio_white_v1")[2] == 0
    _, err, code = run("diff", "--from", files / "before", "--to", files / "after")
    assert code == 2
    assert "reports of estimate_ratio_prior_v1 and of estimate_ratio_white_v1 do not compare" in err


def test_a_threshold_is_of_the_score_that_the_scan_s_own_timesteps_rank_by(files):
    """Of most models these are the usual ones, and their score is no exception."""
    asked = ["report", "--store", files / "store", "--threshold", 1.5, "--out", files / "report", "--json"]
    scanned(files, None, config=ScanConfig(timesteps=None))
    out, err, code = run(*asked)
    assert (code, json.loads(out)["score"]) == (0, "low_noise_norm_v1"), err
    scanned(files, config=ScanConfig(timesteps=(901,)))
    _, err, code = run(*asked)
    assert code == 2
    assert "ranked by estimate_ratio_white_v2, the same of two seeds and without a reference by estimate_ratio_p" in err
