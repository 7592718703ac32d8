"""Configurations of single files that need no folder: as published, of the file's kind, with CLIP's vocabulary."""

import gzip
import json
import re
from itertools import product

import pytest
import single_file
import torch
from safetensors.torch import save_file

from engines import EngineError, layouts
from engines.checkpoint import read_index
from engines.forms import Changes, assembled, configured
from engines.layouts import LAYOUTS, VOCABULARY, layout_of, write_layout
from engines.parts import Parts
from engines.torch_ref import describe

MILLIONS = {  # of parameters, as published
    "sd1": {"unet": 859.5, "text_encoder": 123.1, "vae": 83.7},
    "sd2-base": {"unet": 865.9, "text_encoder": 340.4, "vae": 83.7},
    "sd2-v": {"unet": 865.9, "text_encoder": 340.4, "vae": 83.7},
    "sdxl": {"unet": 2567.5, "text_encoder": 123.1, "text_encoder_2": 694.7, "vae": 83.7},
}
ORIGINAL = {
    "v1": "model.diffusion_model.output_blocks.11.0.skip_connection.weight",
    "clip": "cond_stage_model.transformer.text_model.embeddings.position_embedding.weight",
    "v2": "model.diffusion_model.input_blocks.2.1.transformer_blocks.0.attn2.to_k.weight",
    "xl": "conditioner.embedders.1.model.transformer.resblocks.9.mlp.c_proj.bias",
    "flux": "double_blocks.0.img_attn.norm.key_norm.scale",
}


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory):
    """In the form of CLIP's, and of its size: two merges that are used, and pairs of letters that are no words."""
    file, letters = tmp_path_factory.mktemp("vocabulary") / VOCABULARY, [chr(code) for code in range(256, 256 + 68)]
    pairs = ["c a", "ca t</w>", *(f"{a} {b}{end}" for a, b in product(letters, repeat=2) for end in ("", "</w>"))]
    pairs += [f"{letter} {a}{b}" for letter in "!#$%&*+,-./" for a, b in product(letters, repeat=2)]
    file.write_bytes(gzip.compress("\n".join(["#version: 0.2", *pairs]).encode()))
    return file


@pytest.mark.slow
@pytest.mark.parametrize("name", LAYOUTS)
def test_a_layout_is_the_published_model(tmp_path, vocabulary, name):
    write_layout(tmp_path / name, name, vocabulary)
    _, parts = read_index(tmp_path / name)
    sizes = {part: sum(p.numel() for p in parts.module(part).parameters()) / 1e6 for part in parts.networks}
    assert {part: round(size, 1) for part, size in sizes.items()} == MILLIONS[name]
    _, _, described, sampling = describe(tmp_path / name)
    assert described.latent_shape == (4, *[{"sd2-v": 96, "sdxl": 128}.get(name, 64)] * 2)
    assert sampling.prediction_type == ("v_prediction" if name == "sd2-v" else "epsilon")
    assert sampling.grids["50"]["timesteps"][0] == 981
    assert set(described.lengths.values()) == {77}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sd1", "sdxl"])
def test_the_original_names_and_shapes_are_those_of_the_layout(tmp_path, vocabulary, name):
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint, convert_ldm_vae_checkpoint

    write_layout(tmp_path / name, name, vocabulary)
    _, parts = read_index(tmp_path / name)
    for part, convert in (("unet", convert_ldm_unet_checkpoint), ("vae", convert_ldm_vae_checkpoint)):
        module = parts.module(part)
        made = convert(getattr(single_file, part)(module), dict(module.config))
        assert {key: at.shape for key, at in made.items()} == {key: at.shape for key, at in module.state_dict().items()}


def test_tokens_are_those_of_clips_vocabulary(tmp_path, vocabulary):
    from transformers import CLIPTokenizer

    write_layout(tmp_path / "sdxl", "sdxl", vocabulary)
    one, two = (CLIPTokenizer.from_pretrained(tmp_path / "sdxl" / name) for name in ("tokenizer", "tokenizer_2"))
    start, end = 49406, 49407
    assert one("cat ca !", padding="max_length").input_ids[:6] == [start, 513, 66, 320, 256, end]
    assert one("cat", padding="max_length").input_ids[2:] == [end] * 75
    assert two("cat", padding="max_length").input_ids[2:] == [end] + [0] * 74  # "!" is the first of all letters


def file_of(folder, **keys):
    """A file with tensors of these names."""
    path = folder / "model.safetensors"
    save_file({ORIGINAL.get(name, name): torch.zeros(shape) for name, shape in keys.items()}, path)
    return path


@pytest.mark.parametrize(
    ("keys", "found"),
    [
        ({"v1": (1,), "clip": (1,)}, "sd1"),
        ({"v1": (1,), "clip": (1,), "v2": (320, 768)}, "sd1"),
        ({"xl": (1,)}, "sdxl"),
    ],
)
def test_what_a_file_is_shows_in_its_tensors(tmp_path, keys, found):
    assert layout_of(file_of(tmp_path, **keys)) == found


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"v2": (320, 1024)}, "a Stable Diffusion 2, of which no tensor says what it predicts: name --layout sd2-base"),
        ({"xl": (1,), "v_pred": (0,)}, "says that it predicts v, as no sdxl that was published: name with --layout"),
        ({"flux": (1,)}, "of a kind (flux"),
        ({"anything": (1,)}, "of a kind (unknown) whose configuration is not at hand: name with --layout a diffusers"),
    ],
)
def test_what_no_layout_is_at_hand_for_is_refused(tmp_path, keys, said):
    with pytest.raises(EngineError, match=re.escape(said)):
        layout_of(file_of(tmp_path, **keys))


def test_without_a_vocabulary_it_is_said_where_there_is_one(tmp_path, vocabulary, monkeypatch):
    monkeypatch.setattr(layouts, "_installed", lambda: None)
    file = file_of(tmp_path, v1=(1,), clip=(1,))
    with pytest.raises(
        EngineError, match=r"CLIP's vocabulary is not at hand: name with --tokenizer a folder .*pip down"
    ):
        configured(file, Changes(), tmp_path)
    damaged = tmp_path / VOCABULARY
    damaged.write_bytes(b"none")
    with pytest.raises(EngineError, match="no CLIP tokenizer"):
        configured(file, Changes(tokenizer=damaged), tmp_path / "other")
    folder = configured(file, Changes(tokenizer=vocabulary), tmp_path / "third")
    assert json.loads((folder / "model_index.json").read_text())["unet"] == ["diffusers", "UNet2DConditionModel"]


def test_a_name_is_a_layout(tmp_path, vocabulary, tiny):
    file = file_of(tmp_path, v2=(320, 1024))
    folder = configured(file, Changes(config=layouts.Path("sd2-v"), tokenizer=vocabulary), tmp_path)
    parts = Parts(folder, {"unet": "UNet2DConditionModel"}, {})
    assert json.loads(parts.path("unet").read_text())["sample_size"] == 96
    for changes, said in (
        (Changes(config=tiny, tokenizer=vocabulary), "has one: leave it out"),
        (Changes(config=tmp_path), "needed a diffusers folder, or sd1, sd2-base, sd2-v, sdxl"),
    ):
        with pytest.raises(EngineError, match=re.escape(said)):
            configured(file, changes, tmp_path)
    with (
        pytest.raises(EngineError, match=r"--tokenizer .*: for a single file, which .* is not"),
        assembled(tiny, Changes(tokenizer=vocabulary), None, tmp_path / "out"),
    ):
        pass
