"""Whether the models are like Stable Diffusion where it decides: the published order of published detectors.

    python -m tools.ground_truth.realism BUNDLE LABELS.parquet

Looked at before any score of ours is: only a model that passes may choose defaults. Prompts whose seeds collapse
without a copy are left out, as are those without a label.
"""

import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl

from engines import open_bundle
from scanner.diffusion.denoiser import Denoiser
from scanner.diffusion.trace import Start, denoise, start
from scanner.evidence.metrics import Bootstrap, bootstrap, resample

GUIDANCE_SCALE, NUM_INFERENCE_STEPS, SEEDS = 7.5, 50, (0, 1, 2, 3)
LOW_NOISE = 41  # timestep label of Asthana's cosine, on x_T itself
MOST_NEGATIVES = 1500
WHOLE_RUNS, REFERENCE_RUNS = 200, 50  # prompts of a kind that run all steps; ordinary prompts that set their scale
CHUNK = 32
PAIRS = (  # better, worse, as published; the models they were published on
    ("Wen, 5 steps", "Wen", "Stable Diffusion 1.4"),
    ("DSM 0-1", "Wen", "1.5"),
    ("DSM 1-2", "DSM 0-1", "1.5"),
    ("Asthana", "Wen", "1.4"),
    ("Wen, 4 seeds", "Wen", "1.4, 1.5, 2.0"),
)


def norm(x: np.ndarray) -> np.ndarray:
    """Over a latent: [B, S, C, H, W] to [B, S]."""
    return np.sqrt(np.square(x.astype(np.float64)).sum((2, 3, 4)))


def early(denoiser: Denoiser, prompts: list[str], first: Start) -> dict[str, np.ndarray]:
    """Scores [B] of the first five steps; one seed where the name does not say otherwise."""
    conditioning = denoiser.encode(prompts)
    walk: Iterator = denoise(denoiser, conditioning, first, GUIDANCE_SCALE, NUM_INFERENCE_STEPS)
    steps = [next(walk) for _ in range(5)]
    wen = np.stack([norm(step.eps_cond - step.eps_uncond) for step in steps])  # [5, B, S]
    moved = [norm(after.eps_cond - before.eps_cond) for before, after in pairwise(steps)]
    x_T = np.ascontiguousarray(np.broadcast_to(first.x_T, steps[0].eps_cond.shape))
    eps_uncond = denoiser.eps(first.x_T[None], LOW_NOISE, denoiser.null)
    change = denoiser.eps(x_T, LOW_NOISE, conditioning) - eps_uncond
    along = (change * eps_uncond).sum(2) / (
        np.linalg.norm(change, axis=2) * np.linalg.norm(eps_uncond, axis=2) + 1e-12
    )  # [B, S, H, W]: cosine over channels at each position
    return {
        "Wen": wen[0, :, 0],
        "Wen, 4 seeds": wen[0].mean(1),
        "Wen, 5 steps": wen[:, :, 0].mean(0),
        "Wen, 5 steps, 4 seeds": wen.mean((0, 2)),
        "DSM 0-1": moved[0][:, 0],
        "DSM 1-2": moved[1][:, 0],
        "Asthana's cosine": along.mean((2, 3))[:, 0].astype(np.float64),
    }


def steps_taken(denoiser: Denoiser, prompts: list[str], first: Start) -> np.ndarray:
    """||x_t' - x_t|| of a whole guided run, one seed: float64 [B, steps]."""
    conditioning = denoiser.encode(prompts)
    one = Start(first.x_T[:1], first.eps_uncond[:1])
    x = [step.x_t for step in denoise(denoiser, conditioning, one, GUIDANCE_SCALE, NUM_INFERENCE_STEPS)]
    return np.stack([norm(after - before)[:, 0] for before, after in pairwise(x)], 1)


def in_chunks(prompts: list[str]) -> Iterator[list[str]]:
    return (prompts[i : i + CHUNK] for i in range(0, len(prompts), CHUNK))


def chosen(labels: pl.DataFrame) -> pl.DataFrame:
    """Every memorized prompt, and as many others as are needed, by chance; collapsed ones left out."""
    decided = labels.drop_nulls("label").filter(~pl.col("collapsed"))
    others = decided.filter(~pl.col("label"))
    others = others.sample(min(MOST_NEGATIVES, len(others)), seed=0, shuffle=True)
    return pl.concat([decided.filter("label"), others])


def early_table(denoiser: Denoiser, labels: pl.DataFrame) -> dict[str, Bootstrap]:
    """AUROCs, all on the same prompts and the same bootstrap weights, so that they can be subtracted."""
    first = start(denoiser, SEEDS, NUM_INFERENCE_STEPS)
    parts = [early(denoiser, part, first) for part in in_chunks(labels["prompt"].to_list())]
    scores = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    # a * norm + b * cosine with a : b = 1 : 2 "up to scale": both in standard deviations here
    scaled = (scores[name] / scores[name].std() for name in ("Wen", "Asthana's cosine"))
    scores["Asthana"] = sum(weight * score for weight, score in zip((1, 2), scaled, strict=True))
    weights, memorized = resample(labels["group"].to_numpy()), labels["label"].to_numpy()
    return {name: bootstrap(score, memorized, weights, ())[0] for name, score in scores.items()}


def whole_run(denoiser: Denoiser, labels: pl.DataFrame) -> Bootstrap:
    """Broken Memories: the largest z-score of a step's length, against ordinary prompts that are not scored."""
    first = start(denoiser, SEEDS[:1], NUM_INFERENCE_STEPS)
    memorized, others = labels.filter("label"), labels.filter(~pl.col("label"))
    scored = pl.concat([memorized.sample(min(WHOLE_RUNS, len(memorized)), seed=1), others[:WHOLE_RUNS]])
    reference = others[WHOLE_RUNS : WHOLE_RUNS + REFERENCE_RUNS]["prompt"].to_list()
    usual = np.concatenate([steps_taken(denoiser, part, first) for part in in_chunks(reference)])
    found = np.concatenate([steps_taken(denoiser, part, first) for part in in_chunks(scored["prompt"].to_list())])
    score = ((found - usual.mean(0)) / usual.std(0)).max(1)
    return bootstrap(score, scored["label"].to_numpy(), resample(scored["group"].to_numpy()), ())[0]


def main() -> None:
    """Print every AUROC, and every published pair with the interval of its difference."""
    bundle, path = map(Path, sys.argv[1:])
    denoiser, labels = Denoiser(open_bundle(bundle, "openvino", "auto"), 128), chosen(pl.read_parquet(path))
    print(
        f"{labels['label'].sum()} memorized, {(~labels['label']).sum()} not; AUROC [95 % interval, whole groups drawn]"
    )
    found = early_table(denoiser, labels)
    found["Broken Memories"] = whole_run(denoiser, labels)
    for name, area in found.items():
        low, high = area.interval()
        print(f"{name}: {area.value:.3f} [{low:.3f}, {high:.3f}]")
    for better, worse, model in PAIRS:
        gain = found[better] - found[worse]
        low, high = gain.interval()
        verdict = "as published" if low > 0 else "the other way" if high < 0 else "undecided"
        print(f"{better} > {worse} ({model}): {gain.value:+.3f} [{low:+.3f}, {high:+.3f}], {verdict}")


if __name__ == "__main__":
    main()
