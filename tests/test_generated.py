"""What was generated once is kept, and found again only for the same prompt, model, sampling and image."""

from dataclasses import replace

import numpy as np
import pytest
from small import BUNDLE
from test_cli import run

from engines.cache import cache_folder
from scanner.dataset import images
from scanner.evidence import generated
from scanner.evidence.verify import Sampler, Sampling
from scanner.evidence.verify_page import render
from scanner.identity import prompt_id
from scanner.model import Model

FEW = Sampling(seeds=(1000, 1001), num_inference_steps=3)


@pytest.fixture(scope="module")
def model():
    return Model(BUNDLE, "cpu", batch_size=32)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return cache_folder() / "verified"


@pytest.fixture
def counted(monkeypatch):
    """Prompts that were generated."""
    prompts, verify = [], Sampler.verify

    def counting(self, prompt, *rest):
        prompts.append(prompt)
        return verify(self, prompt, *rest)

    monkeypatch.setattr(Sampler, "verify", counting)
    return prompts


def test_a_prompt_is_generated_once(model, cache, counted):
    first = generated.verify_all(model, FEW, {"a cat": None, "a dog": None})
    again = generated.verify_all(model, FEW, {"a dog": None, "a cat": None, "a third": None})
    assert counted == ["a cat", "a dog", "a third"]
    assert [found.prompt for found in again] == ["a dog", "a cat", "a third"]
    pages = [render([found], FEW, "m", {}, {}) for found in (first[0], again[1])]
    assert pages[0] == pages[1]  # to the last pixel and digit
    np.testing.assert_array_equal(first[0].fit.weights.w_0, again[1].fit.weights.w_0)
    assert first[0].agreeing == again[1].agreeing
    assert cache.stat().st_mode & 0o777 == 0o700


def test_another_sampling_image_or_model_is_another_generation(model, cache, counted, tmp_path, monkeypatch):
    generated.verify_all(model, FEW, {"a cat": None})
    generated.verify_all(model, Sampling(seeds=(1000, 1002), num_inference_steps=3), {"a cat": None})
    given = tmp_path / "given.png"
    given.write_bytes(images.png(np.zeros((3, 32, 32), np.float32)))
    (with_image,) = generated.verify_all(model, FEW, {"a cat": given})
    (kept,) = generated.verify_all(model, FEW, {"a cat": given})
    monkeypatch.setattr(generated, "_model", lambda model: ("another", "cpu", "float32"))
    generated.verify_all(model, FEW, {"a cat": None})
    assert counted == ["a cat"] * 4
    np.testing.assert_array_equal(kept.given.similarity.ssim, with_image.given.similarity.ssim)
    np.testing.assert_allclose(kept.given.image, with_image.given.image.clip(-1, 1), atol=1 / 255)
    assert kept.given.fit.deviation.D1 == with_image.given.fit.deviation.D1


def test_each_guidance_scale_is_kept_for_itself(model, cache, counted, monkeypatch):
    (found,) = generated.verify_all(model, FEW, {"a cat": None}, sweep=(1.0, 3.0, 7.5, 3.0))
    assert [one.guidance_scale for one in (found, *found.swept)] == [7.5, 1.0, 3.0]
    assert [one.guidance_scale for one in found.by_scale] == [1.0, 3.0, 7.5]
    (more,) = generated.verify_all(model, FEW, {"a cat": None}, sweep=(10.0, 3.0))
    (alone,) = generated.verify_all(model, replace(FEW, guidance_scale=3.0), {"a cat": None})
    assert len(counted) == 4  # 7.5, 1, 3 and 10
    for kept in (more.swept[1], alone):  # as if it had been asked for alone
        np.testing.assert_array_equal(kept.fit.loss.hat, found.swept[1].fit.loss.hat)
        np.testing.assert_allclose(kept.images, found.swept[1].images.clip(-1, 1), atol=1 / 255)
    assert alone.by_scale == ()
    direct = Sampler(model.denoiser, replace(FEW, guidance_scale=3.0)).verify("a cat")
    np.testing.assert_allclose(direct.fit.weights.w_0, alone.fit.weights.w_0, atol=1e-5)
    np.testing.assert_array_equal(alone.fit_uncond.weights.w_0, found.fit_uncond.weights.w_0)  # without guidance


