"""Int8 bundles: how one is made, kept or refused, what runs it, and a scan that is screened by one."""

import json
import shutil
import sys
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from conftest import AUTO
from small import BUNDLE, CAPTIONS, CHECKPOINTS
from test_cli import run
from test_doctor import doctor
from test_end_to_end import PROMPTS
from test_screen import assert_refined_rows_are_those_of, by_id, write

import engines
from engines import BundleError, EngineError, open_bundle
from engines.bundle import read_manifest
from engines.manifest import sha256
from scanner.config import ScanConfig
from scanner.fidelity import int8 as quantized
from scanner.fidelity.check import errors
from scanner.identity import prompt_id
from scanner.model import Model
from scanner.scanning.run import scan

pytest.importorskip("nncf")
from engines.openvino import precisions
from engines.quantize import quantize

FIRST, CONFIG = ScanConfig(seeds=(0,)), ScanConfig(seeds=(0, 1, 2))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """What `overscan export` says of an int8 bundle of a checkpoint; it lies in `folder / "int8"`."""
    folder = tmp_path_factory.mktemp("made")
    asked = ["--dtype", "int8", "--captions", CAPTIONS]
    return folder, run("export", CHECKPOINTS["v_prediction"], folder / "int8", *asked)


@pytest.fixture(scope="module")
def int8(made):
    return made[0] / "int8"


@pytest.mark.slow
def test_a_checkpoint_becomes_an_int8_bundle_in_one_command(made):
    folder, (out, err, code) = made
    assert (code, out) == (0, f"{folder / 'int8'}\n"), err
    lines = err.splitlines()
    assert lines[-3].startswith("unet: to int8, by 128 captions")
    assert [line.split(":")[0] for line in lines[-2:]] == ["overestimation_prior_v2", "low_noise_norm_v1"]
    assert float(lines[-1].removeprefix("low_noise_norm_v1: rank correlation with float32 ")) > 0.99
    assert not [line for line in lines if "nncf" in line.lower() or "━" in line], "a library talks to the user"
    assert [path.name for path in folder.iterdir()] == ["int8"]


def test_its_unet_alone_is_in_int8(int8):
    found, float32 = read_manifest(int8), read_manifest(BUNDLE)
    assert found.precision == "int8"
    assert list(found.components["unet"].files) == ["unet.xml", "unet.bin"]  # the first is the one to open
    assert found.components["unet"].files == {name: sha256(int8 / name) for name in ("unet.xml", "unet.bin")}
    assert found.components["unet"].inputs == float32.components["unet"].inputs
    assert found.components["vae_decoder"].files.keys() == float32.components["vae_decoder"].files.keys()
    assert {"nncf", "openvino", "torch"} <= found.versions.keys()
    assert sorted(path.name for path in int8.iterdir()) == [
        "engine.json", "text_encoder.onnx", "tokenizer.json", "unet.bin", "unet.xml", "vae_decoder.onnx",
        "vae_encoder.onnx",
    ]  # fmt: skip
    assert (int8 / "unet.bin").stat().st_size < 0.3 * (BUNDLE / "unet.onnx").stat().st_size
    assert str(int8.parent) not in (int8 / "unet.xml").read_text(), "a path of the machine that made it"


def test_attentions_own_products_stay_in_floating_point(int8):
    """Quantised, they rank captions at .6 with float32 on the confirming models of the ground truth."""
    openvino = pytest.importorskip("openvino")
    passing = ("Convert", "FakeQuantize", "Multiply", "Reshape", "Subtract", "Transpose")

    def behind(value):
        """Types of what a product's factor was made by, up to what computes it."""
        node = value.get_node()
        yield node.get_type_name()
        if node.get_type_name() in passing:
            yield from behind(node.input_value(0))

    ops = openvino.Core().read_model(int8 / "unet.xml").get_ordered_ops()
    factors = [[list(behind(value)) for value in op.input_values()] for op in ops if op.get_type_name() == "MatMul"]
    layers = [pair for pair in factors if any(types[-1] == "Constant" for types in pair)]
    attention = [pair for pair in factors if pair not in layers]
    softmax = sum(op.get_type_name() == "Softmax" for op in ops)
    assert len(attention) == 2 * softmax > 0
    assert not [types for pair in attention for types in pair if "FakeQuantize" in types]
    assert [types for pair in layers for types in pair if "FakeQuantize" in types]


