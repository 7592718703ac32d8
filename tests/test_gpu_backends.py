"""What the GPU backends do that needs no GPU: refusals, plans and their folder, and their runs on stand-ins."""

import os
import sys
from dataclasses import replace

import numpy as np
import pytest
import tensorrt_on_cpu
from small import BUNDLE, CHECKPOINTS

import engines.cuda
import engines.tensorrt
from engines import EngineError, open_bundle
from engines.build_progress import BuildProgress
from engines.cuda import SIZES, CudaEngine
from engines.ort import open_session
from engines.plans import Gpu, Profile, plan_folder, plan_key, profile_for
from engines.torch_ref import open_checkpoint

GPU = Gpu("11.4.0", "NVIDIA H100", "9.0")


def feeds(engine, batch):
    rng = np.random.default_rng(batch)
    arrays = {}
    for name, spec in engine.inputs.items():
        shape = (batch, *spec.shape[1:])
        arrays[name] = rng.integers(0, 900, shape) if spec.dtype == "int64" else rng.standard_normal(shape, np.float32)
    return arrays


def equal(bundle, engine, component, batches):
    """The engine gives what ONNX Runtime on the CPU gives, whatever the order of batch sizes."""
    reference = bundle.engine(component)
    (name,) = reference.outputs
    kept = None
    for batch in batches:
        arrays = feeds(reference, batch)
        found, expected = engine.run(arrays)[name], reference.run(arrays)[name]
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, atol=2e-5 * np.abs(expected).max())
        if kept is None:
            kept = found, found.copy()
    np.testing.assert_array_equal(*kept)  # a later run does not write over an earlier result


# CUDA


def test_onnx_runtime_without_cuda_is_refused():
    with pytest.raises(EngineError, match=r"built without CUDA: pip uninstall onnxruntime, then pip install"):
        open_bundle(BUNDLE, "cuda")


def test_a_session_that_would_run_elsewhere_is_refused(bundle):
    component = bundle.manifest.components["text_encoder"]
    with pytest.raises(EngineError, match="gave CPUExecutionProvider, CUDAExecutionProvider was asked"):
        open_session(BUNDLE, component, "CUDAExecutionProvider")


@pytest.fixture
def cuda_on_cpu(monkeypatch):
    """The CUDA engine with ONNX Runtime's CPU for its device: all but the device is what a GPU would run."""
    monkeypatch.setattr(engines.cuda, "PROVIDER", "CPUExecutionProvider")
    monkeypatch.setattr(engines.cuda, "DEVICE", "cpu")
    monkeypatch.setattr(engines.cuda, "SETTINGS", {})


@pytest.mark.parametrize("component", ["text_encoder", "unet", "vae_encoder", "vae_decoder"])
def test_bound_arrays_give_what_the_cpu_backend_gives(bundle, cuda_on_cpu, component):
    engine = CudaEngine(BUNDLE, bundle.manifest.components[component])
    equal(bundle, engine, component, [2, 3, 2, 1, 4, 5, 6, 7, 8, 2])
    assert list(engine._bound) == [2, 3, 1, 4, 5, 6, 7, 8]  # each bound once
    graphs = [bound.options.get_run_config_entry("gpu_graph_id") for bound in engine._bound.values()]
    assert graphs == ["1", "2", "3", "4", "5", "6", "-1", "-1"]


def test_computation_on_the_cpu_is_refused_and_sizes_are_not(bundle, monkeypatch, cuda_on_cpu):
    monkeypatch.setattr(engines.cuda, "_elsewhere", lambda session: {"Shape", "Concat", "Conv"})
    with pytest.raises(EngineError, match=r"would run Conv on the CPU: use --backend torch-cuda or cpu"):
        CudaEngine(BUNDLE, bundle.manifest.components["unet"])
    monkeypatch.setattr(engines.cuda, "_elsewhere", lambda session: {"Shape", "Concat"})
    CudaEngine(BUNDLE, bundle.manifest.components["unet"])


def test_what_runs_where_is_read_from_the_session(bundle):
    session = open_session(
        BUNDLE, bundle.manifest.components["unet"], "CPUExecutionProvider", entries=engines.cuda.ENTRIES
    )
    found = engines.cuda._elsewhere(session)  # all of it: none is on CUDA
    assert {"Shape", "Gemm", "Conv"} <= found
    assert "Conv" not in SIZES


# TensorRT


