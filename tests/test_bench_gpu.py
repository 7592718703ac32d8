"""The benchmark of GPUs, on the processor: what it measures is not asked, that it measures all it says is."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from small import CAPTIONS
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from engines import open_bundle
from scanner.config import ScanConfig
from scanner.model.usual import usual_timesteps

sys.path.insert(0, str(Path(__file__).parent.parent / "tools"))
import bench_gpu
import rates


@pytest.fixture(scope="module")
def found(tiny, tmp_path_factory):
    file = tmp_path_factory.mktemp("bench") / "found.json"
    bench = bench_gpu.Bench(tiny, "torch", rates.Processor(), 0.01, file, {})
    bench_gpu.measure(
        bench, CAPTIONS, tiny, [("float32", []), ("float16", [])], (1, 4), 12, ("script", "graph"), (1,), gemm=64
    )
    assert json.loads(file.read_text()) == bench.found
    return bench.found


def test_every_batch_size_gets_a_row_of_each_way(found):
    ways = [(row["way"], row["batch"]) for row in found["rows"]]
    assert ways[:4] == [("engine", 1), ("without copies", 1), ("engine", 4), ("without copies", 4)]
    assert ways[4:] == [("script, both branches, text encoder too", 4)]  # two seeds
    gemm = found["gemm_tflops"][0]["float32"]
    for row in found["rows"]:
        assert row["passes_per_second"] > 0
        assert row["runs"] >= 3
        assert row["tflops"] == pytest.approx(row["passes_per_second"] * found["gflop_per_pass"] / 1e3)
        assert row["share"] == pytest.approx(row["tflops"] / gemm)


def test_matrix_products_run_before_and_after(found):
    assert [sorted(rates) for rates in found["gemm_tflops"]] == [["bfloat16", "float16", "float32"]] * 2
    assert min(rate for rates in found["gemm_tflops"] for rate in rates.values()) > 0


def test_an_engine_agrees_with_itself(found):
    (agreed,) = found["agreement"]
    assert agreed["error"] == 0
    assert agreed["rms_of_output"] > 0


def test_a_scan_is_timed_and_what_of_it_no_engine_ran(tiny, found):
    (scan,) = found["scans"]
    assert scan["prompts"] == 12
    assert (
        scan["unet_passes"]
        == 12 * ScanConfig(seeds=(0, 1)).settled(usual_timesteps(open_bundle(tiny, "torch").manifest)).passes
    )
    assert scan["passes_per_second"] == pytest.approx(scan["unet_passes"] / scan["seconds"])
    assert 0 < scan["outside_engines"] < 1


def test_what_fails_is_noted_and_the_rest_goes_on(found):
    failed = {entry["what"]: entry["error"] for entry in found["failed"]}
    assert set(failed) == {"float16", "graph, float32, batch 1"}  # the processor's backend has one precision, no graphs
    assert failed["float16"].startswith("EngineError: precision 'float16' was asked")


def test_the_table_names_all_of_it(found):
    table = bench_gpu.markdown(found)
    assert table.count("| engine | float32 |") == 2
    assert "EngineError" in table


def test_operations_of_a_pass_are_counted_without_weights_as_with_them(tiny):
    engine = open_bundle(tiny, "torch").engine("unet")
    given = [torch.tensor(array) for array in rates.feeds(engine, 1).values()]
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH), torch.inference_mode():
        engine.module(*given)
    assert rates.gflop_per_pass(tiny) == counter.get_total_flops() / 1e9
    first = 4 * 8 * 9 * 64 * 2  # convolution: 4 to 8 channels, 3 x 3, of 8 x 8
    assert 10 * first < counter.get_total_flops() < 1000 * first


def test_feeds_are_the_same_for_every_engine_and_of_the_asked_batch(tiny):
    engine = open_bundle(tiny, "torch").engine("unet")
    first, again = rates.feeds(engine, 3), rates.feeds(engine, 3)
    assert {name: len(array) for name, array in first.items()} == dict.fromkeys(engine.inputs, 3)
    for name, array in first.items():
        np.testing.assert_array_equal(array, again[name])
    assert np.isfinite(engine.run(first)["output"]).all()
