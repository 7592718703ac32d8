"""The UNet of a model on a GPU: passes per second by batch size, beside the GPU's own matrix products; then a scan.

    python tools/bench_gpu.py MODEL INPUT [--backend torch-cuda] [--precision float16 bfloat16 float32:8] [--json FILE]

MODEL: a checkpoint for torch-cuda; a bundle for cuda and tensorrt, with --checkpoint to count a pass's operations of.
A precision may name its batch sizes. Each row is the median of warm runs through the engine as a scan uses it, numpy in
and numpy out; "without copies" is torch's module alone, on tensors that stay on the GPU. `error` is that of one batch's
output against the same weights elsewhere: torch's in float32 on the GPU, or a bundle's graphs on the CPU. The scan is
of INPUT's first captions at the fastest batch size, its prior drawn at random as `bench_engines.py` does. --variants
tries last what a user could do otherwise. FILE is written after every row, so that a run that is cut keeps its rows.
"""

import argparse
import gc
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import polars as pl
import torch
from bench_engines import scanned
from gpu_variants import SCRIPT, VARIANTS, eager, script_seconds
from rates import GEMM, Device, Gpu, Work, feeds, gemm_rates, gflop_per_pass, noted_runs, run_seconds

from engines import BACKENDS, open_bundle, torch_ref
from engines.interface import Engine
from engines.torch_ref import TorchEngine, require_device
from scanner.dataset import captions

BATCHES = (1, 2, 4, 8, 16, 32, 64)
VARIANT_BATCHES = (1, 16)
SCRIPT_PROMPTS = 16
ERROR_BATCH = 2
Precision = tuple[str, Sequence[int]]  # and its batch sizes; none: those of all


@dataclass(frozen=True)
class Row:
    """One way to run a batch. `tflops`: per second; `share`: of the matrix products' in that precision."""

    way: str
    precision: str
    provider: str
    batch: int
    passes_per_second: float
    runs: int
    slowest_over_median: float
    tflops: float
    share: float


@dataclass
class Bench:
    """What is measured, of which model, on what. `found` is written to `file` whenever something is added."""

    model: Path
    backend: str
    device: Device
    seconds: float
    file: Path | None
    found: dict[str, Any]

    def add(self, kind: str, entry: dict[str, Any]) -> None:
        self.found.setdefault(kind, []).append(entry)
        print(f"{kind}: {json.dumps(entry)}", flush=True)
        if self.file:
            self.file.write_text(json.dumps(self.found, indent=1) + "\n")

    def attempt(self, what: str, work: Callable[[], Any]) -> Any:
        """The result, or None where it fails: the error is noted, and the next row goes on."""
        try:
            return work()
        except Exception as error:  # the runtimes' errors share no base class
            self.add("failed", {"what": what, "error": f"{type(error).__name__}: {error}"[:2000]})
            return None
        finally:
            gc.collect()
            torch.cuda.empty_cache()  # nothing where there is no GPU

    def gemm(self, size: int) -> None:
        self.attempt("matrix products", lambda: self.add("gemm_tflops", gemm_rates(self.device, size)))

    def row(self, way: str, precision: str, provider: str, batch: int, took: Sequence[float]) -> float:
        """Note a row; passes per second."""
        rate = batch / float(np.median(took))
        tflops = rate * self.found.get("gflop_per_pass", 0.0) / 1e3
        gemm = self.found.get("gemm_tflops", [{}])[0].get(precision, float("inf"))
        worst = float(max(took) / np.median(took))
        self.add("rows", asdict(Row(way, precision, provider, batch, rate, len(took), worst, tflops, tflops / gemm)))
        return rate

    def timed(self, way: str, precision: str, engine: Engine, batch: int, make: Callable[[], Work]) -> float:
        """Passes per second of what `make` makes; 0 where it fails."""

        def measure() -> float:
            took = run_seconds(make(), self.device.wait, self.seconds)
            return self.row(way, precision, engine.provider, batch, took)

        return self.attempt(f"{way}, {precision}, batch {batch}", measure) or 0.0

    def speed(self, precision: str, engine: Engine, batches: Sequence[int]) -> int:
        """Rows of an engine; the fastest batch size."""
        rates = {}
        for batch in batches:
            given = feeds(engine, batch)
            rates[batch] = self.timed("engine", precision, engine, batch, lambda given=given: lambda: engine.run(given))
            if isinstance(engine, TorchEngine):
                self.timed("without copies", precision, engine, batch, lambda batch=batch: eager(engine, batch))
        return max(rates, key=lambda batch: rates[batch])

    def error(self, precision: str, engine: Engine, reference: Callable[[], dict[str, Any]]) -> None:
        """Note how far an output is from the reference's, ||a - b|| / ||b||."""
        found, wanted = engine.run(feeds(engine, ERROR_BATCH))["output"], reference()["output"]
        relative = float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))
        rms = float(np.sqrt(np.mean(np.square(wanted))))
        self.add("agreement", {"precision": precision, "error": relative, "rms_of_output": rms})

    def reference(self) -> dict[str, Any]:
        backend, precision = (self.backend, "float32") if self.backend.startswith("torch") else ("cpu", "auto")
        engine = open_bundle(self.model, backend, precision).engine("unet")
        return engine.run(feeds(engine, ERROR_BATCH))

    def scan(self, precision: str, batch: int, source: Path, prompts: int) -> None:
        """Note a whole scan; `outside_engines`: share of its time in which no network ran."""
        texts = captions.unique_prompts(captions.read([source]))["text"].to_list()[:prompts]
        with tempfile.TemporaryDirectory() as folder, noted_runs() as runs:
            pl.DataFrame({"caption": texts}).write_parquet(Path(folder) / "captions.parquet")
            way, scored, seconds, startup = scanned(
                self.model, Path(folder) / "captions.parquet", len(texts),
                backend=self.backend, precision=precision, batch_size=batch,
            )  # fmt: skip
            ended = time.perf_counter()
        during = [run for run in runs if run.at >= ended - seconds]
        passes = sum(run.batch for run in during if run.component == "unet")
        self.add("scans", {
            "precision": precision, "provider": way, "prompts": scored, "unet_passes": passes, "seconds": seconds,
            "prompts_per_second": scored / seconds, "passes_per_second": passes / seconds,
            "outside_engines": 1 - sum(run.seconds for run in during) / seconds, "startup_seconds": startup,
        })  # fmt: skip

    def variants(self, names: Sequence[str], precision: str, batches: Sequence[int], source: Path) -> None:
        engine = open_bundle(self.model, self.backend, precision).engine("unet")
        assert isinstance(engine, TorchEngine)
        for name in names:
            if name == SCRIPT:
                self.attempt(name, lambda: self.script(precision, source))
                continue
            for batch in batches:
                made = VARIANTS[name]
                self.timed(name, precision, engine, batch, lambda made=made, batch=batch: made(engine, batch))

    def script(self, precision: str, source: Path) -> None:
        texts = captions.unique_prompts(captions.read([source]))["text"].to_list()[:SCRIPT_PROMPTS]
        batch, took = script_seconds(self.model, texts, self.device, precision)
        self.row("script, both branches, text encoder too", precision, "diffusers", batch, took)


