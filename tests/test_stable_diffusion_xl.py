"""Stable Diffusion XL: two text encoders, a pooled embedding and sizes, as its pipeline conditions its network."""

import re

import numpy as np
import oracles
import polars as pl
import pytest
import tensorrt_on_cpu
import tiny as making
from test_cli import run
from tiny import copied, edited

import engines.cuda
from engines import EngineError, open_bundle
from engines.export import export
from engines.families import Options
from engines.torch_ref import open_checkpoint
from scanner import ScanConfig
from scanner.diffusion.denoiser import Denoiser
from scanner.model import Model

PROMPTS = ["a red cat on a mat", "two boats", "a cat " * 30]
CONFIG = ScanConfig(seeds=oracles.SEEDS, timesteps=())  # the sampler's first, as a pipeline's
PARITY = 1e-5  # relative, of float32 in other orders of summation
SIZES = {"original_size": (512, 768), "crop": (64, 0), "target_size": (1024, 1024)}


def playground(folder):
    """With Playground v2.5's scheduler and its VAE's statistics by channel."""
    from diffusers import EDMDPMSolverMultistepScheduler

    numbers = {"latents_mean": [0.1, -0.2, 0.3, 0.0], "latents_std": [1.5, 0.8, 1.1, 0.9], "scaling_factor": 0.5}
    return making.write_xl(folder, EDMDPMSolverMultistepScheduler(), numbers)


def small(folder):
    """With a UNet as SSD-1B's: blocks left out, none in the middle."""
    return making.write_xl(folder, unet={"mid_block_type": None, "transformer_layers_per_block": (1, 1)})


MAKERS = {"base": making.write_xl, "playground": playground, "small": small}


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    folder = tmp_path_factory.mktemp("xl")
    return {name: make(folder / name) for name, make in MAKERS.items()}


@pytest.fixture(scope="module")
def xl(checkpoints):
    return checkpoints["base"]


@pytest.fixture(scope="module")
def exported(checkpoints, tmp_path_factory):
    folder = tmp_path_factory.mktemp("xl-bundles")
    for name in ("base", "playground"):
        export(checkpoints[name], folder / name)
    return folder


def scores(bundle):
    """Of PROMPTS, a row each."""
    prompts = pl.DataFrame({"prompt_id": [str(i) for i in range(len(PROMPTS))], "text": PROMPTS})
    return Model.of(bundle, CONFIG, batch_size=4).scorer()(prompts)


def check(found, checkpoint, unit=1.0, **told):
    """Scores against the pipeline's own: the norm of what the prompt changes, in eps and in the clean estimate."""
    for text, row in zip(PROMPTS, found.iter_rows(named=True), strict=True):
        cond, uncond, latents, scheduler = oracles.stable_diffusion_xl(checkpoint, text, (4, 8, 8), (16, 16), **told)
        DX = (oracles.clean(cond, latents, scheduler) - oracles.clean(uncond, latents, scheduler)) / unit
        pushed = CONFIG.guidance_scale * np.linalg.norm(DX.reshape(2, -1), axis=1).mean() / np.sqrt(4 * 8 * 8)
        np.testing.assert_allclose(row["overestimation_v1"], pushed, rtol=PARITY)
        if unit == 1.0:
            norm = np.linalg.norm((cond - uncond).reshape(2, -1), axis=1).mean()
            np.testing.assert_allclose(row["text_noise_norm_v1"], norm, rtol=PARITY)


@pytest.mark.parametrize(("name", "unit"), [("base", 1.0), ("small", 1.0), ("playground", 0.5)])
def test_torch_gives_what_the_pipeline_gives(checkpoints, name, unit):
    found = scores(open_bundle(checkpoints[name], "torch"))
    check(found, checkpoints[name], unit)
    assert found["truncated"].to_list() == [False, False, True]
    raw = {"q1", "q2", "q3"} if unit == 1.0 else {"q1_v2", "q2_v2", "q3_v2"}
    assert {column for column in found.columns if column.startswith("q")} == raw