@pytest.fixture
def home(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "overscan" / "tensorrt"


@pytest.mark.parametrize(("batch", "largest"), [(1, 4), (4, 4), (5, 8), (8, 8), (9, 16), (64, 64), (65, 128)])
def test_profiles_take_their_batch(batch, largest):
    assert profile_for(batch) == Profile(1, largest, largest)
    assert profile_for(batch).shapes((None, 4, 64, 64)) == ((1, 4, 64, 64), *[(largest, 4, 64, 64)] * 2)


def test_a_plans_key_is_all_that_it_depends_on(bundle):
    manifest, profile = bundle.manifest, Profile(1, 4, 4)
    key = plan_key(manifest, "unet", GPU, profile)
    assert key == plan_key(replace(manifest, source={"checkpoint": "renamed"}), "unet", GPU, profile)
    others = {
        plan_key(replace(manifest, precision="float16"), "unet", GPU, profile),
        plan_key(replace(manifest, tokenizer={"tokenizer.json": "0"}), "unet", GPU, profile),
        plan_key(manifest, "text_encoder", GPU, profile),
        plan_key(manifest, "unet", replace(GPU, tensorrt="11.4.1"), profile),
        plan_key(manifest, "unet", replace(GPU, name="NVIDIA A100"), profile),
        plan_key(manifest, "unet", replace(GPU, capability="8.0"), profile),
        plan_key(manifest, "unet", GPU, Profile(1, 8, 8)),
    }
    assert len(others | {key}) == 8


def test_the_plans_folder_is_its_users_alone(home, monkeypatch):
    assert plan_folder() == home
    assert home.stat().st_mode & 0o777 == 0o700
    home.chmod(0o770)
    with pytest.raises(EngineError, match=r"a folder of user \d+ with mode 0770; a plan is code, so needed .* 0700"):
        plan_folder()
    home.chmod(0o700)
    monkeypatch.setattr(os, "getuid", lambda: home.stat().st_uid + 1)
    with pytest.raises(EngineError, match=r"of user \d+ with mode 0700; .* needed a folder of user"):
        plan_folder()


def test_a_link_or_a_file_is_no_plans_folder(home, tmp_path):
    home.parent.mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    home.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(EngineError, match="tensorrt: no folder of user"):
        plan_folder()
    home.unlink()
    home.write_text("")
    with pytest.raises(EngineError, match="cannot be made"):
        plan_folder()


@pytest.mark.skipif("tensorrt" in sys.modules, reason="TensorRT is here")
def test_tensorrt_is_refused_where_it_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(EngineError, match=r'needs TensorRT and cuda-python \(.*\): pip install .*\[tensorrt\]"'):
        open_bundle(BUNDLE, "tensorrt")


@pytest.mark.parametrize(
    ("devices", "version", "message"),
    [
        (None, "11.4.0", r"CUDA finds no GPU \(CUDA driver version is insufficient .*\): look at it with nvidia-smi"),
        (0, "11.4.0", r"CUDA finds no GPU \(no device\)"),
        (1, "10.15.1", r"TensorRT 10\.15\.1, needed 11 or newer"),
    ],
)
def test_tensorrt_is_refused_without_a_gpu_or_when_old(monkeypatch, home, devices, version, message):
    tensorrt_on_cpu.install(monkeypatch, devices, version)
    with pytest.raises(EngineError, match=message):
        open_bundle(BUNDLE, "tensorrt")


@pytest.mark.parametrize("component", ["text_encoder", "unet", "vae_encoder", "vae_decoder"])
def test_tensorrt_gives_what_the_cpu_backend_gives(bundle, monkeypatch, home, capsys, component):
    _, cuda = tensorrt_on_cpu.install(monkeypatch)
    found = open_bundle(BUNDLE, "tensorrt")
    assert (found.backend, found.precision) == ("tensorrt", "float32")
    engine = found.engine(component)
    assert engine.provider == "TensorRT 11.4.0, Stand-in, float32"
    equal(bundle, engine, component, [2, 3, 1, 7, 4])
    assert tensorrt_on_cpu.Builder.built == 2  # for batches to 4, and to 8
    assert len(cuda.memory) == len(engine.inputs) + len(engine.outputs)  # the smaller plan's is freed
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == f"TensorRT builds {component} for batches to 4: begun"
    assert lines[3] == f"TensorRT builds {component} for batches to 8: done in 0 s"


def test_plans_are_kept_and_damaged_ones_built_again(bundle, monkeypatch, home):
    tensorrt_on_cpu.install(monkeypatch)
    arrays = feeds(bundle.engine("text_encoder"), 2)
    open_bundle(BUNDLE, "tensorrt").engine("text_encoder").run(arrays)
    (plan,) = home.glob("*.plan")
    assert plan.stat().st_mode & 0o777 == 0o600
    assert plan.stem == plan_key(bundle.manifest, "text_encoder", Gpu("11.4.0", "Stand-in", "9.0"), Profile(1, 4, 4))
    open_bundle(BUNDLE, "tensorrt").engine("text_encoder").run(arrays)
    assert tensorrt_on_cpu.Builder.built == 1
    plan.write_bytes(plan.read_bytes()[:20])
    open_bundle(BUNDLE, "tensorrt").engine("text_encoder").run(arrays)
    assert tensorrt_on_cpu.Builder.built == 2
    assert [file.name for file in home.glob("*.plan")] == [plan.name]


def test_a_graph_that_tensorrt_cannot_read_is_refused(bundle, monkeypatch, tmp_path):
    tensorrt_on_cpu.install(monkeypatch)
    (tmp_path / "unet.onnx").write_bytes(b"")
    component = bundle.manifest.components["unet"]
    with pytest.raises(EngineError, match=r"TensorRT cannot read it \(error 0\): use --backend cuda or cpu"):
        engines.tensorrt.build(tmp_path / "unet.onnx", component, Profile(1, 4, 4), print)


def test_a_build_can_be_interrupted(bundle, monkeypatch):
    tensorrt_on_cpu.install(monkeypatch)

    def interrupted(self):
        raise KeyboardInterrupt

    monkeypatch.setattr(BuildProgress, "_tell", interrupted)
    with pytest.raises(KeyboardInterrupt):
        engines.tensorrt.build(
            BUNDLE / "unet.onnx", bundle.manifest.components["unet"], Profile(1, 4, 4), lambda line: None
        )


def test_progress_tells_of_open_phases_now_and_then():
    lines, now = [], [0.0]
    progress = BuildProgress("building", lines.append, lambda: now[0])
    progress.begin("graph", None, 2)
    progress.begin("tactics", "graph", 40)
    assert progress.step("tactics", 0)
    now[0] = 12.0
    assert progress.step("tactics", 1)
    assert progress.step("tactics", 2)  # too soon for another line
    progress.end("tactics")
    now[0] = 30.0
    progress.step("graph", 0)
    progress.done()
    assert lines == [
        "building: begun",
        "building: 12 s, graph 0/2, tactics 2/40",
        "building: 30 s, graph 1/2",
        "building: done in 30 s",
    ]


@pytest.mark.parametrize("backend", ["cuda", "tensorrt"])
def test_graphs_run_in_the_precision_that_they_were_exported_in(backend, monkeypatch, home):
    tensorrt_on_cpu.install(monkeypatch)
    monkeypatch.setattr(engines.cuda, "PROVIDER", "CPUExecutionProvider")
    assert open_bundle(BUNDLE, backend, "float32").precision == "float32"
    with pytest.raises(EngineError, match=r"here in float32: use --precision float32, or export .* with --dtype"):
        open_bundle(BUNDLE, backend, "float16")


# torch


@pytest.mark.parametrize(
    ("precision", "error", "components"),
    [("bfloat16", 0.05, ("text_encoder", "unet", "vae_decoder")), ("float16", 0.01, ("text_encoder",))],
)  # float16 takes a processor seconds
def test_reduced_precision_keeps_float32_at_the_seam(precision, error, components):
    reference = open_checkpoint(CHECKPOINTS["epsilon"])
    moved = open_checkpoint(CHECKPOINTS["epsilon"]).on("cpu", precision)
    for component in components:
        engine = moved.engine(component)
        assert str(next(engine.module.parameters()).dtype) == f"torch.{precision}"
        assert engine.provider == f"torch cpu {precision}"
        arrays = feeds(engine, 2)
        (name,) = engine.outputs
        found, expected = engine.run(arrays)[name], reference.engine(component).run(arrays)[name]
        assert found.dtype == np.float32
        difference = np.abs(found - expected).max() / np.abs(expected).max()
        assert 0 < difference < error  # it does compute in less, and well


def test_torch_without_a_gpu_is_refused():
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(EngineError, match=r"torch .* finds no GPU: install a CUDA build .* or use --backend torch$"):
        open_bundle(CHECKPOINTS["v_prediction"], "torch-cuda")
    with pytest.raises(EngineError, match='the "torch-cuda" backend runs a diffusers checkpoint itself'):
        open_bundle(BUNDLE, "torch-cuda")
