"""Families with a transformer: as their pipelines condition their networks, on every backend, command by command."""

import gc
import re
import unicodedata
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import oracles
import pytest
import tiny as making
import torch
from safetensors.torch import load_file, save_file
from test_cli import run
from test_stable_diffusion_xl import CONFIG, PARITY, PROMPTS, scores, stand_in, use_every_command
from tiny import copied, edited
from tokenizers import Tokenizer

import engines.torch_ref
from engines import EngineError, open_bundle
from engines.embedding import Embedding
from engines.export import export
from engines.families import EXPORTERS, Options
from engines.forms import Changes, assembled
from engines.lora import Lora
from engines.outlook import outlook
from engines.torch_ref import open_checkpoint
from scanner import ScanConfig
from scanner.diffusion.denoiser import Denoiser
from scanner.diffusion.families import FAMILIES
from scanner.errors import ModelError
from scanner.model import Model


class Case(NamedTuple):
    """A checkpoint, what its pipeline predicts, and its latent. `whole`: exported and run on every backend.

    `asked`: of a scan of more than one step.
    """

    make: Callable[[Path], Path]
    oracle: Callable
    latent: tuple[int, int, int]
    whole: bool = False
    options: Options = Options()
    asked: tuple[str, ...] = ()


def shifted(folder):
    """With a shift by the image's size."""
    from diffusers import FlowMatchEulerDiscreteScheduler

    numbers = {"base_shift": 0.5, "max_shift": 1.15, "base_image_seq_len": 256, "max_image_seq_len": 4096}
    return making.write_sd3(folder, FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, **numbers))


WIDE, DISTILLED = Options(size=(16, 24)), ("--guidance-scale", "1")


def without_t5(folder):
    return making.write_sd3(folder, t5=False)


def medium(folder):
    """As Stable Diffusion 3.5 medium: normalised queries and keys, a second attention in some layers."""
    return making.write_sd3(folder, qk_norm="rms_norm", dual_attention_layers=(0,))


def sigma(folder):
    return making.write_pixart(folder, sigma=True)


def without_variances(folder):
    return making.write_pixart(folder, sigma=True, out_channels=4)


def as_published(folder):
    """Under the name that diffusers gave its network then, with SentencePiece's tokenizer."""
    making.sentencepiece(making.write_pixart(folder) / "tokenizer")
    edited(folder, "transformer/config.json", _class_name="Transformer2DModel", num_vector_embeds=None)
    edited(folder, "model_index.json", transformer=["diffusers", "Transformer2DModel"])
    return folder


CASES = {
    "sd3": Case(making.write_sd3, oracles.stable_diffusion_3, (16, 8, 8), whole=True),
    "sd3 without T5": Case(without_t5, oracles.stable_diffusion_3, (16, 8, 8), whole=True),
    "sd3 shifted": Case(shifted, oracles.stable_diffusion_3, (16, 8, 8)),
    "sd3.5 medium": Case(medium, oracles.stable_diffusion_3, (16, 8, 8)),
    "sd3 wide": Case(making.write_sd3, oracles.stable_diffusion_3, (16, 8, 12), options=WIDE),
    "flux dev": Case(making.write_flux, oracles.flux, (16, 8, 12), True, WIDE, DISTILLED),
    "flux schnell": Case(making.write_schnell, oracles.flux, (16, 8, 12), True, WIDE, DISTILLED),
    "pixart alpha": Case(making.write_pixart, oracles.pixart, (4, 8, 12), True, WIDE),
    "pixart as published": Case(as_published, oracles.pixart, (4, 8, 8), options=Options(size=(16, 16))),
    "pixart sigma": Case(sigma, oracles.pixart, (4, 8, 8), whole=True),
    "pixart without variances": Case(without_variances, oracles.pixart, (4, 8, 8)),
}
WHOLE = [name for name, case in CASES.items() if case.whole]


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints")
    return {name: case.make(folder / str(i)) for i, (name, case) in enumerate(CASES.items())}


@pytest.fixture(scope="module")
def bundles(checkpoints, tmp_path_factory):
    """Exported when first asked for."""
    folder, made = tmp_path_factory.mktemp("bundles"), {}

    def bundle(name, dtype="float32"):
        if (name, dtype) not in made:
            made[name, dtype] = folder / str(len(made))
            export(checkpoints[name], made[name, dtype], dtype, options=CASES[name].options)
        return made[name, dtype]

    return bundle


