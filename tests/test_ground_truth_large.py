"""The same recipe at 64 x 64 latents, and on a GPU: what is done there equals what an engine does on a processor."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from small import CHECKPOINTS, first
from torch import nn
from transformers import CLIPTextModel, CLIPTokenizer

from engines import open_bundle
from scanner.config import ScanConfig
from scanner.diffusion.denoiser import Denoiser
from scanner.diffusion.scores import SCORES
from scanner.model import Model
from tools.ground_truth import graphed, labels, large, packed, sampling, scenes
from tools.ground_truth.packed import Packed
from tools.ground_truth.scenes import Scene
from tools.ground_truth.similarity import unit

CONFIRMATION = Path(__file__).parent / "checkpoints/confirmation"
KINDS = ("v_prediction", "epsilon")


def read(kind):
    """A small checkpoint's UNet and VAE, and hidden states of two captions and the empty one."""
    folder = CHECKPOINTS[kind]
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    tokens = tokenizer(
        [*first(2), ""],
        padding="max_length",
        truncation=True,
        max_length=tokenizer.model_max_length,
        return_tensors="pt",
    ).input_ids
    with torch.no_grad():
        hidden = CLIPTextModel.from_pretrained(folder / "text_encoder").float()(tokens).last_hidden_state
    unet = UNet2DConditionModel.from_pretrained(folder / "unet").float().eval()
    return unet, AutoencoderKL.from_pretrained(folder / "vae").float().eval(), hidden


@pytest.mark.parametrize("kind", KINDS)
def test_pictures_and_norms_are_those_of_an_engine(kind):
    unet, vae, hidden = read(kind)
    denoiser = Denoiser(open_bundle(CHECKPOINTS[kind], "torch"), batch_size=16)
    wanted = labels.generate(denoiser, first(2), (1000, 1001), 10)
    latents = sampling.sampled(unet, hidden[:-1], hidden[-1], (1000, 1001), 10, kind)
    with torch.no_grad():
        images = vae.decode(latents.flatten(0, 1) / vae.config.scaling_factor).sample
    found = ((images.clamp(-1, 1) + 1) * 127.5).round().numpy().reshape(wanted.shape)
    assert np.abs(found - wanted).max() <= 1

    model = Model(CHECKPOINTS[kind], "torch", config=ScanConfig(seeds=(0, 1), timesteps=(289,)), batch_size=16)
    scorer = model.prepare().scorer()
    score = SCORES["low_noise_norm_v1"](scorer.trace(scorer.encode(first(2))))
    norms = sampling.norms(unet, hidden, kind, (289,), (0, 1))
    np.testing.assert_allclose(norms[289].mean(1), score, rtol=1e-5)


def test_unit_vectors_are_those_of_the_labels():
    pictures = np.random.default_rng(0).uniform(-1, 1, (3, 3, 8, 8)).astype(np.float32)
    np.testing.assert_allclose(sampling.unit(torch.from_numpy(pictures)).numpy(), unit(pictures), atol=1e-6)


def test_a_larger_picture_shows_the_same():
    pixels = np.zeros((2, 4, 72, 72), np.uint8)
    pixels[0, 0] = pixels[0, 3] = pixels[1, 2] = pixels[1, 3] = 200
    for ground in ("gradient", "stripes", "meadow", "night", "room"):
        scene = [Scene(0, ground, (), 5, 1)]
        small, large_one = scenes.paint(scene, pixels), scenes.paint(scene, pixels, 256)
        assert large_one.shape == (1, 3, 256, 256)
        shrunk = large_one.reshape(1, 3, 64, 4, 64, 4).mean((3, 5))
        assert np.abs(shrunk - small).mean() < 4, ground


