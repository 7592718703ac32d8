"""The whole scan against what the field's scripts do, on the same model, captions, seeds and cores, in one run.

    python tools/bench.py CHECKPOINT BUNDLE INPUT [--prompts N] [--peers M]

The peers' way: diffusers modules in torch, one prompt at a time, both guidance branches. They are run on the first M
prompts only, 0: not at all; rates are compared.

Where INPUT holds fewer than N unique captions, others are made of halves of them. The last line is the share of the
scan that is neither UNet nor text encoder: of its wall time, opening the bundle included, and, for machines that others
use too, of its CPU time. An engine uses every core and most of the rest one: on idle cores the first is the larger.
"""

import argparse
import tempfile
import time
from collections import Counter
from importlib import import_module
from pathlib import Path
from random import Random

import numpy as np
import polars as pl
from peers import SEEDS, Peers

from scanner import scan
from scanner.dataset import captions
from scanner.diffusion import scores as score_functions
from scanner.diffusion.denoiser import Denoiser
from scanner.model.scorer import Scorer
from scanner.store.ledger import Ledger

seconds: Counter[str] = Counter()
cpu: Counter[str] = Counter()


def timed(owner: object, method: str, name: str) -> None:
    """Count the seconds and CPU seconds inside a method."""
    original = getattr(owner, method)

    def wrapper(*args: object, **kwargs: object) -> object:
        started, cpu_started = time.perf_counter(), time.process_time()
        try:
            return original(*args, **kwargs)
        finally:
            seconds[name] += time.perf_counter() - started
            cpu[name] += time.process_time() - cpu_started

    setattr(owner, method, wrapper)


def texts_of(source: Path, n: int) -> list[str]:
    """n unique captions of an input; where it has fewer, then first halves of some with second halves of others."""
    prompts = captions.unique_prompts(captions.read([source], limit=n))
    texts = prompts.filter(status="to_score")["text"].to_list()
    random, words = Random(0), [text.split() for text in texts]
    found = dict.fromkeys(texts)
    while len(found) < n:
        one, other = random.choice(words), random.choice(words)
        found[" ".join(one[: (len(one) + 1) // 2] + other[len(other) // 2 :])] = None
    return list(found)[:n]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("checkpoint", "bundle", "input"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--prompts", type=int, default=10_000)
    parser.add_argument("--peers", type=int, default=300)
    arguments = parser.parse_args()
    texts = texts_of(arguments.input, arguments.prompts)
    peers = Peers(arguments.checkpoint)
    peers(texts[:10], 1)  # warm-up
    before = peers(texts[: arguments.peers], 1)

    for part in ("split_captions", "compare"):
        timed(import_module("scanner.scanning.request"), part, "captions and ledger: what is pending")
    timed(Denoiser, "encode", "tokenizer and text encoder")
    timed(Denoiser, "eps", "UNet")
    timed(Denoiser, "_run", "engines")
    timed(Scorer, "__call__", "chunk")
    timed(Ledger, "append", "ledger")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "captions.parquet"
        pl.DataFrame({"caption": texts}).write_parquet(file)
        cpu_started = time.process_time()
        result = scan(file, model=arguments.bundle, store=Path(folder) / "store")
        cpu_seconds = time.process_time() - cpu_started
    after = peers(texts[: arguments.peers], 1)

    rate, peer = result.scored / result.seconds, float(np.mean([before, after]))
    versus = (
        f", peers {peer:.1f} prompts/s ({before:.1f} before, {after:.1f} after)\nratio {rate / peer:.2f}"
        if peer
        else ""
    )
    print(f"{result.scored:,} unique prompts, {len(SEEDS)} seeds, {len(score_functions.SCORES)} scores")
    print(f"overscan {rate:.1f} prompts/s{versus}")
    chunk, engines = seconds.pop("chunk"), seconds.pop("engines")
    seconds["scores and frames"] = chunk - seconds["UNet"] - seconds["tokenizer and text encoder"]
    seconds["rest (opening the bundle, joins)"] = result.seconds - sum(seconds.values())
    for name, spent in seconds.most_common():
        print(f"{name:32} {spent / result.seconds:6.1%}")
    outside, outside_cpu = 1 - engines / result.seconds, 1 - cpu["engines"] / cpu_seconds
    print(f"outside the engines: {outside:.1%} of wall time, {outside_cpu:.1%} of CPU time")


if __name__ == "__main__":
    main()
