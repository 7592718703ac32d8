"""Backends and precisions: chosen when they truly run, honoured when asked for, refused with a way out."""

import threading
import time
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from conftest import AUTO
from small import BUNDLE, CHECKPOINTS

import engines
from engines import Bundle, BundleError, EngineError, open_bundle
from scanner.config import ScanConfig
from scanner.fidelity import check as fidelity
from scanner.model import Model
from scanner.model.scorer import EVERYDAY
from scanner.scanning.dry_run import dry_run

pytest.importorskip("openvino")
from engines.cache import making
from engines.openvino import compiled_folder, precisions


@pytest.fixture
def auto(monkeypatch):
    monkeypatch.setattr(engines, "AUTO", AUTO)


def broken(message):
    def open_broken(folder, precision):
        raise EngineError(message)

    return open_broken


def mumbling(folder, precision):
    """A backend that opens, runs, and gives no numbers."""
    bundle = open_bundle(folder, "cpu")

    class Mumbling:
        inputs, outputs, provider = bundle.engine("text_encoder").inputs, {}, "none"

        def run(self, feeds):
            return {"encoder_hidden_states": np.full((1, 2), np.nan, np.float32)}

    return replace(bundle, backend="cuda", _engine=lambda name: Mumbling())


def test_openvino_gives_the_scores_of_onnx_runtime():
    prompts = pl.DataFrame({"prompt_id": EVERYDAY, "text": EVERYDAY})
    first = ScanConfig(timesteps=())
    found = Model(BUNDLE, "openvino", "float32", first)
    assert (found.bundle.backend, found.bundle.precision) == ("openvino", "float32")
    assert found.denoiser.provider == "OpenVINO CPU float32"
    errors = fidelity.compare(Model(BUNDLE, "cpu", config=first), found, prompts)
    assert len(errors) >= 5
    assert errors["largest_error"].max() < 1e-4  # float32 sums in another order
    assert errors["rank_correlation"].min() > 0.999


def test_openvino_runs_any_batch_and_keeps_its_outputs():
    engine = open_bundle(BUNDLE, "openvino", "float32").engine("text_encoder")
    expected = open_bundle(BUNDLE, "cpu").engine("text_encoder")
    ids = np.random.default_rng(0).integers(0, 1000, (7, *engine.inputs["input_ids"].shape[1:]))
    first = engine.run({"input_ids": ids[:1]})["encoder_hidden_states"]
    kept = first.copy()
    for batch in (1, 2, 7):
        output = engine.run({"input_ids": ids[:batch]})["encoder_hidden_states"]
        assert output.dtype == np.float32
        np.testing.assert_allclose(output, expected.run({"input_ids": ids[:batch]})["encoder_hidden_states"], atol=1e-4)
    np.testing.assert_array_equal(first, kept)  # a later run does not write over an earlier result


def test_compiled_networks_are_kept_for_their_user_alone(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    engine = open_bundle(BUNDLE, "openvino", "float32").engine("text_encoder")
    assert engine._model.get_property("LOADED_FROM_CACHE")  # at once: what was compiled takes twice the memory
    (kept,) = (tmp_path / "overscan/compiled").iterdir()
    assert list(kept.glob("*.blob"))
    assert kept.parent.stat().st_mode & 0o777 == 0o700
    kept.parent.chmod(0o777)  # somebody else may have written what is there
    assert compiled_folder("f", "float32") is None
    kept.parent.chmod(0o700)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))  # a cache that cannot be made costs time only
    open_bundle(BUNDLE, "openvino", "float32").engine("text_encoder")