def test_the_empty_prompt_is_zeros_where_the_pipeline_has_zeros(xl, tmp_path):
    denoiser = Denoiser(open_bundle(xl, "torch"))
    assert np.abs(denoiser.encode([""]).arrays["text_embeds"]).max() > 0.1
    assert not denoiser.null.arrays["encoder_hidden_states"].any()
    assert not denoiser.null.arrays["text_embeds"].any()
    assert denoiser.null.arrays["time_ids"].tolist() == [[16, 16, 0, 0, 16, 16]]
    folder = copied(xl, tmp_path)
    edited(folder, "model_index.json", force_zeros_for_empty_prompt=False)
    found = open_bundle(folder, "torch")
    assert Denoiser(found).null.arrays["text_embeds"].any()
    assert found.manifest.fingerprint != open_bundle(xl, "torch").manifest.fingerprint
    check(scores(found), folder)


def test_the_sizes_that_it_is_told_are_options_and_part_of_its_identity(xl):
    told, plain = open_checkpoint(xl, options=Options(**SIZES)), open_checkpoint(xl)
    assert told.manifest.fixed["time_ids"] == [512, 768, 64, 0, 1024, 1024]
    assert told.manifest.fingerprint != plain.manifest.fingerprint
    check(scores(told.bundle("torch")), xl, **SIZES)


def test_its_scheduler_keeps_its_own_offset(xl, tmp_path):
    from diffusers import StableDiffusionXLPipeline

    folder = copied(xl, tmp_path)
    edited(folder, "scheduler/scheduler_config.json", steps_offset=0)
    own = StableDiffusionXLPipeline.from_pretrained(folder, local_files_only=True).scheduler
    own.set_timesteps(50)
    assert open_checkpoint(folder).manifest.grids["50"]["timesteps"] == own.timesteps.tolist()
    assert own.timesteps[0] == 980


def test_another_size_of_images_is_another_latent(xl):
    manifest = open_checkpoint(xl, options=Options(size=(16, 24))).manifest
    assert manifest.latent_shape == (4, 8, 12)
    assert manifest.fixed["time_ids"] == [16, 24, 0, 0, 16, 24]
    with pytest.raises(EngineError, match="--size 15x16: needed multiples of 2 pixels"):
        open_checkpoint(xl, options=Options(size=(15, 16)))


def test_reading_is_of_both_tokenizers(xl):
    (one,) = Denoiser(open_bundle(xl, "torch")).read(["a red cat"])
    assert len(one.ids) == 32
    assert one.ids[:5] == one.ids[16:21]  # then one pads with its end, the other with "!"
    assert one.ids[5:16] != one.ids[21:]
    assert ["a red cat"[start:end] for start, end in one.spans] == ["a", "red", "cat"]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "unit"), [("base", 1.0), ("playground", 0.5)])
@pytest.mark.parametrize("backend", ["cpu", "openvino", "cuda", "tensorrt"])
def test_a_bundle_gives_what_the_pipeline_gives(exported, checkpoints, backend, name, unit, monkeypatch, tmp_path):
    stand_in(backend, monkeypatch, tmp_path)
    bundle = open_bundle(exported / name, backend, "float32")
    assert bundle.backend == backend
    check(scores(bundle), checkpoints[name], unit)


def stand_in(backend, monkeypatch, tmp_path):
    """Where a backend needs a GPU, something that computes the same on the CPU."""
    if backend == "cuda":  # ONNX Runtime's CPU for the device
        monkeypatch.setattr(engines.cuda, "require_cuda", lambda: None)
        monkeypatch.setattr(engines.cuda, "PROVIDER", "CPUExecutionProvider")
        monkeypatch.setattr(engines.cuda, "DEVICE", "cpu")
        monkeypatch.setattr(engines.cuda, "SETTINGS", {})
    if backend == "tensorrt":
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        tensorrt_on_cpu.install(monkeypatch)


@pytest.mark.slow
def test_images_are_decoded_as_the_pipeline_decodes_them(exported, checkpoints):
    """Playground's statistics by channel, and the unit of its latents."""
    import torch
    from diffusers import StableDiffusionXLPipeline

    latent = oracles.noise((4, 8, 8), (5,)).numpy()
    vae = StableDiffusionXLPipeline.from_pretrained(checkpoints["playground"]).vae
    mean, std = (torch.tensor(vae.config[name]).view(1, 4, 1, 1) for name in ("latents_mean", "latents_std"))
    with torch.inference_mode():
        expected = vae.decode(torch.from_numpy(latent) * 0.5 * std / vae.config.scaling_factor + mean).sample.numpy()
    denoiser = Denoiser(open_bundle(exported / "playground", "cpu"))
    np.testing.assert_allclose(denoiser.decode(latent), expected, atol=1e-5)
    back = denoiser.encode_images(expected)
    with torch.inference_mode():
        z = vae.encode(torch.from_numpy(expected)).latent_dist.mean
    np.testing.assert_allclose(back, ((z - mean) * vae.config.scaling_factor / std / 0.5).numpy(), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["base", "playground"])
