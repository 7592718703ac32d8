"""`overscan verify`, on prompts of the bundled model that are known to be memorized, ordinary and collapsed."""

import json
import re

import numpy as np
import polars as pl
import pytest
from test_cli import run
from test_similarity import descriptor

from scanner import images
from scanner.dataset.captions import prompt_id
from scanner.demo import BUNDLE, LABELS
from scanner.diffusion.denoiser import Denoiser
from scanner.errors import InputError
from scanner.evidence.chosen import Source
from scanner.evidence.verify import AGREE, Network, Sampling, verdict

MEMORIZED, ORDINARY = "fondue on gray", "spaghetti and broccoli"  # fixed, shown 64 times; composed, never shown


@pytest.fixture(scope="module")
def network(bundle):
    return Network(Denoiser(bundle), Sampling())


@pytest.fixture(scope="module")
def memorized(network):
    return network.verify(MEMORIZED)


@pytest.fixture(scope="module")
def ordinary(network):
    return network.verify(ORDINARY)


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


def test_a_path_starts_at_the_noise_alone_and_ends_at_its_image(memorized):
    weights = memorized.fit.weights
    np.testing.assert_allclose(weights.w_0[0], 0, atol=1e-5)
    np.testing.assert_allclose(weights.w_T[0], 1, atol=1e-5)
    assert memorized.path_steps[0] == 0
    assert memorized.path_steps[-1] == 49
    assert np.abs(memorized.path[-1] - memorized.images).mean() < 0.05


def test_a_given_image_is_reproduced_or_not(network, memorized):
    copy = network.verify(MEMORIZED, memorized.images[0])
    assert copy.copying == 4
    assert verdict(copy) == "The seeds agree; every seed reproduces the given image."
    assert pytest.approx(float(copy.fit.deviation.D1), rel=0.1) == copy.given.fit.deviation.D1
    other = network.verify(ORDINARY, memorized.images[0])
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
    }  # fmt: skip
    page = (out / "verify.html").read_text()
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "\u202e" not in page
    assert not re.findall(r"(?:src|href)=\"(?!data:image/png;base64,|#p)", page)
    assert "default-src 'none'; img-src data:; style-src 'sha256-" in page


def test_prompts_of_a_report_by_rank_and_by_id(tmp_path):
    texts = ["b", "a", "c"]
    ids = [prompt_id(text) for text in texts]
    pl.DataFrame({"rank": [2, 1, 3], "prompt_id": ids, "text": texts}).write_parquet(tmp_path / "scores.parquet")
    assert [c.prompt for c in Source(report=tmp_path, top=2).read()] == ["a", "b"]
    assert [c.prompt for c in Source(report=tmp_path, ids=f"{ids[2][:8]}, {ids[0]}").read()] == ["c", "b"]
    assert [c.prompt for c in Source((" b ", "d"), report=tmp_path, top=2).read()] == ["b", "d", "a"]
    with pytest.raises(InputError, match="names 0 prompts"):
        Source(report=tmp_path, ids="ffffffff").read()
    with pytest.raises(InputError, match="8 or more"):
        Source(report=tmp_path, ids=ids[0][:4]).read()
    pl.DataFrame({"rank": [1], "prompt_id": ids[:1], "text": ["b…"]}).write_parquet(tmp_path / "scores.parquet")
    with pytest.raises(InputError, match="redacted"):
        Source(report=tmp_path).read()


def test_what_cannot_be_verified_is_said(tmp_path):
    with pytest.raises(InputError, match="no prompt to verify"):
        Source().read()
    with pytest.raises(InputError, match="1 images for 2 prompts"):
        Source(("a", "b"), (tmp_path / "a.png",)).read()
    with pytest.raises(InputError, match="--report"):
        Source(("a",), ids="0123456789").read()
    with pytest.raises(InputError, match="no ranked prompts"):
        Source(report=tmp_path).read()
    _, err, code = run(
        "verify", "--model", BUNDLE, "--out", tmp_path, "--prompt", "a", "--image", tmp_path / "missing.png"
    )
    assert code == 2
    assert "no readable image" in err
