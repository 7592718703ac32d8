"""`overscan verify`, on prompts of the small model that are known to be memorized, ordinary and collapsed."""

import json
import re

import numpy as np
import polars as pl
import pytest
from small import BUNDLE, LABELS
from test_cli import run
from test_similarity import descriptor

from scanner.dataset import images
from scanner.diffusion.denoiser import Denoiser
from scanner.errors import InputError
from scanner.evidence.chosen import with_images
from scanner.evidence.verification import AGREE, verdict
from scanner.evidence.verify import Sampler, Sampling
from scanner.identity import prompt_id

MEMORIZED, ORDINARY = "fondue on gray", "spaghetti and broccoli"  # fixed, shown 64 times; composed, never shown


@pytest.fixture(scope="module")
def sampler(bundle):
    return Sampler(Denoiser(bundle), Sampling())


@pytest.fixture(scope="module")
def memorized(sampler):
    return sampler.verify(MEMORIZED)


@pytest.fixture(scope="module")
def ordinary(sampler):
    return sampler.verify(ORDINARY)


def test_the_two_prompts_are_what_generation_once_said():
    labels = pl.read_parquet(LABELS).filter(pl.col("prompt").is_in([MEMORIZED, ORDINARY])).sort("prompt")
    assert labels["label"].to_list() == [True, False]
    assert labels["role"].to_list() == ["fixed", "composed"]


def test_seeds_of_a_memorized_prompt_agree_as_the_labels_say(memorized, ordinary):
    labels = dict(pl.read_parquet(LABELS).select("prompt", "cross_seed_similarity").iter_rows())
    for found in (memorized, ordinary):  # the same four seeds; there from images of 8 bits
        assert found.mean_correlation == pytest.approx(labels[found.prompt], abs=0.01)
    assert memorized.agreeing == 4
    assert ordinary.agreeing == 1
    assert memorized.among_seeds.ssim.min() > 0.9
    assert ordinary.mean_correlation < 0.5 < AGREE


def test_the_papers_story_is_visible(memorized, ordinary):
    early = slice(5, 20)
    ahead = [(f.fit.weights.w_0.mean(1) - f.signal_rate)[early].mean() for f in (memorized, ordinary)]
    assert ahead[0] > 0.3 > ahead[1] + 0.2
    assert memorized.fit.deviation.D1 > ordinary.fit.deviation.D1 + 5
    overestimated = [(f.norm_hat / f.norm_final).mean(1)[0] for f in (memorized, ordinary)]
    assert overestimated[0] > 1.5 * overestimated[1]
    assert memorized.distance[-1] < 0.1 * memorized.distance[0]
    assert ordinary.distance[-1] > 0.5 * ordinary.distance[0]
    assert memorized.distance_uncond[-1] > 0.5 * memorized.distance_uncond[0]
    hat, cond, uncond = (np.sqrt(branch[0]).mean() for branch in memorized.fit.loss)
    assert cond < 0.5 * uncond  # the prompt alone is nearly right at once, and guidance overshoots
    assert hat > 3 * uncond
    assert hat > np.sqrt(ordinary.fit.loss.hat[0]).mean()
    assert cond < 0.5 * np.sqrt(ordinary.fit.loss.cond[0]).mean()
    for found in (memorized, ordinary):  # guidance puts the image into the noise, with the other sign
        assert found.fit.cosine.hat[0].mean() < found.fit.cosine.uncond[0].mean() - 0.05
        assert found.cosine_x_T.hat[0].mean() < found.cosine_x_T.cond[0].mean() < 1


def test_a_path_starts_at_the_noise_alone_and_ends_at_its_image(memorized):
    weights = memorized.fit.weights
    np.testing.assert_allclose(weights.w_0[0], 0, atol=1e-5)
    np.testing.assert_allclose(weights.w_T[0], 1, atol=1e-5)
    assert memorized.path_steps[0] == 0
    assert memorized.path_steps[-1] == 49
    assert np.abs(memorized.path[-1] - memorized.images).mean() < 0.05


