"""How many reference captions are enough: detection by the scores that use them, against their number.

    python tools/reference_size.py LABELS REFERENCE BUNDLE

Every number of captions is drawn ten times from the list; the last row leaves out labelled prompts whose concept is in
the reference ("pizza on teal", "pizza on red"), as a check that the scores do not live on knowing it.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl

from scanner.dataset import captions
from scanner.diffusion.baselines import Reference
from scanner.diffusion.denoiser import Denoiser
from scanner.diffusion.prediction import combined
from scanner.diffusion.scores import SCORES
from scanner.diffusion.start import predict_reference, start
from scanner.diffusion.trace import Trace, trace
from scanner.evidence.evaluate import COLLAPSED, WIDE
from scanner.evidence.labels import read_labels
from scanner.evidence.metrics import auroc, tpr_at_fpr
from scanner.model import Model

SIZES, DRAWS, SEEDS = (5, 10, 20, 50, 100, 200), 10, (0, 1)
NAMES = [name for name, score in SCORES.items() if score.needs == "reference"]
CHUNK, STEPS = 64, WIDE.num_inference_steps


def concept(prompt: pl.Expr) -> pl.Expr:
    """What a caption of the demo model shows, without its background and the words of an edit."""
    return prompt.str.split(" on ").list.first().str.replace("^(a|the|small) ", "").str.replace(" picture$", "")


def traces(denoiser: Denoiser, prompts: list[str]) -> Trace:
    """All prompts' first step, stacked: small models only."""
    first = start(denoiser, SEEDS, STEPS)
    parts = [
        trace(denoiser, denoiser.encode(prompts[i : i + CHUNK]), first, WIDE.guidance_scale, STEPS, 1)
        for i in range(0, len(prompts), CHUNK)
    ]
    return replace(
        parts[0],
        x_t=np.concatenate([part.x_t for part in parts], 1),
        cond=combined([part.cond for part in parts], lambda arrays: np.concatenate(arrays, 1)),
        uncond=combined([part.uncond for part in parts], lambda arrays: np.concatenate(arrays, 1)),
    )


def detection(scored: Trace, label: np.ndarray) -> dict[str, tuple[float, float]]:
    """AUROC and TPR at 1 % FPR of each score that uses a reference."""
    values = {name: SCORES[name](scored) for name in NAMES}
    return {name: (auroc(value, label), tpr_at_fpr(value, label, 0.01)) for name, value in values.items()}


def table(labels: pl.DataFrame, reference: list[str], denoiser: Denoiser) -> str:
    """Markdown: a row per number of captions; mean over the draws, and the lowest and highest TPR."""
    kept = labels.with_columns(label=COLLAPSED["left out"]).drop_nulls("label")
    label = kept["label"].to_numpy()
    scored = traces(denoiser, kept["prompt"].to_list())
    first = start(denoiser, SEEDS, STEPS)
    cond = predict_reference(denoiser, reference, first, STEPS).cond
    rng = np.random.default_rng(0)
    lines = ["| captions | " + " | ".join(f"`{name}`" for name in NAMES) + " |", "|---" * (1 + len(NAMES)) + "|"]
    for size in (*(size for size in SIZES if size < len(reference)), len(reference)):
        draws = [rng.choice(len(reference), size, replace=False) for _ in range(DRAWS if size < len(reference) else 1)]
        found = [detection(replace(scored, reference=Reference(cond[draw])), label) for draw in draws]
        cells = []
        for name in NAMES:
            area, rate = np.array([row[name] for row in found]).T
            cells.append(f"{area.mean():.4f} / {rate.mean():.3f} ({rate.min():.2f}-{rate.max():.2f})")
        lines.append(f"| {size} | {' | '.join(cells)} |")
    apart = ~kept.select(concept(pl.col("prompt")).is_in(_concepts(reference)))["prompt"].to_numpy()
    kept = np.s_[:, apart]
    part = replace(scored, x_t=scored.x_t[kept], cond=scored.cond.at(kept), uncond=scored.uncond.at(kept))
    found = detection(replace(part, reference=Reference(cond)), label[apart])
    cells = [f"{area:.4f} / {rate:.3f}" for area, rate in found.values()]
    return "\n".join([*lines, f"| {len(reference)}, other concepts only | {' | '.join(cells)} |"])


def _concepts(reference: list[str]) -> list[str]:
    return pl.DataFrame({"prompt": reference}).select(concept(pl.col("prompt")))["prompt"].to_list()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("labels", "reference", "bundle"):
        parser.add_argument(name, type=Path)
    arguments = parser.parse_args()
    denoiser = Model(arguments.bundle).denoiser
    print(table(read_labels(arguments.labels), captions.reference(arguments.reference), denoiser))


if __name__ == "__main__":
    main()