def test_openvino_runs_it_in_any_batch_and_says_in_what(int8):
    for precision in precisions():
        bundle = open_bundle(int8, "openvino", precision)
        assert (bundle.backend, bundle.precision) == ("openvino", precision)
        assert bundle.engine("unet").provider == f"OpenVINO CPU int8, the rest {precision}"
        assert bundle.engine("text_encoder").provider == f"OpenVINO CPU {precision}"
    engine, rng = open_bundle(int8, "openvino", "float32").engine("unet"), np.random.default_rng(0)
    shapes = {name: (7, *engine.inputs[name].shape[1:]) for name in ("sample", "encoder_hidden_states")}
    feeds = {name: rng.standard_normal(shape, np.float32) for name, shape in shapes.items()}
    feeds["timestep"] = np.full(7, 289)  # as the captions that told what its layers range over
    together = engine.run(feeds)["output"]
    singles = [engine.run({name: array[i : i + 1] for name, array in feeds.items()})["output"] for i in range(7)]
    assert together.dtype == np.float32
    # another order of sums may round an activation to the next of 256 levels
    np.testing.assert_allclose(together, np.concatenate(singles), atol=0.03 * np.abs(together).max())
    expected = open_bundle(BUNDLE, "cpu").engine("unet").run(feeds)["output"]
    error = np.sqrt(np.mean((together - expected) ** 2) / np.mean(expected**2))
    assert 1e-4 < error < 0.1, "quantised, and still the same network"


def test_its_scores_never_mix_with_others(int8):
    ids = {Model(folder, "openvino", p, FIRST).scan_id for folder in (int8, BUNDLE) for p in precisions()}
    assert len(ids) == 2 * len(precisions())


@pytest.mark.parametrize("backend", ["cpu", "cuda", "tensorrt"])
def test_other_backends_refuse_it_and_name_the_one_that_runs_it(int8, monkeypatch, backend):
    monkeypatch.setattr("engines.cuda.require_cuda", lambda: None)
    monkeypatch.setattr("engines.tensorrt.require", lambda: None)
    with pytest.raises(EngineError, match=rf'int8, which OpenVINO alone runs, and the "{backend}".*--backend openvino'):
        open_bundle(int8, backend)
    assert not issubclass(EngineError, BundleError)  # so that auto goes on to the next


def test_auto_passes_over_the_others(int8, monkeypatch):
    monkeypatch.setattr(engines, "AUTO", ("cpu", "openvino"))
    bundle = open_bundle(int8)
    assert bundle.backend == "openvino"
    (reason,) = bundle.passed_over
    assert reason.startswith(f"cpu: {int8}: a bundle in int8, which OpenVINO alone runs")
    assert AUTO.index("openvino") < AUTO.index("cpu")


def test_doctor_knows_it(int8):
    code, found = doctor("--model", int8, "--backend", "openvino")
    assert code == 0
    assert "intact; stable-diffusion, int8, text_encoder, vae_encoder, vae_decoder, unet" in found["model"]["found"]
    assert found["backend openvino"]["status"] == "ok"
    assert "use --backend openvino" in found["backend cpu"]["found"]
    assert found["a scan"]["found"].startswith("would run on openvino")


