"""The whole scan against what the field's scripts do, on the same model, captions, seeds and cores, in one run.

    python tools/bench.py CHECKPOINT BUNDLE INPUT [--prompts N] [--peers M]

The peers' way: diffusers modules in torch, one prompt at a time, both guidance branches. They are run on the first M
prompts only; rates are compared.
"""

import argparse
import tempfile
import time
from collections import Counter
from importlib import import_module
from pathlib import Path

import numpy as np
from peers import SEEDS, Peers

from scanner import scan
from scanner.dataset import captions
from scanner.dataset.ledger import Ledger
from scanner.diffusion import scores as score_functions
from scanner.diffusion.denoiser import Denoiser
from scanner.scorer import Scorer

seconds: Counter[str] = Counter()


def timed(owner: object, method: str, name: str) -> None:
    """Count the seconds inside a method."""
    original = getattr(owner, method)

    def wrapper(*args: object, **kwargs: object) -> object:
        started = time.perf_counter()
        try:
            return original(*args, **kwargs)
        finally:
            seconds[name] += time.perf_counter() - started

    setattr(owner, method, wrapper)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("checkpoint", "bundle", "input"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--prompts", type=int, default=10_000)
    parser.add_argument("--peers", type=int, default=300)
    arguments = parser.parse_args()
    texts = captions.unique_prompts(captions.read([arguments.input], limit=arguments.peers))["text"].to_list()
    peers = Peers(arguments.checkpoint)
    peers(texts[:10], 1)  # warm-up
    before = peers(texts, 1)

    for part in ("split_captions", "compare"):
        timed(import_module("scanner.request"), part, "captions and ledger: what is pending")
    timed(Denoiser, "encode", "tokenizer and text encoder")
    timed(Denoiser, "eps", "UNet")
    timed(Scorer, "__call__", "chunk")
    timed(Ledger, "append", "ledger")
    with tempfile.TemporaryDirectory() as folder:
        result = scan(arguments.input, model=arguments.bundle, store=Path(folder) / "store", limit=arguments.prompts)
    after = peers(texts, 1)

    rate, peer = result.scored / result.seconds, float(np.mean([before, after]))
    print(f"{result.scored:,} unique prompts, {len(SEEDS)} seeds, {len(score_functions.SCORES)} scores")
    print(f"overscan {rate:.1f} prompts/s, peers {peer:.1f} prompts/s ({before:.1f} before, {after:.1f} after)")
    print(f"ratio {rate / peer:.2f}")
    chunk = seconds.pop("chunk")
    seconds["scores and frames"] = chunk - seconds["UNet"] - seconds["tokenizer and text encoder"]
    seconds["rest (opening the bundle, joins)"] = result.seconds - sum(seconds.values())
    for name, spent in seconds.most_common():
        print(f"{name:32} {spent / result.seconds:6.1%}")


if __name__ == "__main__":
    main()
