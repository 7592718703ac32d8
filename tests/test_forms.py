"""Forms that models come in: one file, a variant, shards, a network or a LoRA on a base."""

import json
import os
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import single_file
import torch
from safetensors.torch import load_file, save_file
from test_cli import run
from test_engines import feeds
from tiny import copied

from engines import EngineError
from engines.bundle import read_manifest
from engines.forms import Changes, assembled
from engines.hub import needed
from engines.lora import Lora
from engines.outlook import outlook
from engines.torch_ref import open_checkpoint

PARTS = ("text_encoder", "unet", "vae_encoder", "vae_decoder")


@pytest.fixture(scope="module")
def pipeline(tiny):
    from diffusers import StableDiffusionPipeline

    return StableDiffusionPipeline.from_pretrained(tiny, local_files_only=True)


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """A checkpoint of the same configuration with other weights."""
    import tiny as making

    folder = making.write(tmp_path_factory.mktemp("other") / "other")
    for name in ("unet", "vae", "text_encoder"):
        (file,) = (folder / name).glob("*.safetensors")
        save_file({key: tensor * 1.25 for key, tensor in load_file(file).items()}, file, {"format": "pt"})
    return folder


def outputs(folder, names=PARTS, **asked):
    """Of each network for the same feeds."""
    checkpoint = open_checkpoint(folder, **asked)
    found = {}
    for name in names:
        engine = checkpoint.engine(name)
        found[name] = next(iter(engine.run(feeds(engine, 2)).values()))
    return found


def same(found, expected, names=PARTS):
    for name in names:
        np.testing.assert_array_equal(found[name], expected[name], err_msg=name)


@pytest.mark.parametrize("suffix", ["safetensors", "ckpt"])
def test_a_single_file_in_the_original_layout_is_the_model_that_it_was_made_of(tiny, pipeline, tmp_path, suffix):
    held, file = single_file.stable_diffusion(pipeline), tmp_path / f"model.{suffix}"
    save_file(held, file) if suffix == "safetensors" else torch.save({"state_dict": held}, file)
    with assembled(file, Changes(config=tiny), None, tmp_path / "out") as folder:
        same(outputs(folder), outputs(tiny))
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


def test_the_configuration_of_a_single_file_needs_no_weights(tiny, pipeline, tmp_path):
    save_file(single_file.stable_diffusion(pipeline), tmp_path / "model.safetensors")
    bare = copied(tiny, tmp_path)
    for file in bare.rglob("*.safetensors"):
        file.unlink()
    with assembled(tmp_path / "model.safetensors", Changes(config=bare), None, tmp_path / "out") as folder:
        same(outputs(folder), outputs(tiny))


class Payload:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_a_file_that_is_code_is_refused_and_not_run(tiny, tmp_path):
    torch.save({"state_dict": {"x": Payload(str(tmp_path / "ran"))}}, tmp_path / "model.ckpt")
    with (
        pytest.raises(EngineError, match=r"model\.ckpt: holds no "),
        assembled(tmp_path / "model.ckpt", Changes(config=tiny), None, tmp_path / "out"),
    ):
        pass
    folder = copied(tiny, tmp_path)
    (folder / "unet/diffusion_pytorch_model.safetensors").unlink()
    torch.save({"x": Payload(str(tmp_path / "ran"))}, folder / "unet/diffusion_pytorch_model.bin")
    with pytest.raises(EngineError, match="cannot be loaded"):
        open_checkpoint(folder).engine("unet")
    assert not (tmp_path / "ran").exists()


def test_a_variant_is_read_where_it_is_the_only_one_or_named(tiny, pipeline, tmp_path):
    pipeline.save_pretrained(tmp_path / "half", variant="fp16")
    expected = outputs(tiny)
    same(outputs(tmp_path / "half"), expected)
    same(outputs(tmp_path / "half", variant="fp16"), expected)
    pipeline.unet.save_pretrained(tmp_path / "half/unet", variant="ema")
    with pytest.raises(EngineError, match="weights of ema, fp16 alone; name one of them: --variant ema"):
        open_checkpoint(tmp_path / "half")
    same(outputs(tmp_path / "half", variant="fp16"), expected)


def test_shards_are_read(tiny, pipeline, tmp_path):
    folder = copied(tiny, tmp_path)
    (folder / "unet/diffusion_pytorch_model.safetensors").unlink()
    pipeline.unet.save_pretrained(folder / "unet", max_shard_size="20KB")
    assert len(list((folder / "unet").glob("*.safetensors"))) > 2
    same(outputs(folder), outputs(tiny))