@pytest.mark.skipif("bfloat16" not in precisions(), reason="the processor has no bfloat16")
def test_a_compiled_network_serves_its_own_precision_only(monkeypatch, tmp_path):
    """OpenVINO would read float32's back for bfloat16, and compute garbage."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    rng, inputs, found = np.random.default_rng(0), open_bundle(BUNDLE, "cpu").engine("unet").inputs, {}
    feeds = {name: rng.standard_normal((2, *spec.shape[1:])).astype(spec.dtype) for name, spec in inputs.items()}
    for precision in ("float32", "bfloat16", "float32", "bfloat16"):
        output = open_bundle(BUNDLE, "openvino", precision).engine("unet").run(feeds)["output"]
        np.testing.assert_array_equal(found.setdefault(precision, output), output)
    error = np.abs(found["bfloat16"] - found["float32"]).max() / np.abs(found["float32"]).max()
    assert 1e-5 < error < 0.05


@pytest.mark.skipif("bfloat16" in precisions(), reason="the processor has bfloat16")
def test_bfloat16_without_hardware_is_refused():
    assert open_bundle(BUNDLE, "openvino").precision == "float32"
    with pytest.raises(
        EngineError, match='"openvino" backend runs this model here in float32: use --precision float32'
    ):
        open_bundle(BUNDLE, "openvino", "bfloat16")


@pytest.mark.parametrize("backend", ["cpu", "torch"])
def test_a_precision_is_honoured_or_refused(backend):
    folder = BUNDLE if backend == "cpu" else CHECKPOINTS["v_prediction"]
    assert open_bundle(folder, backend, "float32").precision == "float32"
    with pytest.raises(EngineError, match="here in float32: use --precision float32, or another --backend"):
        open_bundle(folder, backend, "bfloat16")
    with pytest.raises(EngineError, match="'float64' is unknown; there are auto, float32"):
        open_bundle(folder, backend, "float64")


def test_auto_takes_the_first_that_truly_runs_and_says_why_not_the_others(auto, monkeypatch):
    assert open_bundle(BUNDLE).backend in ("tensorrt", "cuda", "openvino")
    assert open_bundle(CHECKPOINTS["v_prediction"]).backend == "torch"
    backends = {"cpu": engines.BACKENDS["cpu"], "tensorrt": broken("no GPU"), "cuda": mumbling}
    monkeypatch.setattr(engines, "BACKENDS", backends)
    bundle = open_bundle(BUNDLE)
    assert isinstance(bundle, Bundle)
    assert bundle.backend == "cpu"
    assert bundle.passed_over == ("tensorrt: no GPU", "cuda: its text encoder's output is not finite")
    assert bundle.engine("unet").provider == "CPUExecutionProvider"


def test_auto_where_nothing_runs_gives_every_reason(auto, monkeypatch):
    monkeypatch.setattr(engines, "BACKENDS", {"cuda": broken("no GPU"), "cpu": broken("no ONNX Runtime")})
    with pytest.raises(EngineError, match=r"no backend runs it here: cuda: no GPU; cpu: no ONNX Runtime$"):
        open_bundle(BUNDLE)


def test_auto_does_not_hide_a_damaged_bundle(auto, tmp_path):
    (tmp_path / "engine.json").write_text("{")
    with pytest.raises(BundleError, match="not a readable manifest"):
        open_bundle(tmp_path)


def test_scores_of_backends_and_precisions_never_mix(tmp_path):
    config = ScanConfig()
    cpu = open_bundle(BUNDLE, "cpu")
    expected = Model(BUNDLE, "cpu", config=config).settled.scan_id(cpu.manifest.fingerprint, "cpu", "float32")
    assert Model(BUNDLE, "cpu", config=config).scan_id == expected
    assert Model(BUNDLE, "openvino", "float32", config).scan_id != expected
    assert Model.of(replace(cpu, precision="bfloat16"), config).scan_id != expected
    (tmp_path / "p.txt").write_text("a dog\n")
    plan = dry_run(tmp_path / "p.txt", model=BUNDLE, store=tmp_path / "s", backend="openvino", precision="float32")
    assert (plan.backend, plan.precision, plan.provider) == ("openvino", "float32", "OpenVINO CPU float32")


def test_what_two_processes_would_make_at_once_is_made_once(tmp_path):
    """A TensorRT plan, or OpenVINO's compiled network: who comes second waits, and finds it made."""
    path, made = tmp_path / "one.plan", []

    def make():
        with making(path):
            if not path.exists():
                made.append(path)
                time.sleep(0.2)
                path.write_text("made")

    threads = [threading.Thread(target=make) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == [path]
    with making(tmp_path / "no such folder" / "two.plan"):  # where nothing can be locked, each makes its own
        pass
