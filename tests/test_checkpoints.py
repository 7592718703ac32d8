"""What a checkpoint is read as its pipeline runs it, and what is refused by name before any work."""

import json
import re

import numpy as np
import polars as pl
import pytest
import tiny as making
import torch
from safetensors.torch import save_file
from test_cli import run
from tiny import copied, edited, reweighted

from engines import EngineError, open_bundle
from engines.export import export
from engines.torch_ref import open_checkpoint
from scanner.diffusion.denoiser import Denoiser

COMPONENT = {"unet": "unet", "text_encoder": "text_encoder", "vae": "vae_decoder"}  # that each part becomes


def without_first(tensors):
    return dict(list(tensors.items())[1:])


def cut_short(tensors):
    first, *others = tensors
    return {first: tensors[first][:-1]} | {name: tensors[name] for name in others}


def prefixed(tensors):
    return {f"model.{name}": tensor for name, tensor in tensors.items()}


def with_another(tensors):
    return tensors | {"extra.weight": torch.zeros(2)}


@pytest.mark.parametrize("network", ["unet", "text_encoder", "vae"])
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (without_first, "1 tensor missing ({first})"),
        (cut_short, "1 tensor mismatched ({first})"),
        (prefixed, r"{all} tensors missing \(.*, \.\.\.\), {all} tensors unexpected \(model\."),
        (with_another, "1 tensor unexpected (extra.weight)"),
    ],
)
def test_weights_that_are_not_the_networks_are_refused_by_name(tiny, tmp_path, network, change, said):
    folder, names = copied(tiny, tmp_path), []
    reweighted(folder / network, lambda tensors: names.extend(tensors) or change(tensors))
    expected = said.format(first=names[0], all=len(names))
    with pytest.raises(EngineError, match=expected if "\\" in said else re.escape(expected)) as refused:
        open_checkpoint(folder).engine(COMPONENT[network])
    assert f"model/{network}: " in str(refused.value)
    assert "what is missing would be random; save it again" in str(refused.value)


