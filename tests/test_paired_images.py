"""Paired images: tars, paths and damage, on the small model."""

import io
import tarfile
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from click.testing import CliRunner
from ideal import G
from small import BUNDLE

from scanner.cli import cli
from scanner.config import Screen
from scanner.dataset import images
from scanner.dataset.paired_images import paired_images
from scanner.diffusion.denoiser import Denoiser
from scanner.diffusion.start import start
from scanner.diffusion.trace import denoise
from scanner.errors import InputError, ScannerError
from scanner.evidence import images as injections
from scanner.model import Model
from scanner.scanning.run import scan
from scanner.store.stored import read_store

MEMORIZED = ["fondue on gray", "badger", "floppy disk"]  # 64 times in the small model's training set


@pytest.fixture(scope="session")
def generated(bundle):
    """PNG files of what the small model generates for prompts that it memorized."""
    denoiser = Denoiser(bundle)
    *_, last = denoise(denoiser, denoiser.encode(MEMORIZED), start(denoiser, (77,), 20), G, 20)
    return [images.png(image) for image in denoiser.decode(last.x_t[:, 0])]


@pytest.fixture
def dataset(tmp_path, generated):
    """Captions with a column of paths; the third caption bears the second one's image, three have none to read."""
    (tmp_path / "pictures").mkdir()
    for name, data in zip(("a.png", "b.png"), generated, strict=False):
        (tmp_path / "pictures" / name).write_bytes(data)
    (tmp_path / "pictures/bad.png").write_bytes(generated[0][:50])
    captions = [*MEMORIZED, "red car", "blue dog", "green sea"]
    paths = ["pictures/a.png", "pictures/b.png", "pictures/b.png", "pictures/none.png", "pictures/bad.png", None]
    pl.DataFrame({"caption": captions, "path": paths}).write_parquet(tmp_path / "captions.parquet")
    scan(tmp_path / "captions.parquet", model=BUNDLE, store=tmp_path / "store")
    return tmp_path


def test_the_command_pairs_memorized_prompts_with_their_images(dataset):
    options = ["--store", dataset / "store", "--model", BUNDLE, "--images", "path", "--out", dataset / "out"]
    done = CliRunner().invoke(cli, ["images", *map(str, options)], catch_exceptions=False)
    assert done.exit_code == 0
    assert "paired      3" in done.stdout
    assert "unreadable  2" in done.stdout
    assert "3 of 3 captions point at their own image more than at any other looked at" in done.stdout
    found = pl.read_parquet(dataset / "out/images.parquet")
    assert pl.read_ndjson(dataset / "out/images.jsonl")["text"].to_list() == found["text"].to_list()
    rows = {row["text"]: row for row in found.iter_rows(named=True)}
    for text, name in zip(MEMORIZED[:2], ("a", "b"), strict=True):
        assert rows[text]["injection_cosine_prior"] > 0.8
        assert rows[text]["injection_prior"] == pytest.approx(G, rel=0.35)
        assert rows[text]["nearest_image"] == f"pictures/{name}.png"
        assert len(rows[text]["w_0"]) == 1
        assert rows[text]["w_0"][0] > 0.03  # g*k = 0.07 on paper
        assert rows[text]["w_T"][0] == pytest.approx(1, abs=0.01)
        assert rows[text]["r_perp"] < rows[text]["E_rel"] < 0.75 < rows[MEMORIZED[2]]["E_rel"]
        losses = [rows[text][f"loss_{branch}"][0] for branch in ("cond", "uncond", "hat")]
        assert losses[0] < losses[1] < losses[2]  # guidance overshoots; (g - 1)^2 = 42 times the second on paper
        assert 20 < losses[2] / losses[1] < 60
        cosines = [rows[text][f"cosine_x_0_{branch}"][0] for branch in ("cond", "uncond", "hat")]
        assert cosines[2] < cosines[0] < cosines[1] + 0.01
        assert all(0.7 < rows[text][f"cosine_x_T_{branch}"][0] <= 1 for branch in ("cond", "uncond", "hat"))
    assert rows[MEMORIZED[2]]["injection_cosine_prior"] < 0.6  # another's image
    assert rows["green sea"]["status"] == "no_image"
    assert "missing" in rows["red car"]["problem"] or "No such file" in rows["red car"]["problem"]
    for text in ("red car", "blue dog", "green sea"):
        assert rows[text]["injection"] is None
        assert rows[text]["w_0"] is rows[text]["E_rel"] is rows[text]["loss_hat"] is None
        assert rows[text]["nearest_image"] is not None


