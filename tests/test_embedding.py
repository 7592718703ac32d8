"""Textual inversions, in the forms that programs write them in, as the pipeline that loads them has them."""

import re

import numpy as np
import pytest
import tiny as making
import torch
from safetensors.torch import save_file
from test_cli import run

from engines import EngineError
from engines.bundle import read_manifest
from engines.embedding import Embedding
from engines.forms import Changes, assembled
from engines.torch_ref import open_checkpoint
from scanner.diffusion.denoiser import Denoiser

VECTORS = torch.randn(3, 16, generator=torch.Generator().manual_seed(1))
WIDE = torch.randn(3, 24, generator=torch.Generator().manual_seed(2))
PROMPTS = ["a <cat> on a mat", "<CAT>", "two <cat><cat> and a caterpillar", "a cat on a mat", "<cat> " * 9]


@pytest.fixture(scope="module")
def xl(tmp_path_factory):
    return making.write_xl(tmp_path_factory.mktemp("xl") / "xl")


def denoiser(source, tmp_path, *embeddings):
    with assembled(source, Changes(embeddings=embeddings), None, tmp_path / "out") as folder:
        opened = Denoiser(open_checkpoint(folder).bundle("torch"))
        opened.null  # noqa: B018 (weights are read while the folder is there)
        yield opened


def written(folder, form, tensor=VECTORS):
    """<cat> as diffusers, a web interface or kohya's trainer writes it; the last two by the file's name."""
    if form == "diffusers":
        save_file({"<cat>": tensor}, folder / "learned_embeds.safetensors")
        return Embedding(folder / "learned_embeds.safetensors")
    if form == "kohya":
        save_file({"emb_params": tensor}, folder / "<cat>.safetensors")
        return Embedding(folder / "<cat>.safetensors")
    state = {
        "string_to_token": {"*": 265},
        "string_to_param": {"*": torch.nn.Parameter(tensor)},
        "name": "cat",
        "step": 9,
    }
    torch.save(state, folder / "<cat>.pt")
    return Embedding(folder / "<cat>.pt")


@pytest.mark.parametrize("form", ["diffusers", "web interface", "kohya"])
@pytest.mark.parametrize("vectors", [1, 3])
def test_a_word_is_its_vectors_as_in_the_pipeline(tiny, tmp_path, form, vectors):
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(tiny, local_files_only=True)
    pipeline.load_textual_inversion({"<cat>": VECTORS[:vectors] if vectors > 1 else VECTORS[0]}, token="<cat>")
    (opened,) = denoiser(tiny, tmp_path, written(tmp_path, form, VECTORS[:vectors]))
    for prompt in PROMPTS[:1] + PROMPTS[2:]:  # of <CAT> the pipeline takes the first vector alone
        with torch.inference_mode():
            expected, _ = pipeline.encode_prompt(prompt, "cpu", 1, False)
        found = opened.encode([prompt]).arrays["encoder_hidden_states"]
        np.testing.assert_allclose(found, expected.numpy(), atol=1e-5 * np.abs(expected.numpy()).max())
    (reading,) = opened.read(["a <cat> on a mat"])
    assert [number for number in reading.ids if number >= 1502] == list(range(1502, 1502 + vectors))
    assert sum(2 <= start < end <= 7 for start, end in reading.spans) == vectors
    assert opened.read(["<CAT>"])[0].ids == opened.read(["<cat>"])[0].ids


def test_sdxl_takes_a_pair_of_vectors(xl, tmp_path):
    from diffusers import StableDiffusionXLPipeline

    save_file({"clip_l": VECTORS, "clip_g": WIDE}, tmp_path / "style.safetensors")
    pipeline = StableDiffusionXLPipeline.from_pretrained(xl, local_files_only=True)
    for tensor, number in ((VECTORS, ""), (WIDE, "_2")):
        parts = {"text_encoder": f"text_encoder{number}", "tokenizer": f"tokenizer{number}"}
        parts = {name: getattr(pipeline, part) for name, part in parts.items()}
        pipeline.load_textual_inversion({"<cat>": tensor}, token="<cat>", **parts)
    (opened,) = denoiser(xl, tmp_path, Embedding.of(f"{tmp_path / 'style.safetensors'}:<cat>"))
    for prompt in PROMPTS[:1] + PROMPTS[2:]:
        with torch.inference_mode():
            expected, _, pooled, _ = pipeline.encode_prompt(prompt, device="cpu")
        found = opened.encode([prompt]).arrays
        np.testing.assert_allclose(found["encoder_hidden_states"], expected.numpy(), atol=2e-5)
        np.testing.assert_allclose(found["text_embeds"], pooled.numpy(), atol=2e-5)


def test_several_are_words_of_their_own(tiny, tmp_path):
    save_file({"<dog>": WIDE[:, :16].contiguous()}, tmp_path / "dog.safetensors")
    (opened,) = denoiser(tiny, tmp_path, written(tmp_path, "diffusers"), Embedding(tmp_path / "dog.safetensors"))
    (reading,) = opened.read(["<dog> <cat>"])
    assert reading.ids[1:7] == (1505, 1506, 1507, 1502, 1503, 1504)


@pytest.mark.slow
def test_an_export_names_it_and_is_another_model(tiny, tmp_path):
    embedding = written(tmp_path, "kohya")
    _, err, code = run("export", tiny, tmp_path / "bundle", "--embedding", f"{embedding.file}:sks")
    assert code == 0, err
    manifest = read_manifest(tmp_path / "bundle")
    assert re.fullmatch(r"<cat>\.safetensors [0-9a-f]{16} word sks", manifest.changes["embedding 1"])
    assert manifest.components["text_encoder"].outputs["encoder_hidden_states"].shape == (None, 16, 16)


def test_what_is_no_embedding_of_the_model_is_refused(tiny, xl, tmp_path):
    save_file({"clip_l": VECTORS, "clip_g": WIDE}, tmp_path / "pair.safetensors")
    save_file({"<cat>": WIDE}, tmp_path / "wide.safetensors")
    save_file({"<cat>": VECTORS / 0}, tmp_path / "infinite.safetensors")
    save_file({"a": VECTORS, "b": WIDE}, tmp_path / "two.safetensors")
    save_file({"cat</w>": VECTORS}, tmp_path / "taken.safetensors")  # as the vocabulary has it
    for source, name, said in (
        (tiny, "pair", "holds vectors for text_encoder, text_encoder_2; the model has text_encoder: an embedding of"),
        (xl, "wide", "holds vectors for text_encoder; the model has text_encoder, text_encoder_2"),
        (tiny, "wide", "[3, 24] numbers for the text_encoder; needed vectors of 16"),
        (tiny, "infinite", "all finite"),
        (tiny, "two", "2 tensors; needed one, or clip_l and clip_g"),
        (tiny, "taken", "'cat</w>' is a token of the model already: name another word"),
        (tiny, "none", "no such file; needed an embedding"),
    ):
        changes = Changes(embeddings=(Embedding(tmp_path / f"{name}.safetensors"),))
        with pytest.raises(EngineError, match=re.escape(said)), assembled(source, changes, None, tmp_path / "out"):
            pass