def test_the_text_encoders_older_names_are_no_fault(tiny, tmp_path):
    folder = copied(tiny, tmp_path)

    def older(tensors):
        named = {f"text_model.{name}": tensor for name, tensor in tensors.items()}
        return named | {"text_model.embeddings.position_ids": torch.arange(16)[None]}

    reweighted(folder / "text_encoder", older)
    ids = {"input_ids": np.arange(32).reshape(2, 16)}
    old, new = (open_checkpoint(path).engine("text_encoder").run(ids) for path in (folder, tiny))
    np.testing.assert_array_equal(old["encoder_hidden_states"], new["encoder_hidden_states"])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_without_a_number_are_named(tiny, tmp_path, value):
    folder = copied(tiny, tmp_path)
    reweighted(folder / "unet", lambda tensors: tensors | {"conv_in.bias": torch.full((8,), value)})
    with pytest.raises(
        EngineError, match=r"unet: 1 tensor with NaN or infinity \(conv_in\.bias\): the weights are dam"
    ):
        export(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_weights_too_large_for_half_precision_are_named(tiny, tmp_path):
    folder = copied(tiny, tmp_path)
    reweighted(folder / "unet", lambda tensors: tensors | {"conv_in.bias": torch.full((8,), 1e6)})
    with pytest.raises(
        EngineError, match=r"unet: 1 tensor .* \(conv_in\.bias\): .* too large for float16: export with --dtype float32"
    ):
        export(folder, tmp_path / "out", "float16")


@pytest.mark.slow
def test_finite_weights_that_overflow_are_not_blamed_on_the_precision(tiny, tmp_path):
    folder = copied(tiny, tmp_path)
    reweighted(folder / "unet", lambda tensors: {name: tensor * 1e30 for name, tensor in tensors.items()})
    with pytest.raises(EngineError, match=r"unet: torch in float32 gives NaN or infinity .* its weights are damaged"):
        export(folder, tmp_path / "out")


SCHEDULER, UNET, TEXT, TOKENIZER, VAE, INDEX = (
    "scheduler/scheduler_config.json", "unet/config.json", "text_encoder/config.json",
    "tokenizer/tokenizer_config.json", "vae/config.json", "model_index.json",
)  # fmt: skip
EDITS = [
    (INDEX, {"_class_name": "StableDiffusionControlNetPipeline"}, "_class_name = StableDiffusionControlNetPipeline"),
    (INDEX, {"_class_name": "LatentConsistencyModelPipeline"}, "overscan reads StableDiffusionPipeline"),
    (INDEX, {"_class_name": "StableDiffusionInpaintPipeline"}, "StableDiffusionPipeline.from_pretrained and save it"),
    (INDEX, {"_class_name": ["pipeline", "Mine"]}, "_class_name = ['pipeline', 'Mine']"),
    (INDEX, {"_class_name": ...}, "_class_name = None"),
    (INDEX, {"controlnet": ["diffusers", "ControlNetModel"]}, "has controlnet = ['diffusers', 'ControlNetModel']"),
    (INDEX, {"text_encoder": None}, "has text_encoder = None; overscan reads Stable Diffusion"),
    (INDEX, {"unet": ...}, "has unet = None"),
    (INDEX, {"vae": ["diffusers", "AutoencoderTiny"]}, "has vae = AutoencoderTiny"),
    (INDEX, {"tokenizer": "CLIPTokenizer"}, "has tokenizer = CLIPTokenizer; "),
    (INDEX, {"unet": ["my_unet", "UNet2DConditionModel"]}, "has unet = ['my_unet', 'UNet2DConditionModel']"),
    (INDEX, {"scheduler": [None, None]}, "has scheduler = [None, None]"),
    (INDEX, {"scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"]}, "FlowMatchEulerDiscreteScheduler; over"),
    (INDEX, {"scheduler": ["diffusers", "EDMEulerScheduler"]}, "EDMEulerScheduler; overscan reads DDIMScheduler"),
    (INDEX, {"scheduler": ["diffusers", "PNDMScheduler"]}, "but model_index.json says PNDMScheduler"),
    (SCHEDULER, {"beta_schedule": ...}, "no beta_schedule: write what the model was trained with"),
    (SCHEDULER, {"beta_schedule": "squaredcos_cap_v2"}, "beta_schedule 'squaredcos_cap_v2'; overscan knows"),
    (SCHEDULER, {"trained_betas": [0.1] * 1000}, "beta_schedule trained_betas; overscan knows"),
    (SCHEDULER, {"beta_start": "small"}, "beta_start 'small'; needed a number above 0"),
    (SCHEDULER, {"beta_end": ...}, "no beta_end"),
    (SCHEDULER, {"num_train_timesteps": 10**12}, "num_train_timesteps 1000000000000; needed 2 to 100000"),
    (SCHEDULER, {"num_train_timesteps": 5}, "DDIMScheduler"),
    (SCHEDULER, {"prediction_type": "sample"}, "prediction_type 'sample'; overscan reads models of epsilon or"),
    (SCHEDULER, {"rescale_betas_zero_snr": True}, "zero-terminal-SNR schedule"),
    (SCHEDULER, {"thresholding": True}, "thresholding True is not supported"),
    (SCHEDULER, {"timestep_spacing": "karras"}, "makes no DDIMScheduler"),
    (UNET, {"sample_size": None}, "sample_size None; needed the latent's"),
    (UNET, {"sample_size": ...}, "sample_size None; needed the latent's"),
    (UNET, {"sample_size": [8, 8, 8]}, "sample_size [8, 8, 8]; needed"),
    (UNET, {"sample_size": 0}, "sample_size 0; needed"),
    (UNET, {"sample_size": 2_000_000_000}, "sample_size 2000000000; needed"),
    (UNET, {"sample_size": "8"}, "sample_size 8; needed"),
    (UNET, {"cross_attention_dim": 32}, "cross_attention_dim is 32, the text encoder gives 16 numbers per token"),
    (UNET, {"in_channels": 9}, "takes 9 channels and gives 4, the latent has 4"),
    (UNET, {"class_embed_type": "timestep"}, "class_embed_type timestep: it wants a class"),
    (UNET, {"num_class_embeds": 10}, "num_class_embeds 10: it wants a class beside the text"),
    (UNET, {"addition_embed_type": "text", "addition_embed_type_num_heads": 4}, "addition_embed_type text: it"),
    (UNET, {"time_cond_proj_dim": 8}, "time_cond_proj_dim 8: guidance is distilled into it (LCM)"),
    (UNET, {"encoder_hid_dim": 16, "encoder_hid_dim_type": "text_proj"}, "encoder_hid_dim_type text_proj: it"),
    (UNET, {"_class_name": "UNet2DModel"}, "of a UNet2DModel; needed UNet2DConditionModel"),
    (UNET, {"norm_num_groups": 7}, "makes no UNet2DConditionModel"),
    (UNET, {"block_out_channels": "wide"}, "makes no UNet2DConditionModel"),
    (TEXT, {"use_attention_mask": True}, "use_attention_mask: the pipeline hides the padding"),
    (TEXT, {"hidden_size": 15}, "CLIPTextModel"),
    (VAE, {"scaling_factor": None}, "scaling_factor None; needed a number above 0"),
    (VAE, {"scaling_factor": 0}, "scaling_factor 0; needed"),
    (VAE, {"in_channels": 1}, "the VAE reads 1 and writes 3 colour channels"),
    (VAE, {"latent_channels": 16}, "the latent has 16"),
    (TOKENIZER, {"model_max_length": ...}, "model_max_length absent; needed 2 to 16, the text encoder's: write it"),
    (TOKENIZER, {"model_max_length": 77}, "model_max_length 77; needed 2 to 16"),
    (TOKENIZER, {"model_max_length": -1}, "model_max_length -1; needed 2 to 16"),
]  # fmt: skip