def test_another_unet_or_vae_takes_the_bases_place(tiny, other, tmp_path):
    base, changed = outputs(tiny), outputs(other)
    for change in (Changes(unet=other), Changes(unet=other / "unet")):
        with assembled(tiny, change, None, tmp_path / "out") as folder:
            found = outputs(folder)
        same(found, base, ("text_encoder", "vae_encoder", "vae_decoder"))
        same(found, changed, ("unet",))
    with assembled(tiny, Changes(vae=other / "vae"), None, tmp_path / "out") as folder:
        same(outputs(folder), {**base, **{name: changed[name] for name in ("vae_encoder", "vae_decoder")}})


def test_a_unet_in_a_single_file_takes_the_bases_place(tiny, other, tmp_path):
    from diffusers import UNet2DConditionModel

    save_file(single_file.unet(UNet2DConditionModel.from_pretrained(other / "unet")), tmp_path / "unet.safetensors")
    with assembled(tiny, Changes(unet=tmp_path / "unet.safetensors"), None, tmp_path / "out") as folder:
        same(outputs(folder, ("unet",)), outputs(other), ("unet",))


LAYERS = {
    "unet": ("down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k", "mid_block.attentions.0.proj_in"),
    "text_encoder": ("layers.0.self_attn.q_proj",),
}


def lora(tiny, file, kohya):
    """A LoRA of rank 2 in diffusers' layout or kohya's, and what it adds to each weight."""
    rng, held, added = torch.Generator().manual_seed(3), {}, {}
    for part, layers in LAYERS.items():
        (weights,) = (tiny / part).glob("*.safetensors")
        held_weights = load_file(weights)
        for layer in layers:
            key = next(key for key in held_weights if key.endswith(f"{layer}.weight"))
            shape = held_weights[key].shape
            down = torch.randn(2, shape[1], *shape[2:], generator=rng)
            up = torch.randn(shape[0], 2, *[1] * (len(shape) - 2), generator=rng)
            whole = f"text_model.encoder.{layer}" if part == "text_encoder" else layer
            if kohya:
                name = f"lora_{'te' if part == 'text_encoder' else 'unet'}_{whole.replace('.', '_')}"
                held |= {
                    f"{name}.lora_down.weight": down,
                    f"{name}.lora_up.weight": up,
                    f"{name}.alpha": torch.tensor(1.0),
                }
            else:
                held |= {f"{part}.{whole}.lora_A.weight": down, f"{part}.{whole}.lora_B.weight": up}
            scale = 0.5 if kohya else 1.0  # alpha / rank
            added[part, key] = (up.flatten(1) @ down.flatten(1)).reshape(shape) * scale
    save_file(held, file)
    return added


@pytest.mark.parametrize("kohya", [False, True])
def test_a_lora_is_fused_with_its_weight(tiny, tmp_path, kohya):
    added, file = lora(tiny, tmp_path / "style.safetensors", kohya), tmp_path / "style.safetensors"
    by_hand = copied(tiny, tmp_path)
    for part in LAYERS:
        (weights,) = (by_hand / part).glob("*.safetensors")
        held = load_file(weights)
        for (of, key), change in added.items():
            if of == part:
                held[key] = held[key] + 0.75 * change
        save_file(held, weights, {"format": "pt"})
    expected, plain = outputs(by_hand), outputs(tiny)
    changes = Changes(loras=(Lora(file, 0.5), Lora(file, 0.25)))
    with assembled(tiny, changes, None, tmp_path / "out") as folder:
        found = outputs(folder)
    for name in PARTS:
        np.testing.assert_allclose(found[name], expected[name], atol=1e-5 * np.abs(expected[name]).max())
    for name in ("unet", "text_encoder"):
        assert np.abs(found[name] - plain[name]).max() > 0.01 * np.abs(plain[name]).max()
    assert list(changes.named) == ["lora 1", "lora 2"]
    assert re.fullmatch(r"style\.safetensors [0-9a-f]{16} weight 0\.5", changes.named["lora 1"])


@pytest.mark.slow
def test_an_export_with_a_lora_names_it_and_is_another_model(tiny, tmp_path):
    lora(tiny, tmp_path / "style.safetensors", True)
    _, err, code = run("export", tiny, tmp_path / "bundle", "--lora", f"{tmp_path / 'style.safetensors'}:0.5")
    assert code == 0, err
    manifest = read_manifest(tmp_path / "bundle")
    assert manifest.source == {"checkpoint": tiny.name}
    (said,) = manifest.changes.values()
    assert said.startswith("style.safetensors ")
    assert said.endswith(" weight 0.5")
    assert replace(manifest, changes=None).fingerprint != manifest.fingerprint
    assert {path.name for path in tmp_path.iterdir()} == {"style.safetensors", "bundle"}