def test_every_command_works(exported, name, tmp_path):
    use_every_command(exported / name, tmp_path)


def use_every_command(bundle, folder, settings=()):
    """Scan with a bundle and these settings, report, look closer: all of it ends well, and finds something."""
    (folder / "captions.txt").write_text("\n".join(["a red barn", "two boats", "a cat", *PROMPTS]))
    store, report = folder / "store", folder / "report"
    asked = ["--model", bundle, "--backend", "cpu", "--batch-size", "8"]
    stepped = ["--first-steps", "2", *settings]
    for command in (
        ["scan", folder / "captions.txt", *asked, "--store", store, *stepped],
        ["report", "--store", store, "--out", report, "--top", "2"],
        ["explain", "--report", report, "--model", bundle, "--backend", "cpu", *stepped],
        ["verify", "--report", report, "--model", bundle, "--out", folder / "verified", "--seeds", "2"],
        ["doctor", "--model", bundle, "--backend", "cpu"],
    ):
        _, err, code = run(*command)
        assert code == 0, err
    found = pl.read_parquet(report / "scores.parquet")
    assert found["estimate_ratio_prior_v1"].is_finite().all()
    assert len(found.filter("flagged")) == 2
    assert (folder / "verified/verify.html").stat().st_size > 10_000


@pytest.mark.slow
def test_a_float16_bundle_keeps_the_vae_that_would_overflow_in_float32(xl, tmp_path):
    manifest = export(xl, tmp_path / "half", "float16")
    size = {name: (tmp_path / "half" / f"{name}.onnx").stat().st_size for name in manifest.components}
    full = {name: sum(p.numel() for p in open_checkpoint(xl).engine(name).module.parameters()) for name in size}
    assert size["vae_decoder"] > 4 * full["vae_decoder"]
    assert size["text_encoder_2"] < 3.9 * full["text_encoder_2"]
    half, whole = (scores(bundle) for bundle in (open_bundle(tmp_path / "half", "cpu"), open_bundle(xl, "torch")))
    np.testing.assert_allclose(half["overestimation_v1"], whole["overestimation_v1"], rtol=2e-2)


@pytest.mark.parametrize(
    ("file", "changes", "said"),
    [
        ("model_index.json", {"_class_name": "StableDiffusionXLImg2ImgPipeline"}, "the SDXL refiner, which finishes"),
        ("model_index.json", {"requires_aesthetics_score": True}, "requires_aesthetics_score: the SDXL refiner"),
        (
            "model_index.json",
            {"text_encoder": [None, None]},
            "has text_encoder = [None, None]; overscan reads",
        ),
        ("unet/config.json", {"addition_embed_type": None}, "addition_embed_type None; needed text_time"),
        ("unet/config.json", {"projection_class_embeddings_input_dim": 64}, "projection_class_embeddings_input_dim 64"),
        ("unet/config.json", {"cross_attention_dim": 16}, "the text encoder gives 40 numbers per token"),
        ("unet/config.json", {"time_cond_proj_dim": 8}, "guidance is distilled into it (LCM)"),
        ("tokenizer_2/tokenizer_config.json", {"model_max_length": 12}, "its tokenizers are of 16 and 12 tokens"),
        ("scheduler/scheduler_config.json", {"prediction_type": "sample"}, "prediction_type 'sample'"),
    ],
)
def test_what_is_no_sdxl_is_refused(xl, tmp_path, file, changes, said):
    folder = copied(xl, tmp_path)
    edited(folder, file, **changes)
    with pytest.raises(EngineError, match=re.escape(said)):
        open_checkpoint(folder)


def test_an_option_of_another_family_is_refused(tiny):
    with pytest.raises(EngineError, match=r"--crop: Stable Diffusion v1 and v2 knows no such setting; it takes --size"):
        open_checkpoint(tiny, options=Options(crop=(1, 1)))
