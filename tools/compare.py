"""What each backend and precision that runs here does to eps and to the scores, against torch float32.

    python tools/compare.py CHECKPOINT BUNDLE LABELS [--prompts N] [--json FILE]

`eps_error`: largest error over the largest deviation of a prompt's eps from the prompts' mean.
Overlap: share of the highest-scoring 1 % that both keep; beside it, what another pair of seeds does to it in torch.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl

from engines import BACKENDS, PRECISIONS, EngineError
from engines.bundle import read_manifest
from scanner.config import ScanConfig
from scanner.diffusion.scores import SCORES
from scanner.diffusion.start import initial_noise
from scanner.evidence.labels import read_labels
from scanner.evidence.metrics import auroc, tpr_at_fpr
from scanner.model import Model
from scanner.model.scorer import EVERYDAY

TOP = 0.01
FIRST_TIMESTEP = 981  # of 50 leading-spaced steps


def candidates(bundle: Path) -> Iterator[Model]:
    """Every backend in every precision that opens and runs here; the others are named on stderr."""
    for backend in BACKENDS:
        for precision in PRECISIONS if backend != "torch" else ():
            try:
                model = Model(bundle, backend, precision)
                assert model.denoiser  # opened, or refused
                yield model
            except EngineError as error:
                print(f"{backend} {precision}: {error}", file=sys.stderr)


def eps(model: Model) -> np.ndarray:
    """Predicted noise of the canaries from one starting noise, [B, 1, C, H, W]."""
    denoiser = model.denoiser
    x_T = np.repeat(initial_noise((0,), denoiser.latent_shape)[None], len(EVERYDAY), 0)
    return denoiser.predict(x_T, FIRST_TIMESTEP, denoiser.encode(EVERYDAY)).eps


def overlap(a: np.ndarray, b: np.ndarray, top: float = TOP) -> float:
    """Share of the top of `a` that is in the top of `b`."""
    n = max(1, round(top * len(a)))
    return len(set(np.argsort(-a)[:n]) & set(np.argsort(-b)[:n])) / n


def compare(a: np.ndarray, b: np.ndarray, label: np.ndarray) -> dict[str, float]:
    """One score of two engines on the labelled prompts."""
    ranks = pl.DataFrame({"a": a, "b": b}).select(pl.corr("a", "b", method="spearman")).item()
    return {
        "relative_error": float(np.abs(b - a).max() / np.abs(a).max()),
        "spearman": ranks,
        "auroc": auroc(a, label),
        "auroc_change": auroc(b, label) - auroc(a, label),
        "tpr_change": tpr_at_fpr(b, label, 0.01) - tpr_at_fpr(a, label, 0.01),
        "overlap": overlap(a, b),
    }


def rows(reference: Model, folder: Path, labels: pl.DataFrame) -> Iterator[dict[str, object]]:
    """A row per backend, precision and score."""
    n, label = len(labels), labels["label"].to_numpy()
    prompts = pl.DataFrame({"prompt_id": np.arange(n).astype(str), "text": labels["prompt"]})

    def scores(model: Model, config: ScanConfig) -> pl.DataFrame:
        scorer = model.adapted(config=config).scorer()
        return pl.concat([scorer(part) for part in prompts.iter_slices(64)])

    expected, other = scores(reference, ScanConfig()), scores(reference, ScanConfig(seeds=(2, 3)))
    noise = eps(reference)
    spread = np.abs(noise - noise.mean(0)).max()  # of prompts; the rest is x_T, which would hide any error
    for bundle in candidates(folder):
        found, error = scores(bundle, ScanConfig()), np.abs(eps(bundle) - noise).max() / spread
        engine = {"provider": bundle.denoiser.provider, "eps_error": float(error)}
        for name in (name for name in expected.columns if name in SCORES and not expected[name].has_nulls()):
            a, b, c = (frame[name].to_numpy().astype(np.float64) for frame in (expected, found, other))
            yield engine | {"score": name} | compare(a, b, label) | {"overlap_of_other_seeds": overlap(a, c)}


def markdown(found: list[dict[str, object]]) -> str:
    lines = ["| " + " | ".join(found[0]) + " |", "|---" * len(found[0]) + "|"]
    for row in found:
        cells = (f"{value:.6g}" if isinstance(value, float) else str(value) for value in row.values())
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("checkpoint", "bundle", "labels"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--prompts", type=int, default=400, help="labelled prompts, drawn evenly")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    labels = read_labels(arguments.labels).drop_nulls("label")
    labels = labels.sample(min(arguments.prompts, len(labels)), seed=0)
    opened = Model(arguments.checkpoint, "torch").bundle
    std = read_manifest(arguments.bundle).latent_std  # which a checkpoint does not tell
    reference = Model.of(replace(opened, manifest=replace(opened.manifest, latent_std=std)))
    found = list(rows(reference, arguments.bundle, labels))
    print(markdown(found))
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