def test_a_missing_column_and_another_model_are_refused(dataset):
    stored = read_store(dataset / "store")
    with pytest.raises(InputError, match="column 'url' needed; it has 'caption', 'path': name one with --images"):
        injections.look(stored, Model(BUNDLE), "url", "low_noise_norm_v1", 5)
    with pytest.raises(ScannerError, match="not the model of scan"):
        injections.look(replace(stored, scan_id="0" * 32), Model(BUNDLE), "path", "low_noise_norm_v1", 5)


def test_a_screened_scan_is_of_its_model_too(dataset):
    screened = scan(dataset / "captions.parquet", model=BUNDLE, store=dataset / "store", screen=Screen(0.5))
    refined, full = (read_store(dataset / "store", name) for name in (screened.scan_id, screened.full_scan_id))
    found = injections.look(refined, Model(BUNDLE), "path", "low_noise_norm_v1", 5)
    plain = injections.look(full, Model(BUNDLE), "path", "low_noise_norm_v1", 5)
    assert 0 < len(found) <= 3  # half of six captions got all passes
    both = found.join(plain, "text", suffix="_plain").drop_nulls("injection")
    assert both["injection"].to_list() == pytest.approx(both["injection_plain"].to_list(), rel=1e-4)


def write_tar(path, samples):
    with tarfile.open(path, "w") as archive:
        for name, data in samples:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))


def test_members_of_tars_and_of_the_tar_beside_a_table(tmp_path, generated):
    samples = [("0.txt", b"one"), ("0.png", generated[0]), ("1.txt", b"two"), ("2.txt", b"x"), ("2.jpg", b"no image")]
    write_tar(tmp_path / "a.tar", samples)
    found = {p.row: p for p in paired_images(str(tmp_path / "a.tar"), {0, 1, 2, 7}, "members", 32, 32)}
    assert [found[row].status for row in (0, 1, 2, 7)] == ["paired", "no_image", "unreadable", "no_image"]
    np.testing.assert_array_equal(found[0].pixels, images.decode(generated[0], 32, 32))
    pl.DataFrame({"caption": ["x", "one"], "key": ["2", "0"]}).write_parquet(tmp_path / "a.parquet")
    by_key = {p.row: p.status for p in paired_images(str(tmp_path / "a.parquet"), {0, 1}, "members", 32, 32)}
    assert by_key == {0: "unreadable", 1: "paired"}


def test_a_damaged_tar_costs_the_rows_behind_the_damage(tmp_path, generated):
    write_tar(tmp_path / "a.tar", [("0.png", generated[0]), ("1.png", generated[1])])
    whole = (tmp_path / "a.tar").read_bytes()
    cut = 512 + -(-len(generated[0]) // 512) * 512 + 512 + 100
    (tmp_path / "a.tar").write_bytes(whole[:cut])
    found = {p.row: p for p in paired_images(str(tmp_path / "a.tar"), {0, 1}, "members", 32, 32)}
    assert found[0].status == "paired"
    assert found[1].status == "unreadable"
    assert "damaged" in found[1].problem


def test_members_need_a_tar(tmp_path):
    pl.DataFrame({"caption": ["x"]}).write_parquet(tmp_path / "b.parquet")
    with pytest.raises(InputError, match=r"no tar, nor b\.tar beside it"):
        list(paired_images(str(tmp_path / "b.parquet"), {0}, "members", 32, 32))