def check(found, case, checkpoint, rtol=PARITY):
    """Scores against the pipeline's own: how far the prompt moves the clean estimate, and the noise where that is."""
    d = np.prod(case.latent)
    for text, row in zip(PROMPTS, found.iter_rows(named=True), strict=True):
        cond, uncond, latents, scheduler = case.oracle(checkpoint, text, case.latent)
        DX = (oracles.clean(cond, latents, scheduler) - oracles.clean(uncond, latents, scheduler)).reshape(2, -1)
        moved = np.linalg.norm(DX, axis=1)
        np.testing.assert_allclose(row["overestimation_v1"], CONFIG.guidance_scale * moved.mean() / d**0.5, rtol=rtol)
        if hasattr(scheduler, "alphas_cumprod"):
            norm = np.linalg.norm((cond - uncond).reshape(2, -1), axis=1).mean()
            np.testing.assert_allclose(row["text_noise_norm_v1"], norm, rtol=rtol)
        else:
            np.testing.assert_allclose(row["q1_v2"], moved**2 / d, rtol=2 * rtol)
            assert row["text_noise_norm_v1"] is None


@pytest.mark.parametrize("name", CASES)
def test_torch_gives_what_the_pipeline_gives(checkpoints, name):
    found = scores(open_checkpoint(checkpoints[name], options=CASES[name].options).bundle("torch"))
    check(found, CASES[name], checkpoints[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize("backend", ["cpu", "openvino", "cuda", "tensorrt"])
def test_a_bundle_gives_what_the_pipeline_gives(bundles, checkpoints, backend, name, monkeypatch, tmp_path):
    stand_in(backend, monkeypatch, tmp_path)
    bundle = open_bundle(bundles(name), backend, "float32")
    assert bundle.backend == backend
    check(scores(bundle), CASES[name], checkpoints[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", WHOLE)
def test_a_float16_bundle_is_near(bundles, checkpoints, name, monkeypatch, tmp_path):
    bundle = bundles(name, "float16")
    for backend in ("cpu", "tensorrt"):
        stand_in(backend, monkeypatch, tmp_path)
        check(scores(open_bundle(bundle, backend, "float16")), CASES[name], checkpoints[name], rtol=3e-2)


@pytest.mark.slow
@pytest.mark.parametrize("name", WHOLE)
def test_every_command_works(bundles, name, tmp_path):
    use_every_command(bundles(name), tmp_path, CASES[name].asked)


def test_every_family_has_both_halves_and_is_named_where_people_look():
    said, _, _ = run("export", "--help")
    assert {exporter.name for exporter in EXPORTERS} == set(FAMILIES)
    for exporter in EXPORTERS:
        assert exporter.title in " ".join(said.split())


def test_a_missing_t5_is_zeros_as_in_the_pipeline(checkpoints):
    denoiser = Denoiser(open_bundle(checkpoints["sd3 without T5"], "torch"))
    hidden = denoiser.encode(["a cat"]).arrays["encoder_hidden_states"]
    assert hidden.shape == (1, 16 + 256, 48)
    assert not hidden[:, 16:].any()
    assert hidden[:, :16, :40].all()


def test_a_t5_text_encoder_is_as_long_as_asked(checkpoints):
    asked = Options(max_sequence_length=40)
    checkpoint = open_checkpoint(checkpoints["sd3"], options=asked)
    case = Case(making.write_sd3, lambda *of: oracles.stable_diffusion_3(*of, length=40), (16, 8, 8))
    check(scores(checkpoint.bundle("torch")), case, checkpoints["sd3"])
    with pytest.raises(EngineError, match="--max-sequence-length 600: needed 2 to 512"):
        open_checkpoint(checkpoints["sd3"], options=Options(max_sequence_length=600))


def test_the_guidance_that_flux_is_told_is_part_of_its_identity(checkpoints):
    asked = (Options(size=(16, 24), guidance=number) for number in (None, 1.5))
    plain, told = (open_checkpoint(checkpoints["flux dev"], options=options) for options in asked)
    assert (plain.manifest.fixed, told.manifest.fixed) == ({"guidance": 3.5}, {"guidance": 1.5})
    assert plain.manifest.fingerprint != told.manifest.fingerprint
    case = Case(making.write_flux, lambda *of: oracles.flux(*of, guidance=1.5), (16, 8, 12))
    check(scores(told.bundle("torch")), case, checkpoints["flux dev"])
    with pytest.raises(EngineError, match=r"--guidance 2: .* is told none, as FLUX schnell"):
        open_checkpoint(checkpoints["flux schnell"], options=Options(guidance=2.0))


def test_steps_are_not_guided_where_guidance_is_distilled(checkpoints):
    bundle = open_checkpoint(checkpoints["flux schnell"], options=WIDE).bundle("torch")
    denoiser = Denoiser(bundle)
    assert (denoiser.guidance(None), denoiser.guidance(1.0)) == (1, 1)
    assert Denoiser(open_bundle(checkpoints["sd3"], "torch")).guidance(None) == 7.5
    with pytest.raises(ModelError, match=r"guidance is distilled .* guidance scale 7.5 was asked, needed 1: name"):
        Model.of(bundle, ScanConfig(first_steps=2), batch_size=4).prepare()
    assert list(bundle.manifest.grids)[:3] == ["4", "8", "10"]


def test_t5_keeps_in_float32_what_overflows_in_float16(checkpoints):
    module = open_checkpoint(checkpoints["sd3"]).on("cpu", "float16").engine("text_encoder_3").module
    dtypes = {name.split(".")[-2]: parameter.dtype for name, parameter in module.named_parameters()}
    assert (dtypes["wo"], dtypes["wi_0"], dtypes["q"]) == (torch.float32, torch.float16, torch.float16)


def lora(tmp_path, **layers):
    """A file with a LoRA of rank 2 for modules of these sizes, and what it adds to each."""
    rng, held, added = torch.Generator().manual_seed(3), {}, {}
    for name, (rows, columns) in layers.items():
        down, up = torch.randn(2, columns, generator=rng), torch.randn(rows, 2, generator=rng)
        held |= {f"{name}.lora_A.weight": down, f"{name}.lora_B.weight": up}
        added[name] = up @ down
    save_file(held, tmp_path / "style.safetensors")
    return Lora(tmp_path / "style.safetensors", 0.5), added


@pytest.mark.parametrize(
    ("name", "layers"),
    [
        ("sd3", {"transformer.transformer_blocks.0.attn.to_q": (16, 16),
                 "text_encoder.text_model.encoder.layers.0.self_attn.q_proj": (16, 16)}),
        ("flux dev", {"transformer.single_transformer_blocks.0.attn.to_k": (32, 32),
                      "text_encoder.text_model.encoder.layers.1.mlp.fc1": (32, 16)}),
    ],
)  # fmt: skip
def test_a_lora_is_fused_into_transformers_and_text_encoders(checkpoints, tmp_path, name, layers):
    adapter, added = lora(tmp_path, **layers)
    with assembled(checkpoints[name], Changes(loras=(adapter,)), None, tmp_path / "out") as folder:
        for whole, change in added.items():
            part, _, module = whole.partition(".")
            weights = [load_file(next((at / part).glob("*.safetensors"))) for at in (checkpoints[name], folder)]
            (key,) = (
                key
                for key in weights[0]
                if key.removeprefix("text_model.") == f"{module.removeprefix('text_model.')}.weight"
            )
            torch.testing.assert_close(weights[1][key] - weights[0][key], 0.5 * change)


def test_a_lora_for_flux_in_kohyas_layout_is_split_as_its_network_is(checkpoints, tmp_path):
    rng, name = torch.Generator().manual_seed(3), "lora_unet_double_blocks_0_img_attn_qkv"
    down, up = torch.randn(2, 32, generator=rng), torch.randn(96, 2, generator=rng)
    alpha = torch.tensor(1.0)
    save_file(
        {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up, f"{name}.alpha": alpha},
        tmp_path / "a.safetensors",
    )
    changes = Changes(loras=(Lora(tmp_path / "a.safetensors"),))
    with assembled(checkpoints["flux dev"], changes, None, tmp_path / "out") as folder:
        weights = [
            load_file(next((at / "transformer").glob("*.safetensors"))) for at in (checkpoints["flux dev"], folder)
        ]
        for i, part in enumerate("qkv"):
            key = f"transformer_blocks.0.attn.to_{part}.weight"
            torch.testing.assert_close(weights[1][key] - weights[0][key], 0.5 * (up @ down)[32 * i : 32 * i + 32])


def test_pixart_takes_neither_loras_nor_embeddings(checkpoints, tmp_path):
    adapter, _ = lora(tmp_path, **{"transformer.a": (2, 2)})
    for changes, said in (
        (Changes(loras=(adapter,)), "a PixArtSigmaPipeline takes no LoRA"),
        (Changes(embeddings=(Embedding(adapter.file),)), "a PixArtSigmaPipeline takes no embeddings"),
    ):
        with (
            pytest.raises(EngineError, match=said),
            assembled(checkpoints["pixart sigma"], changes, None, tmp_path / "out"),
        ):
            pass


def test_another_transformer_takes_the_bases_place(checkpoints, tmp_path):
    other = making.write_sd3(tmp_path / "other", num_layers=1)
    with assembled(checkpoints["sd3"], Changes(unet=other), None, tmp_path / "out") as folder:
        check(scores(open_bundle(folder, "torch")), CASES["sd3"], folder)
        assert len(open_checkpoint(folder).parts.module("transformer").transformer_blocks) == 1


def test_an_export_holds_one_network_at_a_time(checkpoints, tmp_path, monkeypatch):
    held, most = weakref.WeakSet(), []

    def watched(*asked):
        most.append(len(held))
        module = load(*asked)
        held.add(module)
        return module

    def traced(name, checkpoint, folder):
        module = checkpoint.engine(name).module
        module.traced = [module]  # as what torch traced does
        return {}

    load, manifest = engines.torch_ref.load, open_checkpoint(checkpoints["sd3"]).manifest
    monkeypatch.setattr(engines.torch_ref, "load", watched)
    monkeypatch.setattr("engines.export._export_component", traced)
    monkeypatch.setattr("engines.export.OrtEngine", lambda folder, component, sparing: most.append(len(held)))
    monkeypatch.setattr("engines.export._verify", lambda *_: 0.0)
    monkeypatch.setattr("engines.export.read_manifest", lambda folder: manifest)
    gc.disable()
    try:
        export(checkpoints["sd3"], tmp_path / "bundle")
    finally:
        gc.enable()
    assert most == [0] * 18  # six networks, each loaded to be traced, then to be compared with what ONNX Runtime opens


@pytest.mark.slow
def test_a_dry_run_computes_what_flux_and_t5_would_take_at_full_size(checkpoints, tmp_path):
    folder = copied(checkpoints["flux dev"], tmp_path)
    edited(
        folder, "transformer/config.json", num_layers=19, num_single_layers=38, attention_head_dim=128,
        num_attention_heads=24, joint_attention_dim=4096, pooled_projection_dim=768, axes_dims_rope=[16, 56, 56],
    )  # fmt: skip
    t5 = {"d_model": 4096, "d_kv": 64, "d_ff": 10240, "num_layers": 24, "num_heads": 64, "vocab_size": 32128}
    edited(folder, "text_encoder_2/config.json", **t5)
    edited(folder, "text_encoder/config.json", hidden_size=768, num_attention_heads=12)
    said = list(outlook(folder, "float16"))
    assert "component   transformer: 11,901.4 million parameters -> output" in said  # as published
    assert "component   text_encoder_2: 4,762.3 million parameters -> encoder_hidden_states" in said
    assert "memory      about 97 GB at most: computed from another model's, not run" in said


def test_prompts_are_written_in_small_letters_where_the_pipeline_does_that(checkpoints):
    (text,) = open_checkpoint(checkpoints["pixart sigma"]).tokenizers.values()
    tokenizer = Tokenizer.from_str(text)
    assert tokenizer.encode("A Red CAT").ids == tokenizer.encode("a red cat").ids
    assert tokenizer.encode("A Red CAT").offsets[:3] == [(0, 1), (2, 5), (6, 9)]
    every = [chr(code) for code in range(0x110000) if unicodedata.category(chr(code)) not in ("Cn", "Cs")]
    for prompt in ["".join(every), "ΟΔΥΣΣΕΥΣ ΚΑΙ ΑΣ, Σ ΣΑΣ.", "İSTANBUL", "STRASSE ẞ"]:
        assert tokenizer.normalizer.normalize_str(prompt) == prompt.lower()


@pytest.mark.parametrize(
    ("name", "file", "changes", "said"),
    [
        ("sd3", "model_index.json", {"tokenizer_3": [None, None]}, "has tokenizer_3 = [None, None]"),
        ("sd3", "model_index.json", {"text_encoder": [None, None]}, "has text_encoder = [None, None]"),
        ("sd3", "text_encoder_3/config.json", {"d_model": 32}, "its T5 text encoder gives 32 numbers per token"),
        ("sd3", "transformer/config.json", {"pooled_projection_dim": 32}, "give 40 numbers for the text and 40 per"),
        ("sd3", "transformer/config.json", {"in_channels": 32}, "takes 32 channels, the latent has 16"),
        ("sd3", "transformer/config.json", {"pos_embed_max_size": 3}, "for latents of up to 6; this one is 8 x 8"),
        ("sd3", "scheduler/scheduler_config.json", {"invert_sigmas": True}, "invert_sigmas True is not supported"),
        ("flux dev", "transformer/config.json", {"joint_attention_dim": 40}, "takes 16 and 40: they are of different"),
        ("flux dev", "transformer/config.json", {"in_channels": 384}, "takes 96 channels, the latent has 16: needed"),
        (
            "pixart sigma",
            "transformer/config.json",
            {"use_additional_conditions": True},
            "PixArtSigmaPipeline does not",
        ),
        ("pixart sigma", "transformer/config.json", {"caption_channels": 40}, "takes 40 numbers per token; the latent"),
        ("pixart sigma", "transformer/config.json", {"out_channels": 12}, "gives 12 channels"),
        ("pixart sigma", "tokenizer/tokenizer_config.json", {"pad_token": None}, "no pad_token"),
    ],
)
def test_what_is_not_of_the_family_is_refused(checkpoints, tmp_path, name, file, changes, said):
    folder = copied(checkpoints[name], tmp_path)
    edited(folder, file, **changes)
    with pytest.raises(EngineError, match=re.escape(said)):
        open_checkpoint(folder)
