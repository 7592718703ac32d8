"""How long `overscan gate` takes to answer, as a ratio to what a scan takes per prompt, in one run on one machine.

    python tools/bench_gate.py [--model BUNDLE] [--prompts 400] [--rounds 5]

The gate is a process of its own, asked one line at a time through its pipes, as a service would. Rounds of it and of
chunks of a scan take turns, as a machine's speed drifts. Prints p50 and p99 of the answers and their ratio to the
scan's seconds per prompt, and the same of one prompt at a time without a pipe between.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl

from scanner import Model
from scanner.dataset.captions import prompt_ids
from scanner.demo import BUNDLE, CAPTIONS
from scanner.diffusion.scores import best_score
from scanner.model import Scorer


def asked(gate: subprocess.Popen[str], prompts: list[str]) -> list[float]:
    """Seconds from each line to its answer."""
    assert gate.stdin is not None
    assert gate.stdout is not None
    seconds = []
    for prompt in prompts:
        began = time.perf_counter()
        gate.stdin.write(prompt + "\n")
        gate.stdin.flush()
        answer = json.loads(gate.stdout.readline())
        seconds.append(time.perf_counter() - began)
        assert answer["verdict"] in ("pass", "hold"), answer
    return seconds


def scanned(scorer: Scorer, prompts: pl.DataFrame) -> float:
    """Seconds per prompt of a scan's chunks."""
    began = time.perf_counter()
    for chunk in prompts.iter_slices(scorer.chunk):
        scorer(chunk)
    return (time.perf_counter() - began) / len(prompts)


def alone(scorer: Scorer, prompts: pl.DataFrame) -> list[float]:
    """Seconds of the same scorer for one prompt at a time, in this process."""
    seconds = []
    for one in prompts.iter_slices(1):
        began = time.perf_counter()
        scorer(one)
        seconds.append(time.perf_counter() - began)
    return seconds


def main() -> None:
    """Print the latencies."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=BUNDLE)
    parser.add_argument("--backend", default="cpu")
    parser.add_argument("--prompts", type=int, default=400, help="asked of the gate, all rounds together")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    texts = pl.read_parquet(CAPTIONS)["caption"].unique(maintain_order=True).head(2000)
    frame = pl.DataFrame({"prompt_id": prompt_ids(texts), "text": texts})
    model = Model(given.model, given.backend)
    scorer = model.scorer()
    command = [sys.executable, "-m", "scanner", "gate", "-m", str(given.model), "--backend", given.backend]
    command += ["--score", best_score(model.settled, reference=False), "--threshold", "2"]
    gate = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    asked(gate, texts.head(20).to_list())  # warm
    answers, singles, per_prompt = list[float](), list[float](), list[float]()
    each, share = given.prompts // given.rounds, len(frame) // given.rounds
    for i in range(given.rounds):
        part = frame.slice(i * share, share)
        answers += asked(gate, part["text"].head(each).to_list())
        singles += alone(scorer, part.head(each))
        per_prompt.append(scanned(scorer, part))
    assert gate.stdin is not None
    gate.stdin.close()
    gate.wait()
    scan = float(np.median(per_prompt))
    print(f"scan {1e3 * scan:.2f} ms per prompt, in chunks of {scorer.chunk}")
    for name, seconds in (("gate", answers), ("one prompt in a process", singles)):
        p50, p99 = np.quantile(seconds, (0.5, 0.99))
        print(f"{name}: p50 {1e3 * p50:.2f} ms ({p50 / scan:.1f} times), p99 {1e3 * p99:.2f} ms ({p99 / scan:.1f})")


if __name__ == "__main__":
    main()