@pytest.mark.parametrize("name", ["unet.xml", "unet.bin"])
def test_a_flipped_byte_is_refused(int8, tmp_path, name):
    copy = shutil.copytree(int8, tmp_path / "bundle")
    damaged = bytearray((copy / name).read_bytes())
    damaged[len(damaged) // 2] ^= 1
    (copy / name).write_bytes(damaged)
    with pytest.raises(BundleError, match=rf"{name}: sha256 .*damaged; copy or export it again"):
        open_bundle(copy, "openvino")


def test_a_float_network_behind_an_int8_manifest_is_refused(int8, tmp_path):
    import openvino

    copy = shutil.copytree(int8, tmp_path / "bundle")
    openvino.save_model(openvino.Core().read_model(BUNDLE / "unet.onnx"), copy / "unet.xml", compress_to_fp16=False)
    (copy / "engine.json").unlink()
    made = read_manifest(int8)
    unet = replace(made.components["unet"], files={name: sha256(copy / name) for name in ("unet.xml", "unet.bin")})
    replace(made, components=dict(made.components) | {"unet": unet}).write(copy)
    with pytest.raises(EngineError, match=r"unet\.xml: OpenVINO runs it in .*, needed int8: quantise it again"):
        open_bundle(copy, "openvino").engine("unet")


def test_a_scan_is_screened_by_it(int8, tmp_path):
    path = write(tmp_path / "p.txt", PROMPTS)
    scan(path, model=BUNDLE, store=tmp_path / "full", config=CONFIG, backend="openvino")
    asked = ["--model", BUNDLE, "--store", tmp_path / "store", "--seeds", "3", "--backend", "openvino"]
    out, err, code = run("scan", path, *asked, "--screen", "0.1", "--screen-model", int8, "--json")
    assert code == 0, err
    done = json.loads(out)
    first = Model(int8, "openvino", config=FIRST).scan_id
    assert done["screening"]["first_scan_id"] == first
    assert done["provider"] == f"OpenVINO CPU {precisions()[0]}"
    refined = by_id(tmp_path / "store").filter(status="scored")["prompt_id"]
    cheap = by_id(tmp_path / "store", first)
    assert set(refined) == set(cheap.top_k(6, by="low_noise_norm_v1")["prompt_id"])
    assert_refined_rows_are_those_of(by_id(tmp_path / "full"), by_id(tmp_path / "store"))
    scorer = Model(BUNDLE, "cpu", config=FIRST).scorer()
    prompts = pl.DataFrame({"prompt_id": cheap["prompt_id"], "text": cheap["text"]})
    ranks = errors(scorer(prompts), cheap).filter(score="low_noise_norm_v1")["rank_correlation"].item()
    assert 0.99 < ranks < 1
    _, err, code = run("scan", path, *asked[:-1], "cpu", "--screen", "0.1", "--screen-model", int8)
    assert code == 4
    assert "use --backend openvino" in " ".join(err.split())


def test_the_same_inputs_give_the_same_bytes(tmp_path):
    feeds = quantized._feeds(Model(BUNDLE, "cpu").denoiser, (), PROMPTS[:4])
    made = [quantize(BUNDLE, tmp_path / name, feeds) for name in "ab"]
    assert made[0].components["unet"].files == made[1].components["unet"].files
    assert made[0].fingerprint == made[1].fingerprint == read_manifest(tmp_path / "b").fingerprint
    with pytest.raises(BundleError, match="a bundle in int8; int8 is made of float32: export it so first"):
        quantize(tmp_path / "a", tmp_path / "c", feeds)


def test_a_broken_quantisation_is_not_kept(tmp_path, monkeypatch):
    right = quantized._feeds

    def of_nothing(*asked):
        return [{name: np.zeros_like(array) for name, array in feeds.items()} for feeds in right(*asked)][:1]

    monkeypatch.setattr(quantized, "_feeds", of_nothing)
    out, err, code = run("export", BUNDLE, tmp_path / "out", "--dtype", "int8", "--captions", CAPTIONS)
    assert (out, code) == ("", 4)
    assert "on 128 captions, needed 0.98: int8 is not faithful to this model and was not kept" in " ".join(err.split())
    assert list(tmp_path.iterdir()) == []


def test_each_is_observed_with_a_noise_of_its_own_at_the_first_step(bundle):
    denoiser = Model.of(bundle).denoiser
    feeds = quantized._feeds(denoiser, (), ["", "a dog"])
    assert [feed["timestep"].tolist() for feed in feeds] == [[981], [981]]
    assert [feed["timestep"].tolist() for feed in quantized._feeds(denoiser, (701,), ["a"])] == [[701]]
    noise = np.random.Generator(np.random.PCG64(2_000_001)).standard_normal((1, 4, 8, 8), np.float32)
    np.testing.assert_array_equal(feeds[1]["sample"], noise)
    np.testing.assert_array_equal(feeds[0]["encoder_hidden_states"], denoiser.null.arrays["encoder_hidden_states"])
    assert feeds[1].keys() == bundle.engine("unet").inputs.keys()


def test_captions_are_the_first_unique_ones_in_the_order_of_their_ids():
    prompts = quantized.prompts_of(str(CAPTIONS))
    assert len(prompts) == len(set(prompts)) == 255
    unique = pl.read_parquet(CAPTIONS)["caption"].str.strip_chars().unique()
    assert prompts == sorted(unique, key=prompt_id)[:255]


@pytest.mark.parametrize(
    ("asked", "code", "message"),
    [
        (["--dtype", "int8"], 2, "int8 is made by running the UNet on captions: needed --captions"),
        (["--captions", CAPTIONS], 2, "captions are for --dtype int8, and float32 needs none"),
        (["--dtype", "int8", "--captions", "few.txt"], 2, "few.txt: 2 unique captions; int8 needs 255, 127 to"),
        (["--dtype", "int8", "--captions", "none.txt"], 2, "none.txt"),
    ],
)
def test_what_cannot_be_made_is_refused(tmp_path, monkeypatch, asked, code, message):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "few.txt", ["a dog", "a cat", "a dog"])
    out, err, found = run("export", BUNDLE, "out", *asked)
    assert (out, found) == ("", code)
    assert message in " ".join(err.split())
    assert not (tmp_path / "out").exists()


def test_an_existing_folder_is_refused_before_minutes_are_spent(tmp_path):
    asked = ["--dtype", "int8", "--captions", CAPTIONS]
    _, err, code = run("export", BUNDLE, tmp_path, *asked)
    assert code == 2
    assert "exists: remove it or name another folder" in " ".join(err.split())


def test_without_nncf_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "nncf", None)
    with pytest.raises(EngineError, match=r'int8 needs NNCF and OpenVINO: pip install .*\[int8\]"'):
        quantize(BUNDLE, tmp_path / "out", [])
