"""A screened scan end to end against what the field's scripts do with as many seeds, on the same cores, in one run.

    python tools/bench_screened.py CHECKPOINT BUNDLE INPUT [--prompts N] [--peers M] [--seeds 4] [--json FILE]
        [--refined 2] [--screen SHARE] [--screen-model BUNDLE]

The peers' way: diffusers modules in torch, one prompt at a time, both guidance branches, in float32 and, beside it, in
bfloat16; on the first M captions, before and after. Ours: `overscan scan` of N captions behind `--screen auto`, or a
share and a model for the first pass that are named, with as many seeds or REFINED ones; whole, and without what it
prepares (opening, the prior, the trial of batch sizes, canaries), which a night of a million does not feel. What a
screen keeps: docs/screening.md.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import polars as pl
import torch
from bench import texts_of
from peers import Peers

from scanner import ScanConfig, scan
from scanner.config import AutoScreen, Screen


class Clock:
    """Hears of a scan's progress. Scoring is from the first to the last word of a pass over the captions; the rest
    is preparing, of which a screened scan has two: its own, and its first pass's."""

    def __init__(self) -> None:
        self._began = time.perf_counter()
        self._passes: list[list[float]] = []  # of each pass, when it was heard of

    def __call__(self, what: str, done: int, total: int) -> None:
        if what == "scan":
            if done == 0:
                self._passes.append([])
            self._passes[-1].append(time.perf_counter())

    def seconds(self) -> dict[str, float]:
        """Of scoring and of preparing until now, by name."""
        scoring = sum(heard[-1] - heard[0] for heard in self._passes)
        return {"scoring": scoring, "preparing": time.perf_counter() - self._began - scoring}


def ours(bundle: Path, texts: list[str], seeds: int, backend: str, screen: Screen | AutoScreen) -> dict[str, float]:
    """Captions per second of a screened scan, with all that it prepares and without, and the passes of each."""
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "captions.parquet"
        pl.DataFrame({"caption": texts}).write_parquet(file)
        result = scan(
            file, model=bundle, store=Path(folder) / "store", backend=backend, watch=clock,
            config=ScanConfig(seeds=tuple(range(seeds))), screen=screen,
        )  # fmt: skip
    seconds = clock.seconds()
    assert result.screening is not None
    return {
        "rate": len(texts) / sum(seconds.values()),
        "scoring_rate": len(texts) / seconds["scoring"],
        "preparing_seconds": seconds["preparing"],
        "passes_per_prompt": result.screening.passes_per_prompt,
    }


def theirs(checkpoint: Path, texts: list[str], seeds: int) -> dict[str, float]:
    """Captions per second of the peers' way, by precision; one model in memory at a time."""
    rates = {}
    for dtype in (torch.float32, torch.bfloat16):
        peers = Peers(checkpoint, range(seeds), dtype=dtype)
        peers(texts[:1], 1)  # warm-up
        rates[str(dtype).removeprefix("torch.")] = peers(texts, 1)
        del peers
    return rates


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("checkpoint", "bundle", "input"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--prompts", type=int, default=10_000)
    parser.add_argument("--peers", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--refined", type=int, help="Seeds of a caption that stands out.  [default: SEEDS]")
    parser.add_argument("--screen", type=float)
    parser.add_argument("--screen-model", type=Path)
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    texts = texts_of(asked.input, asked.prompts)
    before = theirs(asked.checkpoint, texts[: asked.peers], asked.seeds)
    screen = AutoScreen() if asked.screen is None else Screen(asked.screen, model=asked.screen_model)
    refined = asked.refined or asked.seeds
    row = {"prompts": len(texts), "seeds": asked.seeds, "refined": refined}
    row |= ours(asked.bundle, texts, refined, asked.backend, screen)
    after = theirs(asked.checkpoint, texts[: asked.peers], asked.seeds)
    for precision in before:
        rate = (before[precision] + after[precision]) / 2
        row |= {
            f"peers_{precision}": rate,
            f"ratio_{precision}": row["rate"] / rate,
            f"scoring_ratio_{precision}": row["scoring_rate"] / rate,
        }
    print(" ".join(f"{name} {value:.4g}" for name, value in row.items()))
    if asked.json:
        asked.json.write_text(json.dumps(row, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