def measure(
    bench: Bench, source: Path, checkpoint: Path, precisions: Sequence[Precision], batches: Sequence[int], prompts: int,
    variants: Sequence[str] = (), variant_batches: Sequence[int] = VARIANT_BATCHES, gemm: int = GEMM,
) -> None:  # fmt: skip
    """All of it, into `bench.found`. A checkpoint is hashed once, not at every opening."""
    with patch("engines.torch_ref.open_checkpoint", cache(torch_ref.open_checkpoint)):
        bench.found["gflop_per_pass"] = bench.attempt("operations", lambda: gflop_per_pass(checkpoint)) or 0.0
        bench.gemm(gemm)
        reference = cache(bench.reference)
        for precision, own in precisions:

            def one(precision: str = precision, own: Sequence[int] = own) -> int:
                engine = open_bundle(bench.model, bench.backend, precision).engine("unet")
                best = bench.speed(precision, engine, own or batches)
                bench.attempt(f"error of {precision}", lambda: bench.error(precision, engine, reference))
                return best

            best = bench.attempt(precision, one)
            if best and prompts and not own:
                bench.attempt(f"scan, {precision}", lambda p=precision, b=best: bench.scan(p, b, source, prompts))
        bench.gemm(gemm)
        if variants:
            first = precisions[0][0]
            bench.attempt("variants", lambda: bench.variants(variants, first, variant_batches, source))


def markdown(found: dict[str, Any]) -> str:
    """The rows as a table, then the rest in words."""
    lines = [
        f"{found['gflop_per_pass']:.0f} GFLOP per UNet pass; matrix products, before and after, TFLOP/s: "
        + "; ".join(", ".join(f"{name} {rate:.0f}" for name, rate in one.items()) for one in found["gemm_tflops"]),
        "",
        "| way | precision | batch | passes/s | TFLOP/s | of the matrix products |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['way']} | {row['precision']} | {row['batch']} | {row['passes_per_second']:.1f} | "
        f"{row['tflops']:.1f} | {row['share']:.2f} |"
        for row in found.get("rows", [])
    ]
    for kind in ("agreement", "scans", "failed"):
        lines += ["", f"{kind}:", *(f"- {json.dumps(entry)}" for entry in found.get(kind, []))]
    return "\n".join(lines)


def precision(text: str) -> Precision:
    """Of "float32:8,16": name and batch sizes."""
    name, _, sizes = text.partition(":")
    return name, [int(size) for size in sizes.split(",")] if sizes else []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("input", type=Path)
    parser.add_argument("--backend", choices=list(BACKENDS), default="torch-cuda")
    parser.add_argument("--precision", type=precision, nargs="+", default=[("float16", [])])
    parser.add_argument("--batch", type=int, nargs="+", default=BATCHES)
    parser.add_argument("--seconds", type=float, default=1.0, help="of runs, of each row")
    parser.add_argument("--prompts", type=int, default=512, help="of the scan; 0: none")
    parser.add_argument("--checkpoint", type=Path, help="whose configuration tells a pass's operations; default: MODEL")
    parser.add_argument("--variants", nargs="*", choices=[SCRIPT, *VARIANTS], help="named, or all; torch-cuda alone")
    parser.add_argument("--variant-batch", type=int, nargs="+", default=VARIANT_BATCHES)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    require_device("cuda")
    found = {"model": given.model.name, "backend": given.backend, "gpu": torch.cuda.get_device_name()}
    bench = Bench(given.model, given.backend, Gpu(), given.seconds, given.json, found)
    variants = given.variants or ([] if given.variants is None else [SCRIPT, *VARIANTS])
    measure(
        bench, given.input, given.checkpoint or given.model, given.precision, given.batch, given.prompts, variants,
        given.variant_batch,
    )  # fmt: skip
    print(markdown(found))


if __name__ == "__main__":
    main()