@pytest.mark.parametrize(("file", "changes", "said"), EDITS, ids=lambda value: str(value)[:60])
def test_what_the_pipeline_would_do_otherwise_is_refused_before_any_weight_is_read(
    tiny, tmp_path, monkeypatch, file, changes, said
):
    folder = copied(tiny, tmp_path)
    edited(folder, file, **changes)
    monkeypatch.setattr("engines.torch_ref.load", lambda *_: pytest.fail("weights were read"))
    with pytest.raises(EngineError, match=re.escape(said)):
        open_checkpoint(folder)


def added(tokens, resized):
    def spoil(folder):
        from transformers import CLIPTextModel, CLIPTokenizer

        tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
        tokenizer.add_tokens(tokens)
        tokenizer.save_pretrained(folder / "tokenizer")
        if resized:
            text_encoder = CLIPTextModel.from_pretrained(folder / "text_encoder")
            text_encoder.resize_token_embeddings(len(tokenizer))
            text_encoder.save_pretrained(folder / "text_encoder")

    return spoil


def test_an_added_token_needs_an_embedding(tiny, tmp_path):
    folder = copied(tiny, tmp_path)
    added(["<dog>"], resized=False)(folder)
    with pytest.raises(
        EngineError, match=r"1 token without an embedding, such as '<dog>' with id 1502; the text .* 1502"
    ):
        open_checkpoint(folder)


def test_a_textual_inversion_is_read_as_all_of_its_tokens(tiny, tmp_path):
    from tokenizers import Tokenizer

    folder = copied(tiny, tmp_path)
    added(["<dog>"], resized=True)(folder)
    checkpoint = open_checkpoint(folder)
    assert 1502 in Tokenizer.from_str(checkpoint.tokenizers["tokenizer"]).encode("a <dog> there").ids
    assert checkpoint.engine("text_encoder").module.vocabulary == 1503
    added(["<dog>_1", "<dog>_2"], resized=True)(folder)
    (text,) = open_checkpoint(folder).tokenizers.values()
    assert [number for number in Tokenizer.from_str(text).encode("a <dog> there").ids if number >= 1502] == [
        1502,
        1503,
        1504,
    ]