def test_what_is_no_lora_of_the_model_is_refused(tiny, tmp_path):
    file = tmp_path / "style.safetensors"
    save_file({"unet.mid_block.nothing.to_q.lora_A.weight": torch.zeros(2, 16),
               "unet.mid_block.nothing.to_q.lora_B.weight": torch.zeros(16, 2)}, file)  # fmt: skip
    for changes, said in (
        (Changes(loras=(Lora(file),)), "1 of its 1 layers for the unet are of modules that it does not have"),
        (Changes(loras=(Lora(tmp_path / "none.safetensors"),)), "none.safetensors: no such file; needed a LoRA"),
        (Changes(unet=tmp_path), "no config.json; needed a folder with a UNet2DConditionModel"),
        (Changes(config=tiny), "for a single file"),
    ):
        with pytest.raises(EngineError, match=re.escape(said)), assembled(tiny, changes, None, tmp_path / "out"):
            pass
    with (
        pytest.raises(EngineError, match=rf"name the model as SOURCE, and a LoRA with --lora {re.escape(str(file))}"),
        assembled(file, Changes(config=tiny), None, tmp_path / "out"),
    ):
        pass


@pytest.mark.parametrize(
    ("text", "expected"),
    [("a.safetensors", ("a.safetensors", 1.0)), ("a.safetensors:0.8", ("a.safetensors", 0.8)), ("b:-1", ("b", -1.0))],
)
def test_a_lora_is_named_with_its_weight(text, expected):
    made = Lora.of(text)
    assert (str(made.file), made.weight) == expected


def test_a_weight_that_is_no_number_is_refused():
    with pytest.raises(EngineError, match=r"--lora a:much: needed FILE or FILE:WEIGHT"):
        Lora.of("a:much")


REPOSITORY = [
    "README.md", "model_index.json", "v1-5.safetensors", "scheduler/scheduler_config.json", "tokenizer/vocab.json",
    "tokenizer/merges.txt", "text_encoder/config.json", "text_encoder/model.safetensors",
    "text_encoder/model.fp16.safetensors", "text_encoder/pytorch_model.bin", "unet/config.json",
    "unet/diffusion_pytorch_model.fp16.safetensors", "unet/diffusion_pytorch_model-00001-of-00002.safetensors",
    "unet/diffusion_pytorch_model-00002-of-00002.safetensors", "unet/diffusion_pytorch_model.safetensors.index.json",
    "unet/diffusion_pytorch_model.non_ema.safetensors", "unet_ema/diffusion_pytorch_model.safetensors",
    "controlnet/diffusion_pytorch_model.safetensors", "vae/config.json", "vae/diffusion_pytorch_model.bin",
    "safety_checker/model.safetensors", "unet/lora/pytorch_lora_weights.safetensors",
]  # fmt: skip
ALWAYS = {
    "model_index.json", "scheduler/scheduler_config.json", "tokenizer/vocab.json", "tokenizer/merges.txt",
    "text_encoder/config.json", "unet/config.json", "vae/config.json", "vae/diffusion_pytorch_model.bin",
}  # fmt: skip


@pytest.mark.parametrize(
    ("variant", "weights"),
    [
        (None, {"text_encoder/model.safetensors", *(f for f in REPOSITORY if f.startswith("unet/diff") and "00" in f),
                "unet/diffusion_pytorch_model.safetensors.index.json"}),
        ("fp16", {"text_encoder/model.fp16.safetensors", "unet/diffusion_pytorch_model.fp16.safetensors"}),
    ],
)  # fmt: skip
def test_the_hub_is_asked_for_what_is_read_and_nothing_else(tiny, variant, weights):
    index = json.loads((tiny / "model_index.json").read_text())
    assert set(needed(REPOSITORY, index, Path("org/name"), variant)) == ALWAYS | weights
    with pytest.raises(EngineError, match="org/name: of a SanaPipeline: Sana, with a language model"):
        needed(REPOSITORY, {"_class_name": "SanaPipeline"}, Path("org/name"), variant)


def test_a_dry_run_reads_no_weights(tiny, tmp_path):
    folder = copied(tiny, tmp_path)
    for file in folder.rglob("*.safetensors"):
        file.unlink()
    out, err, code = run("export", folder, "--dry-run", "--size", "16x24")
    assert code == 0, err
    assert out.splitlines()[:3] == [
        "family      Stable Diffusion v1 and v2 (stable-diffusion)",
        "grid        DDIMScheduler, epsilon, 10, 20, 25, 30, 50, 100 steps; of 50 the first is 981, signal rate 0.076",
        "latent      4 x 8 x 12",
    ]
    assert out.splitlines() == list(outlook(folder, options=open_checkpoint_options(16, 24)))
    assert re.search(r"component   unet: 0\.\d million parameters -> output", out)
    _, err, code = run("export", folder)
    assert (code, "Missing argument 'OUT'" in err) == (2, True)


def open_checkpoint_options(height, width):
    from engines.families import Options

    return Options(size=(height, width))
