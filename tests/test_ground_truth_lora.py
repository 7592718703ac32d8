"""A LoRA that memorizes: the file that the tool writes, what it shows, and how it counts."""

import numpy as np
import polars as pl
import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file

from engines.forms import Changes, assembled
from engines.lora import Lora
from tools.ground_truth import lora


@pytest.fixture
def unet(tiny):
    return UNet2DConditionModel.from_pretrained(tiny / "unet", torch_dtype=torch.float32)


def weights(folder):
    (file,) = (folder / "unet").glob("*.safetensors")
    return load_file(file)


def test_the_file_is_fused_to_the_base_and_what_was_trained(tiny, unet, tmp_path):
    plain, layers = weights(tiny), lora.adapt(unet, rank=3)
    generator = torch.Generator().manual_seed(0)
    for layer in layers.values():
        layer.up.data.copy_(torch.randn(layer.up.shape, generator=generator))
    file = tmp_path / "lora.safetensors"
    lora.save(layers, file)
    with assembled(tiny, Changes(loras=(Lora(file),)), None, tmp_path / "out") as folder:
        fused = weights(folder)
    changed = {f"{name}.weight" for name in layers}
    assert {name for name in plain if not torch.equal(plain[name], fused[name])} == changed
    assert {name.rpartition("attn")[2][2:] for name in layers} == set(lora.PROJECTIONS)
    for name, layer in layers.items():
        trained = unet.get_submodule(name).weight
        torch.testing.assert_close(fused[f"{name}.weight"], plain[f"{name}.weight"] + layer.up @ layer.down)
        torch.testing.assert_close(fused[f"{name}.weight"], trained.detach())


def test_it_begins_as_the_base_and_learns_nothing_but_low_rank_layers(tiny, unet):
    before, layers = weights(tiny), lora.adapt(unet)
    for name in layers:
        torch.testing.assert_close(unet.get_submodule(name).weight, before[f"{name}.weight"], rtol=0, atol=0)
    learnt = {name for name, parameter in unet.named_parameters() if parameter.requires_grad}
    assert learnt == {f"{name}.parametrizations.weight.0.{end}" for name in layers for end in ("down", "up")}


def test_the_duplicated_are_shown_more_often():
    shown = lora.Shown(np.zeros(0), [], np.zeros(0), seed=3)
    rows = np.concatenate([shown.batch(step, 50) for step in range(100)])
    counts = np.bincount(rows[:, 0])
    assert len(counts) == lora.DUPLICATED + lora.RARE
    np.testing.assert_array_equal(rows[:, 0], rows[:, 1])
    np.testing.assert_array_equal(shown.batch(7, 50), rows[350:400])
    assert counts[: lora.DUPLICATED].sum() / counts.sum() == pytest.approx(lora.SHARE, abs=0.02)  # 3.5 deviations


def test_more_seeds_are_made_only_where_two_come_near(monkeypatch, tmp_path):
    """Of three captions, whose other pictures are noise, one is copied, one in one of two seeds, one never."""
    rng = np.random.default_rng(0)
    training = rng.integers(0, 256, (5, 3, 8, 8), np.uint8)
    copying, asked = {"a": 4, "b": 1, "c": 0}, []

    def generated(denoiser, prompts, seeds, steps, folder, scale):
        asked.append((folder.name, list(prompts)))
        made = rng.integers(0, 256, (len(prompts), len(seeds), 3, 8, 8), np.uint8)
        for i, prompt in enumerate(prompts):
            made[i, : copying[prompt]] = training[2]
        return made

    monkeypatch.setattr(lora, "generated", generated)
    near = lora.Gauge(lora.unit(lora.scaled(training)), 0.9)
    found = lora.labelled(None, ["a", "b", "c"], near, tmp_path)
    assert asked == [("2-two", ["a", "b", "c"]), ("2-four", ["a", "b"])]
    assert found["label"].to_list() == [True, None, False]
    assert found["image"][0] == 2


def test_detection_leaves_out_what_some_seeds_copy():
    said = lora.detection(pl.Series([5.0, 4.0, 3.0, 2.0, 1.0]), pl.Series([True, None, False, True, False]))
    assert said == "AUROC 0.750, found at 1 % false alarms 0.500, 1 of the top 2"