LORA = {"unet.down_blocks.0.attentions.0.to_q.lora_A.weight": torch.zeros(2, 2)}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("pytorch_lora_weights.safetensors", LORA),
        ("style.safetensors", {"lora_unet_mid_block_proj_in.lora_down.weight": torch.zeros(2, 2)}),
        ("unet/pytorch_lora_weights.safetensors", LORA),
        ("loras/v2.safetensors", {"x.hada_w1_a": torch.zeros(2, 2)}),
        ("learned_embeds.safetensors", {"<dog>": torch.zeros(16)}),
        ("ip.safetensors", {"image_proj.proj.weight": torch.zeros(2, 2)}),
        ("text_encoder/adapter_config.json", "{}"),
        ("pytorch_lora_weights.bin", "whatever"),
        ("learned_embeds.bin", "whatever"),
    ],
)
def test_weights_on_top_of_the_models_are_refused(tiny, tmp_path, name, content):
    folder = copied(tiny, tmp_path)
    (folder / name).parent.mkdir(exist_ok=True)
    if isinstance(content, str):
        (folder / name).write_text(content)
    else:
        save_file(content, folder / name)
    with pytest.raises(EngineError, match=rf"{name}: a LoRA, an adapter, .* fuse it .* move it to another folder"):
        open_checkpoint(folder)


def test_what_the_pipeline_does_not_read_is_no_addon(tiny, tmp_path):
    folder = copied(tiny, tmp_path)
    save_file({f"model.diffusion_model.{n}.weight": torch.zeros(2) for n in range(9)}, folder / "v1-5.safetensors")
    (folder / "v1-5-pruned.ckpt").write_bytes(b"another format of the same")
    (folder / "README.md").write_text("how to fuse a LoRA")
    assert open_checkpoint(folder).manifest.latent_shape == (4, 8, 8)


@pytest.mark.slow
def test_a_latent_that_is_not_square_works_throughout(tmp_path):
    folder = making.write(tmp_path / "wide", sample_size=(8, 12))
    manifest = export(folder, tmp_path / "bundle")
    assert manifest.latent_shape == (4, 8, 12)
    assert manifest.components["vae_decoder"].outputs["image"].shape == (None, 3, 16, 24)
    (tmp_path / "captions.txt").write_text("a red barn\ntwo boats\n")
    scores = {}
    for model, backend in ((tmp_path / "bundle", "cpu"), (folder, "torch")):
        store = tmp_path / backend
        _, err, code = run("scan", tmp_path / "captions.txt", "--model", model, "--store", store, "--backend", backend)
        assert code == 0, err
        scores[backend] = pl.read_delta(str(store / "scores")).sort("prompt_id")["low_noise_norm_v1"]
    np.testing.assert_allclose(scores["cpu"], scores["torch"], rtol=1e-4)
    denoiser = Denoiser(open_bundle(tmp_path / "bundle", "cpu"))
    assert denoiser.image_size == (16, 24)
    images = denoiser.decode(np.zeros((1, 4, 8, 12), np.float32))
    assert images.shape == (1, 3, 16, 24)
    assert denoiser.encode_images(images).shape == (1, 4, 8, 12)


def test_early_configurations_hold_a_wrong_size_as_the_pipeline_knows(tiny, tmp_path):
    folder = copied(tiny, tmp_path)
    edited(folder, UNET, _diffusers_version="0.6.0", sample_size=32)
    assert open_checkpoint(folder).manifest.latent_shape == (4, 64, 64)


def test_padding_and_truncation_are_on_the_tokenizers_sides(tiny, tmp_path):
    from tokenizers import Tokenizer
    from transformers import CLIPTokenizer

    folder = copied(tiny, tmp_path)
    edited(folder, TOKENIZER, padding_side="left", truncation_side="left")
    theirs = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    prompts = ["a cat", "one two three four five six seven eight nine ten eleven twelve thirteen fourteen"]
    expected = theirs(prompts, padding="max_length", truncation=True, max_length=16).input_ids
    ours = Tokenizer.from_str(open_checkpoint(folder).tokenizers["tokenizer"])
    assert [encoding.ids for encoding in ours.encode_batch(prompts)] == expected


def test_a_refusal_exits_with_4(tiny, tmp_path):
    folder = copied(tiny, tmp_path)
    edited(folder, INDEX, text_encoder=None)
    (tmp_path / "captions.txt").write_text("a red barn\n")
    for command in (
        ("scan", tmp_path / "captions.txt", "--model", folder, "--store", tmp_path / "store"),
        ("export", folder, tmp_path / "out"),
    ):
        _, err, code = run(*command)
        assert code == 4, err
        assert err.splitlines()[-1].startswith(f"error: {folder}: StableDiffusionPipeline has text_encoder = None")
    assert json.loads((folder / INDEX).read_text())["text_encoder"] is None
