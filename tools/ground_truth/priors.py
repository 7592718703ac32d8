"""How many noises a model's prior needs: what its scores find by fewer of them.

    python -m tools.ground_truth.priors NAME=WORK,KIND ...

WORK, KIND: a work folder of `python -m tools.ground_truth`, or of its siblings, and the kind of its model. Whole lists
of labelled captions, two passes each, told what is usual and the sampler's first timestep; each number of noises four
times, from noises that no two of them share. Writes docs/detection/priors.csv, of all models that are named, and prints
the table of docs/scores.md.
"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl

from scanner.config import ScanConfig
from scanner.diffusion.baselines import Prior
from scanner.diffusion.scores import SCORES
from scanner.diffusion.start import PRIOR_SEEDS, predict_prior
from scanner.diffusion.trace import Trace
from scanner.evidence.labels import read_labels
from scanner.model import Model

from .choice import SEEDS, asked_for, shares

FILE = Path("docs/detection/priors.csv")
SETS, NOISES, CHUNK = 4, (8, 16, 32, 64), 256
SCORED = {"usual": ("overestimation_prior_v2", "estimate_ratio_prior_v2"),
          "first": ("overestimation_prior_v1", "estimate_ratio_prior_v1")}  # fmt: skip
TITLES = ["model", "told", "score", *map(str, NOISES)]


def measured(work: Path, kind: str) -> Iterator[dict[str, str | int | float]]:
    """A row for each timestep, score, number of noises and set of them: `mean` of the shares found, of `choice`."""
    labels = read_labels(work / f"labels-{kind}.parquet")
    labels = labels.filter(labels["label"].is_not_null())
    prompts = labels["prompt"].to_list()
    seeds = range(PRIOR_SEEDS.start, PRIOR_SEEDS.start + SETS * max(NOISES))
    for told, names in SCORED.items():
        config = ScanConfig(seeds=SEEDS, timesteps=None if told == "usual" else ())
        model = Model(work / f"bundle-{kind}", "openvino", config=config, batch_size=64).prepare()
        scorer, steps = model.scorer(), model.config.num_inference_steps
        drawn = predict_prior(scorer.denoiser, steps, told=model.config.told, seeds=seeds).x0_uncond
        traces = [scorer.trace(scorer.encode(prompts[i : i + CHUNK])) for i in range(0, len(prompts), CHUNK)]
        for name in names:
            for noises in NOISES:
                for i in range(SETS):
                    prior = Prior(drawn[i * max(NOISES) :][:noises])
                    found = shares(_scores(name, traces, prior), labels)
                    yield {"told": told, "score": name, "noises": noises, "set": i, "mean": round(found["mean"], 4)}


def _scores(name: str, traces: Sequence[Trace], prior: Prior) -> np.ndarray:
    return np.concatenate([SCORES[name](replace(trace, prior=prior)) for trace in traces]).astype(np.float64)


def table(found: pl.DataFrame) -> str:
    """Markdown: the mean over sets of noises, and the lowest."""
    over_sets = pl.col("mean").mean().alias("found"), pl.col("mean").min().alias("lowest")
    rows = found.group_by("model", "told", "score", "noises", maintain_order=True).agg(*over_sets)
    lines = [f"| {' | '.join(TITLES)} |", "|" + "---|" * len(TITLES)]
    for (model, at, score), part in rows.group_by("model", "told", "score", maintain_order=True):
        cells = [f"{mean:.3f} ({low:.3f})".replace("0.", ".") for mean, low in part["found", "lowest"].rows()]
        lines.append(f"| {model} | {at} | `{score}` | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    rows = []
    for name, work, kind, _ in asked_for(sys.argv[1:]):
        rows += [{"model": name} | row for row in measured(work, kind)]
        print(f"{name}: done", file=sys.stderr)
    found = pl.DataFrame(rows)
    found.write_csv(FILE)
    print(table(found), end="")


if __name__ == "__main__":
    main()