def test_a_given_image_is_reproduced_or_not(sampler, memorized):
    copy = sampler.verify(MEMORIZED, memorized.images[0])
    assert copy.copying == 4
    assert verdict(copy) == "The seeds agree; every seed reproduces the given image."
    assert pytest.approx(float(copy.fit.deviation.D1), rel=0.1) == copy.given.fit.deviation.D1
    other = sampler.verify(ORDINARY, memorized.images[0])
    assert verdict(other) == "The seeds differ; none reproduces the given image."
    agreeing = "The seeds agree. Whether they reproduce a training image is not known: no image was given."
    assert verdict(memorized) == agreeing


def test_the_command_writes_page_pictures_and_numbers(tmp_path, memorized):
    given, out = tmp_path / "given.png", tmp_path / "out"
    given.write_bytes(images.png(memorized.images[0]))
    colour = descriptor(tmp_path / "colour.onnx")
    hostile = "</style><script>alert(1)</script> \u202e x"
    arguments = ["--prompt", MEMORIZED, "--image", given, "--prompt", hostile, "--image", given]
    options = ["--num-inference-steps", "20", "--seeds", "2", "--descriptor", colour]
    said, err, code = run("verify", "--model", BUNDLE, "--out", out, *arguments, *options)
    assert code == 0, err
    assert said.splitlines()[0].endswith(f"The seeds agree; every seed reproduces the given image.  {MEMORIZED}")
    numbers = json.loads((out / "verify.json").read_text())
    first = numbers["prompts"][0]
    assert numbers["sampling"] == {"seeds": [1000, 1001], "guidance_scale": 7.5, "num_inference_steps": 20}
    assert first["copying_seeds"] == 2
    assert len(first["to_given"]["descriptor"]) == 2
    steps = pl.read_parquet(out / "verify.parquet")
    assert len(steps) == 2 * 2 * 20
    D1 = steps.filter(prompt_id=first["prompt_id"]).select(((pl.col("w_0") - pl.col("signal_rate")) / 2).sum()).item()
    assert pytest.approx(first["D1"], abs=1e-4) == D1
    folder = out / prompt_id(MEMORIZED)[:12]
    assert images.read(folder / "seed-1000.png", 32, 32).shape == (3, 32, 32)
    assert {path.name for path in folder.iterdir()} == {
        "seed-1000.png", "seed-1001.png", "given.png", "path.png",
        "weights.svg", "weights-given.svg", "estimate.svg", "distance.svg",
        "loss.svg", "cosine-x_0.svg", "cosine-x_T.svg",
    }  # fmt: skip
    page = (out / "verify.html").read_text()
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "\u202e" not in page
    assert not re.findall(r"(?:src|href)=\"(?!data:image/png;base64,|#p)", page)
    assert "default-src 'none'; img-src data:; style-src 'sha256-" in page


def test_a_sweep_shows_what_guidance_does(tmp_path, memorized):
    given, out = tmp_path / "given.png", tmp_path / "out"
    given.write_bytes(images.png(memorized.images[0]))
    arguments = ["--prompt", MEMORIZED, "--image", given, "--seeds", 2, "--num-inference-steps", 20]
    _, err, code = run("verify", "--model", BUNDLE, "--out", out, *arguments, "--sweep", "3,1,7.5")
    assert code == 0, err
    price = f"at most {(9 * 3 + 1) * 2 * 39:,} UNet passes"  # eight everyday captions beside one, and the empty prompt
    assert err.startswith(
        "Generates 1 prompt, and 8 everyday captions to compare with at each of 3 guidance scales: " + price
    )
    numbers = json.loads((out / "verify.json").read_text())
    assert [at["guidance_scale"] for at in numbers["ordinary"]] == [7.5, 3, 1]
    (prompt,) = numbers["prompts"]
    assert [at["guidance_scale"] for at in prompt["sweep"]] == [1, 3, 7.5]
    assert prompt["sweep"][2] == {name: value for name, value in prompt.items() if name != "sweep"}
    D1 = [at["D1_given"] for at in prompt["sweep"]]
    assert D1[0] < D1[1] < D1[2]
    steps = pl.read_parquet(out / "verify.parquet")
    assert len(steps) == 3 * 2 * 20
    first = steps.filter(step=0).drop("prompt_id").group_by("guidance_scale").mean().sort("guidance_scale")
    np.testing.assert_allclose(first["loss_cond_given"], first["loss_cond_given"][0], rtol=1e-5)  # before guidance acts
    np.testing.assert_allclose(first["loss_hat_given"][0], first["loss_cond_given"][0], rtol=1e-3)  # 1 is none
    assert first["loss_hat_given"].is_sorted()
    assert first["cosine_x_0_hat_given"].is_sorted(descending=True)
    folder = out / prompt_id(MEMORIZED)[:12]
    assert {path.name for path in folder.glob("s*")} == {
        "seed-1000.png", "seed-1001.png", "scale-1-seed-1000.png", "scale-1-seed-1001.png", "scale-3-seed-1000.png",
        "scale-3-seed-1001.png", "sweep-similarity.svg", "sweep-deviations.svg",
    }  # fmt: skip
    page = (out / "verify.html").read_text()
    assert "With the guidance scale" in page
    assert page.count(" at scale ") == 3 * 2 + 1  # images, and the note