def test_a_sweep_that_is_interrupted_goes_on(model, cache, counted):
    def watch(what, done, total):
        assert total == 2 * 2 * 3
        if done == 3 + 1:  # in the first prompt's second scale
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generated.verify_all(model, FEW, {"a cat": None, "a dog": None}, watch=watch, sweep=(1.0,))
    generated.verify_all(model, FEW, {"a cat": None, "a dog": None}, sweep=(1.0,))
    assert counted == ["a cat", "a cat", "a cat", "a dog", "a dog"]  # its first scale was kept


def test_a_damaged_file_is_made_again(model, cache, counted):
    generated.verify_all(model, FEW, {"a cat": None})
    (file,) = cache.glob(f"{prompt_id('a cat')[:12]}-*.npz")
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    generated.verify_all(model, FEW, {"a cat": None})
    generated.verify_all(model, FEW, {"a cat": None})
    assert counted == ["a cat", "a cat"]


def test_what_is_ordinary_is_of_everyday_captions_and_kept(model, cache, monkeypatch):
    found = generated.ordinary(model, FEW)
    assert found.D1.shape == found.D2.shape == (8,)
    expected = Sampler(model.denoiser, FEW).deviations(list(generated.EVERYDAY))
    np.testing.assert_allclose(found.D1, expected["D1"].to_numpy(), rtol=1e-6)
    monkeypatch.setattr(Sampler, "deviations", None)
    np.testing.assert_array_equal(generated.ordinary(model, FEW).D2, found.D2)


def test_the_nearest_of_the_given_images_is_found(model, cache):
    (found,) = generated.verify_all(model, FEW, {"a cat": None})
    noise = np.random.default_rng(0).uniform(-1, 1, (2, 3, 32, 32)).astype(np.float32)
    beside = generated.beside(found, np.stack([noise[0], found.images[0].clip(-1, 1), noise[1]]), model)
    seen = model.denoiser.decode(model.denoiser.encode_images(found.images[:1].clip(-1, 1)))
    np.testing.assert_allclose(beside.given.image, seen[0], atol=1e-4)
    assert beside.given.similarity.correlation.shape == (2,)
    assert beside.fit_given is None
    assert "given image" in render([beside], FEW, "m", {}, {})


def test_a_report_with_pictures(tmp_path, cache, monkeypatch):
    (tmp_path / "p.txt").write_text("credit card on brown\na third\n")
    run("scan", tmp_path / "p.txt", "--model", BUNDLE, "--store", tmp_path / "store", "--backend", "cpu")
    asked = ["report", "--store", tmp_path / "store", "--out", tmp_path / "report", "--top", "1", "--by", "an auditor"]
    monkeypatch.setattr(generated, "verify_all", lambda model, _, chosen, **rest: KEPT(model, FEW, chosen, **rest))
    monkeypatch.setattr(generated, "ordinary", lambda model, _, watch: ORDINARY(model, FEW, watch))
    _, err, code = run(*asked, "--verify", "2")
    assert code == 0, err
    page, pictures = ((tmp_path / "report" / name).read_text() for name in ("report.html", "verified.html"))
    assert page.count('<img src="data:image/png;base64,') == 2  # a finding of two seeds
    anchor = prompt_id("credit card on brown")[:12]
    assert f'href="verified.html#p{anchor}"' in page
    assert f'id="p{anchor}"' in pictures
    assert 'href="report.html"' in pictures
    assert "8 everyday captions" in pictures
    assert "an auditor" in page
    assert "overscan explain --report" in page
    _, err, code = run(*asked)
    assert code == 0, err
    assert not (tmp_path / "report" / "verified.html").exists()  # no page of another report stays
    assert "<img" not in (tmp_path / "report" / "report.html").read_text()
    _, err, code = run(*asked, "--verify", "2", "--redact")
    assert (code, "--redact hides captions" in err) == (2, True)


KEPT, ORDINARY = generated.verify_all, generated.ordinary
