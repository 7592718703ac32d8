import gc
import json
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from small import BUNDLE, CHECKPOINTS

from engines import EngineError, open_bundle
from engines.export import _export_component, export
from engines.torch_ref import open_checkpoint


def feeds(engine, batch):
    rng = np.random.default_rng(3)
    arrays = {}
    for name, spec in engine.inputs.items():
        shape = (batch, *spec.shape[1:])
        arrays[name] = rng.integers(0, 900, shape) if spec.dtype == "int64" else rng.standard_normal(shape, np.float32)
    return arrays


@pytest.mark.parametrize("component", ["text_encoder", "unet", "vae_encoder", "vae_decoder"])
def test_a_batch_equals_its_singles(bundle, component):
    engine = bundle.engine(component)
    batch = feeds(engine, 5)
    (name,) = engine.outputs
    together = engine.run(batch)[name]
    singles = [engine.run({key: array[i : i + 1] for key, array in batch.items()})[name] for i in range(5)]
    assert together.dtype == np.float32
    assert together.shape == (5, *engine.outputs[name].shape[1:])
    # other batch sizes take other GEMM kernels: float32 rounding
    np.testing.assert_allclose(together, np.concatenate(singles), atol=2e-5 * np.abs(together).max())


@pytest.mark.parametrize("component", ["text_encoder", "unet", "vae_encoder", "vae_decoder"])
def test_the_bundle_equals_its_checkpoint(bundle, component):
    reference = open_bundle(CHECKPOINTS["v_prediction"], "torch").engine(component)
    batch = feeds(reference, 3)
    (name,) = reference.outputs
    expected = reference.run(batch)[name]
    np.testing.assert_allclose(bundle.engine(component).run(batch)[name], expected, atol=2e-5 * np.abs(expected).max())


def test_weights_do_not_stay_with_what_the_exporter_keeps(tmp_path):
    before = megabytes()
    _export_component("vae_decoder", open_checkpoint(CHECKPOINTS["v_prediction"]), tmp_path)
    assert (tmp_path / "vae_decoder.onnx").stat().st_size > 1e6
    assert megabytes() - before < 0.1


def megabytes():
    """Of all tensors that are not garbage."""
    gc.collect()
    tensors = [tensor for tensor in gc.get_objects() if type(tensor) in (torch.Tensor, torch.nn.Parameter)]
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes()
                for tensor in tensors if tensor.device.type == "cpu"}  # fmt: skip
    return sum(storages.values()) / 1e6


def test_tokenizer_equals_the_checkpoints_own(bundle):
    from tokenizers import Tokenizer
    from transformers import CLIPTokenizer

    theirs = CLIPTokenizer.from_pretrained(CHECKPOINTS["v_prediction"] / "tokenizer")
    prompts = ["", "a cat", "CAT", "  two  blanks ", "word " * 40, "émile 日本 🎉", "don't <|endoftext|> x", "nul\x00x"]
    expected = theirs(prompts, padding="max_length", truncation=True, max_length=theirs.model_max_length).input_ids
    assert [e.ids for e in Tokenizer.from_str(bundle.tokenizers["tokenizer"]).encode_batch(prompts)] == expected