@pytest.fixture(scope="module")
def reported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reported")
    (folder / "p.txt").write_text(f"{MEMORIZED}\n{ORDINARY}\na third\n")
    run("scan", folder / "p.txt", "--model", BUNDLE, "--store", folder / "store", "--backend", "cpu")
    for name, options in (("report", []), ("redacted", ["--redact"])):
        _, err, code = run("report", "--store", folder / "store", "--out", folder / name, "--top", 2, *options)
        assert code == 0, err
    return folder


def test_prompts_given_come_before_those_of_a_report(reported, tmp_path):
    ids = prompt_id(ORDINARY)[:8] + "," + prompt_id("a third")[:8]
    asked = ["--prompt", "a fourth", "--prompt", "a third", "--report", reported / "report", "--ids", ids]
    options = ["--seeds", 2, "--num-inference-steps", 2, "--out", tmp_path]
    said, err, code = run("verify", "--model", BUNDLE, *asked, *options)
    assert code == 0, err
    assert [line.split("  ")[-1] for line in said.splitlines()] == ["a fourth", "a third", ORDINARY]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "needed --prompt or --report"),
        (["--prompt", "a", "--ids", "0123456789"], "--ids needs --report"),
        (["--report", "redacted"], "the report is redacted"),
        (["--report", "store"], "not a whole report"),
        (["--prompt", " "], "prompt '' is empty: needed a caption"),
        (["--prompt", "a", "--image", "missing.png"], "no readable image"),
        (["--prompt", "a", "--sweep", "1,x"], "'1,x': needed guidance scales by commas, such as 1,3,5,10"),
        (["--prompt", "a", "--sweep", "1,nan"], "'1,nan': needed guidance scales by commas"),
    ],
)
def test_the_command_refuses(reported, monkeypatch, arguments, message):
    monkeypatch.chdir(reported)
    out, err, code = run("verify", "--model", BUNDLE, "--out", "out", *arguments)
    assert (code, out) == (2, "")
    assert message in err


def test_a_report_of_another_model_is_refused(reported, epsilon_bundle_path, tmp_path):
    asked = ["verify", "--report", reported / "report", "--model", epsilon_bundle_path, "--out", tmp_path / "out"]
    out, err, code = run(*asked)
    assert (code, out) == (2, "")
    assert err == (
        f"error: {epsilon_bundle_path}: not the model of the report, which is of {BUNDLE}: its prompts stand out under "
        "that one; give that as --model, or choose prompts with --prompt\n"
    )


def test_each_prompt_has_its_image_or_none_has(tmp_path):
    a, b = tmp_path / "a.png", tmp_path / "b.png"
    assert with_images([" b ", "a", "b"], []) == {"b": None, "a": None}
    assert with_images([" b ", "a"], [b, a]) == {"b": b, "a": a}
    with pytest.raises(InputError, match="1 images for 2 prompts, 2 of them different: give each --prompt one --image"):
        with_images(["a", "b"], [a])
    with pytest.raises(InputError, match="2 images for 2 prompts, 1 of them different: give each --prompt one --image"):
        with_images(["a", " a "], [a, b])
    with pytest.raises(InputError, match="is undecodable"):
        with_images(["caf\ufffd"], [])
