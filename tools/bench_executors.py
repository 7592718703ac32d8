"""Processes beside one process on the same captions: equality of every number, and throughput as a ratio.

    python tools/bench_executors.py BUNDLE CAPTIONS [--prompts 3000] [--workers 2] [--backend cpu] [--kill]

`--kill`: one worker is killed (SIGKILL) after a third of the prompts. Rates leave preparing out, and, of processes,
hold the start of the workers.
"""

import argparse
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import polars as pl

from scanner.config import ScanConfig
from scanner.dataset import captions
from scanner.model import Model
from scanner.scanning.execute import Executor, local, processes


def run(
    executor: Executor, model: Model, prompts: pl.DataFrame, heard: Callable[[int], None] = lambda done: None
) -> tuple[pl.DataFrame, float, float]:
    """All scores in order of the ids, and the seconds that they, and of these the first chunk's, took."""
    assert model.prepared is not None
    frames, done, first, started = [], 0, 0.0, time.perf_counter()
    for frame in executor(model, prompts.iter_slices(model.prepared.chunk), lambda: False):
        frames.append(frame)
        first = first or time.perf_counter() - started
        done += len(frame)
        heard(done)
    return pl.concat(frames).sort("prompt_id"), time.perf_counter() - started, first


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("bundle", "input"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--prompts", type=int, default=3000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--backend", default="cpu")
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--kill", action="store_true")
    arguments = parser.parse_args()
    found = captions.unique_prompts(captions.read([arguments.input]))
    prompts = found.filter(status="to_score").head(arguments.prompts)
    config = ScanConfig(seeds=tuple(range(arguments.seeds)))
    model = Model(arguments.bundle, arguments.backend, config=config, batch_size=arguments.batch_size).prepare()
    killed: list[int] = []

    def kill(done: int) -> None:
        if arguments.kill and not killed and done > len(prompts) / 3:
            killed.append(multiprocessing.active_children()[0].pid or 0)
            os.kill(killed[0], signal.SIGKILL)

    before, first, _ = run(local, model, prompts)
    there, seconds, _ = run(processes(arguments.workers), model, prompts, kill)
    after, second, _ = run(local, model, prompts)
    here = len(prompts) * 2 / (first + second)
    engine = f"{model.backend} {model.precision}, batch {model.batch_size}"
    print(f"{len(prompts):,} prompts, {arguments.seeds} seeds, {engine}")
    print(f"local {here:.1f} prompts/s ({len(prompts) / first:.1f} before, {len(prompts) / second:.1f} after)")
    there_rate = len(prompts) / seconds
    print(f"{arguments.workers} processes {there_rate:.1f} prompts/s, ratio {there_rate / here:.2f}")
    print(f"killed on the way: {len(killed)}")
    print(f"local equals itself: {before.equals(after)}; processes equal local: {there.equals(before)}")


if __name__ == "__main__":
    main()