@pytest.mark.parametrize("name", ["engine.json", "unet.onnx", "tokenizer.json", "text_encoder.onnx"])
def test_a_flipped_byte_is_refused(tmp_path, name):
    copy = shutil.copytree(BUNDLE, tmp_path / "bundle")
    damaged = bytearray((copy / name).read_bytes())
    damaged[len(damaged) // 2] ^= 1
    (copy / name).write_bytes(damaged)
    with pytest.raises(EngineError, match=rf"{name}: (.*damaged|damaged|not a readable manifest)"):
        open_bundle(copy)


def test_incomplete_or_hostile_bundles_are_refused(tmp_path):
    copy = shutil.copytree(BUNDLE, tmp_path / "bundle")
    (copy / "unet.onnx").unlink()
    with pytest.raises(EngineError, match=r"unet\.onnx: missing"):
        open_bundle(copy)
    manifest = json.loads((copy / "engine.json").read_text())
    (copy / "engine.json").write_text(json.dumps(manifest | {"guidance_scale": 3}))
    with pytest.raises(EngineError, match="not a readable manifest"):
        open_bundle(copy)
    (copy / "engine.json").write_text(json.dumps(manifest | {"latent_std": 2.0}))
    with pytest.raises(EngineError, match="damaged or edited"):
        open_bundle(copy)
    replace(open_bundle(BUNDLE).manifest, tokenizer={"../../etc/passwd": "0"}).write(copy)
    with pytest.raises(EngineError, match="lies outside the bundle"):
        open_bundle(copy)
    (copy / "engine.json").write_text(json.dumps(manifest | {"format": 99}))
    with pytest.raises(EngineError, match="bundle format 99, this overscan reads 1"):
        open_bundle(copy)


def test_refusals_name_the_way_out(tmp_path):
    with pytest.raises(EngineError, match="no such folder"):
        open_bundle(tmp_path / "none")
    with pytest.raises(EngineError, match=r"no engine\.json, so not a bundle: make one with"):
        open_bundle(tmp_path)
    with pytest.raises(EngineError, match="or use --backend cpu"):
        open_bundle(BUNDLE, "torch")
    with pytest.raises(EngineError, match=r"there are auto, .*cpu, torch"):
        open_bundle(BUNDLE, "quantum")
    with pytest.raises(EngineError, match=r"holds .* but no upscaler"):
        open_bundle(BUNDLE).engine("upscaler")


def test_auto_takes_torch_for_a_checkpoint():
    assert open_bundle(CHECKPOINTS["epsilon"]).backend == "torch"
    assert open_bundle(BUNDLE).backend == "cpu"


@pytest.mark.slow
def test_float16_export_is_checked_and_a_failed_check_leaves_no_bundle(tmp_path):
    reference = open_bundle(CHECKPOINTS["epsilon"], "torch").engine("unet")
    batch = feeds(reference, 2)
    expected = reference.run(batch)["output"]

    def refuse(checkpoint, half):
        assert checkpoint.folder == CHECKPOINTS["epsilon"]
        assert (half.manifest.precision, half.precision) == ("float16", "float16")
        assert (half.folder / "unet.onnx").stat().st_size < 0.6 * (BUNDLE / "unet.onnx").stat().st_size
        found = half.engine("unet").run(batch)["output"]
        np.testing.assert_allclose(found, expected, atol=0.02 * np.abs(expected).max())
        raise EngineError("not faithful")

    with pytest.raises(EngineError, match="not faithful"):
        export(CHECKPOINTS["epsilon"], tmp_path / "out", "float16", check=refuse)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_large_network_is_compared_at_batch_one(tmp_path, monkeypatch):
    monkeypatch.setattr("engines.export.LARGE", 3_000_000)  # parameters: the UNet alone has more
    said = []
    export(CHECKPOINTS["v_prediction"], tmp_path / "bundle", say=said.append)
    assert [line.partition(": ")[0] for line in said if line.endswith("at batch 1")] == ["unet"]
    assert [line.partition(": ")[0] for line in said if line.endswith("at batch 1, 3")] == [
        "text_encoder", "vae_encoder", "vae_decoder",
    ]  # fmt: skip


@pytest.mark.slow
def test_networks_of_large_pictures_are_compared_at_batch_one(tmp_path, monkeypatch):
    monkeypatch.setattr("engines.export.LARGE_ARRAY", 3 * 32 * 32 - 1)  # numbers: the VAE's pictures alone have more
    said = []
    export(CHECKPOINTS["v_prediction"], tmp_path / "bundle", say=said.append)
    assert [line.partition(": ")[0] for line in said if line.endswith("at batch 1")] == ["vae_encoder", "vae_decoder"]


def test_refuses_other_models(tmp_path):
    copy = shutil.copytree(CHECKPOINTS["epsilon"], tmp_path / "other")
    scheduler = json.loads((copy / "scheduler/scheduler_config.json").read_text())
    (copy / "scheduler/scheduler_config.json").write_text(json.dumps(scheduler | {"rescale_betas_zero_snr": True}))
    with pytest.raises(EngineError, match="zero-terminal-SNR"):
        export(copy, tmp_path / "out")
    (copy / "scheduler/scheduler_config.json").write_text(json.dumps(scheduler))
    weights = copy / "unet/diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(EngineError, match=r"other: cannot be loaded .*: copy the whole checkpoint again"):
        export(copy, tmp_path / "out")
    index = json.loads((copy / "model_index.json").read_text())
    (copy / "model_index.json").write_text(json.dumps(index | {"unet": ["diffusers", "FluxTransformer2DModel"]}))
    with pytest.raises(EngineError, match="has unet = FluxTransformer2DModel; overscan reads Stable Diffusion"):
        export(copy, tmp_path / "out")


def test_a_scan_imports_no_torch(tmp_path):
    code = (
        "import sys; from scanner import scan; from scanner.demo import BUNDLE, CAPTIONS;"
        f"result = scan(CAPTIONS, model=BUNDLE, store={str(tmp_path / 'store')!r}, limit=5);"
        "heavy = {'torch', 'diffusers', 'transformers', 'onnx'} & set(sys.modules);"
        "print(result.scored, sorted(heavy))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "5 []\n"


def test_a_checkpoints_identity_is_its_content_and_not_its_name(tmp_path):
    from engines.torch_ref import open_checkpoint

    here = open_checkpoint(CHECKPOINTS["epsilon"]).manifest
    copy = shutil.copytree(CHECKPOINTS["epsilon"], tmp_path / "renamed")
    assert open_checkpoint(copy).manifest.fingerprint == here.fingerprint
    config = json.loads((copy / "tokenizer/tokenizer_config.json").read_text())
    (copy / "tokenizer/tokenizer_config.json").write_text(json.dumps(config | {"model_max_length": 12}))
    assert open_checkpoint(copy).manifest.fingerprint != here.fingerprint