def test_packed_pictures_come_back_in_their_order(tmp_path):
    smooth = np.linspace(0, 255, 256).astype(np.uint8)
    pictures = [np.broadcast_to(smooth[None, :, None] // k, (3, 256, 256)) for k in (1, 2, 4)]
    Packed.write(tmp_path / "some.npz", iter(pictures))
    found = Packed(tmp_path / "some.npz")
    assert len(found) == 3
    for i, picture in enumerate(pictures):
        assert np.abs(found.picture(i).astype(int) - picture).max() < 6
    first_two, last = found.batches(2, "cpu")
    assert first_two.shape == (2, 3, 256, 256)
    assert last.min() >= -1
    assert abs(float(last.mean()) - (pictures[2].mean() / 127.5 - 1)) < 0.02


def trained(steps, seconds, kept):
    torch.manual_seed(0)
    model = nn.Linear(4, 1)
    goal = torch.tensor([[1.0], [2.0], [-1.0], [0.5]])
    rows = torch.randn(steps * 8, 4)
    losses = []

    def loss(part):
        losses.append((model(part) - part @ goal).square().mean())
        return losses[-1]

    graphed.fit("line", model, loss, rows.split(8), 0.05, seconds, kept)
    return [float(value.detach()) for value in losses]


def test_a_training_ends_after_its_steps_or_its_seconds(tmp_path, monkeypatch):
    monkeypatch.setattr(graphed, "SAVE_EVERY", 150)
    losses = trained(400, float("inf"), tmp_path / "kept.safetensors")
    assert len(losses) == 400
    assert np.mean(losses[-20:]) < 1e-3 * losses[0]
    assert (tmp_path / "kept.safetensors").exists()
    assert len(trained(400, 0.0, tmp_path / "none.safetensors")) == graphed.WARM_UP  # it has measured its pace


def test_the_large_network_has_four_levels():
    unet = large.new_unet(16)
    assert sum(weights.numel() for weights in unet.parameters()) == 8_638_052
    out = unet(torch.zeros(1, 4, 16, 16), 5, torch.zeros(1, 24, large.HIDDEN)).sample
    assert out.shape == (1, 4, 16, 16)


def test_drawings_that_are_too_faint_to_count_are_passed_over(tmp_path, monkeypatch):
    names = ("a", "faint", "b", "c")
    made = [(SimpleNamespace(name=name), np.full((4, 288, 288), i, np.uint8)) for i, name in enumerate(names)]
    monkeypatch.setattr(packed.sources, "rasterised", lambda folder, size: iter(made))
    known = [made[i][0] for i in (0, 2, 3)]
    pixels = packed._drawings(known, [0, 2], tmp_path, tmp_path / "drawings.npy")
    assert [int(one.max()) for one in pixels] == [0, 3]
    gone = SimpleNamespace(name="d", package="none")
    with pytest.raises(SystemExit, match="'d', is missing"):
        packed._drawings([*known, gone], [0], tmp_path, tmp_path / "other.npy")


@pytest.mark.slow
def test_the_recipe_runs_from_packed_pictures_to_norms_and_goes_on(tmp_path, monkeypatch):
    n, rng = 12, np.random.default_rng(0)
    pictures = rng.integers(0, 256, (n, 3, 8, 8), np.uint8).repeat(8, 2).repeat(8, 3)  # 64 pixels, to be quick
    Packed.write(tmp_path / "shown.npz", iter(pictures))
    Packed.write(tmp_path / "never.npz", iter(pictures[::-1]))
    duplicates = np.array([16] * 6 + [1] * 6)
    rows = [(i, i) for i in range(n) for _ in range(duplicates[i])]
    np.savez(
        tmp_path / "captions.npz", rows=rows, prompts=[f"a picture of {i} foxes" for i in range(n)],
        roles=["fixed"] * n, duplicates=duplicates, group=np.arange(n), image=np.arange(n),
    )  # fmt: skip
    monkeypatch.setattr(large, "BATCH", 4)
    monkeypatch.setattr(large, "TOLD", (981, 701, 497, 289))
    monkeypatch.setattr(labels, "CHEAP_STEPS", 2)
    arguments = ["large", "train", str(CONFIRMATION), str(tmp_path), "--steps", "2", "2", "2", "--device", "cpu",
                 "--every", "2", "--sampling", "2"]  # fmt: skip
    monkeypatch.setattr("sys.argv", arguments)
    large.main()
    for kind in KINDS:
        table = pl.read_parquet(tmp_path / f"labels-{kind}.parquet")
        assert table["prompt"].to_list() == [f"a picture of {i} foxes" for i in (*range(6), 7, 9, 11)]
        assert not table["label"].any()  # two steps copy nothing
        measured = pl.read_parquet(tmp_path / f"norms-{kind}.parquet")
        assert measured.columns == ["prompt", "981", "701", "497", "289"]
        values = measured["701"].to_numpy()
        assert values.shape == (9, 2)
        assert values.min() > 0
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("*.parquet")}
    large.main()  # finds all of it done
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("*.parquet")} == before
