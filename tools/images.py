"""Write docs/images.md: what a caption's own image adds to the first step, on the true training pairs of our models.

    python tools/images.py NAME=BUNDLE,LABELS,WORK,SEED ...

WORK: a folder in which `demo_model.dataset.build` keeps or makes the training set of that SEED (with npm for artwork).
"""

import sys
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
from demo_model import dataset

from scanner.diffusion.injection import injection
from scanner.diffusion.scores import SCORES
from scanner.diffusion.start import predict_prior, start
from scanner.diffusion.trace import trace
from scanner.evidence.metrics import auroc, tpr_at_fpr
from scanner.model import Model

PAGE = Path(__file__).parent.parent / "docs/images.md"
COMPARED = ("text_noise_norm_v1", "overestimation_prior_v1", "estimate_ratio_prior_v1")
GUIDANCE_SCALE, NUM_INFERENCE_STEPS, SEEDS, CHUNK = 7.5, 50, (0, 1), 64
MARK = "<!-- Below: written by tools/images.py. -->"


class Trained(NamedTuple):
    """A model, its labelled prompts and its training set."""

    name: str
    bundle: Path
    labels: Path
    work: Path
    seed: int

    @classmethod
    def parse(cls, argument: str) -> "Trained":
        name, _, rest = argument.partition("=")
        bundle, labels, work, seed = rest.split(",")
        return cls(name, Path(bundle), Path(labels), Path(work), int(seed))


def pairs(model: Trained) -> tuple[pl.DataFrame, np.ndarray]:
    """Fixed prompts with a label, [prompt, duplicates, label], and the one image of each, float32 [n, 3, 32, 32]."""
    data = dataset.build(model.work, model.seed)
    of_prompt = {str(data.prompts[prompt]): image for image, prompt in enumerate(data.image_prompt)}
    labels = pl.read_parquet(model.labels).filter(pl.col("role") == "fixed")
    labels = labels.select("prompt", "duplicates", "label")
    unknown = [prompt for prompt in labels["prompt"] if prompt not in of_prompt]
    if unknown:
        raise SystemExit(f"{model.labels}: {len(unknown)} fixed prompts are not in {model.work}: another seed's data?")
    chosen = data.images[[of_prompt[prompt] for prompt in labels["prompt"]]]
    return labels, (chosen / np.float32(127.5) - 1).astype(np.float32)


def measure(model: Trained, prompts: list[str], images: np.ndarray) -> dict[tuple[str, int], np.ndarray]:
    """(quantity, seeds) -> values [n]."""
    denoiser = Model(model.bundle, batch_size=128).denoiser
    x_0 = denoiser.encode_images(images)
    prior = predict_prior(denoiser, NUM_INFERENCE_STEPS)
    first = replace(start(denoiser, SEEDS, NUM_INFERENCE_STEPS), prior=prior)
    measures = (
        ("0", np.zeros_like(prior.mean), None),
        ("prior mean", prior.mean, None),
        ("prior mean, prior's covariance", prior.mean, prior.covariance),
    )
    found: dict[tuple[str, int], list[np.ndarray]] = {}
    for i in range(0, len(prompts), CHUNK):
        whole = trace(denoiser, denoiser.encode(prompts[i : i + CHUNK]), first, GUIDANCE_SCALE, NUM_INFERENCE_STEPS, 1)
        for seeds in (1, 2):
            part = whole.part(seeds, 1)
            values = {name: SCORES[name](part) for name in COMPARED if SCORES[name].seeds <= seeds}
            for mu, centre, covariance in measures:
                held = injection(part.hat.x0[0], x_0[i : i + CHUNK], centre, covariance)
                own = np.arange(len(held.coefficient))
                values[f"injection, mu = {mu}"] = held.coefficient[own, :, own].mean(1)
                values[f"injection cosine, mu = {mu}"] = held.cosine[own, :, own].mean(1)
            for name, value in values.items():
                found.setdefault((name, seeds), []).append(value)
    return {key: np.concatenate(parts).astype(np.float64) for key, parts in found.items()}


def table(labels: pl.DataFrame, values: dict[tuple[str, int], np.ndarray]) -> str:
    """AUROC / TPR at 1 % FPR of every quantity, with medians."""
    label, times = labels["label"], labels["duplicates"].to_numpy()
    decided = label.is_not_null().to_numpy()
    memorized = label.fill_null(False).to_numpy()
    tasks = {
        "memorized against not": (decided, memorized),
        "shown >= 16 times against once": ((times >= 16) | (times == 1), times >= 16),
    }
    counts = [f"{name} ({(kept & kind).sum()} : {(kept & ~kind).sum()})" for name, (kept, kind) in tasks.items()]
    lines = [f"| quantity | seeds | {' | '.join(counts)} | median, memorized | median, not |", "|---" * 6 + "|"]
    for (name, seeds), value in sorted(values.items(), key=lambda item: (item[0][1], item[0][0])):
        cells = [
            f"{auroc(value[kept], kind[kept]):.4f} / {tpr_at_fpr(value[kept], kind[kept], 0.01):.3f}"
            for kept, kind in tasks.values()
        ]
        medians = [f"{np.median(value[decided & kind]):.2f}" for kind in (memorized, ~memorized)]
        lines.append(f"| {name} | {seeds} | {' | '.join([*cells, *medians])} |")
    return "\n".join(lines)


def main() -> None:
    """Measure each model given and write the tables below the page's mark."""
    parts = [PAGE.read_text(encoding="utf-8").partition(MARK)[0] + MARK]
    for model in map(Trained.parse, sys.argv[1:]):
        labels, images = pairs(model)
        values = measure(model, labels["prompt"].to_list(), images)
        parts += [f"### {model.name}", table(labels, values)]
        print(f"{model.name}: done", file=sys.stderr)
    PAGE.write_text("\n\n".join(parts) + "\n")


if __name__ == "__main__":
    main()
