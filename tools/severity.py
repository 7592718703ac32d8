"""Write the tables of docs/severity.md: how the paper's quantities, and first-step scores, go with severity.

    python -m tools.severity [--prompts N] NAME=BUNDLE,LABELS ...

LABELS as `tools.ground_truth` writes them, in the folder of its dataset. D1 and D2 need a full generation, 198 UNet
passes per prompt. Interrupted, the same command goes on with what it kept in build/severity.
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl

from scanner.config import ScanConfig, unet_passes
from scanner.diffusion.injection import discrepancy, injection
from scanner.diffusion.scores import DEFAULT_SCORE, SCORES
from scanner.diffusion.start import predict_prior, start
from scanner.diffusion.trace import denoise, trace
from scanner.evidence.decomposition import cosine, decompose, deviation, latent_norm, loss
from scanner.evidence.kept import keeping
from scanner.evidence.metrics import Bootstrap, resample
from scanner.model import Model

from .pairs import Labelled, rewritten, told

ROOT = Path(__file__).parent.parent
PAGE, KEPT = ROOT / "docs/severity.md", ROOT / "build/severity"
SEEDS = (2000, 2001)  # neither a scan's nor those that the labels were made with
STEPS, GUIDANCE_SCALE = 50, 7.5
WHOLE, FIRST = unet_passes(len(SEEDS), STEPS), unet_passes(len(SEEDS), 1)
SCORED = ("estimate_ratio_prior_v1", "overestimation_prior_v1", "text_noise_norm_v1")
BRANCHES = ("guided", "prompt", "empty prompt")
GROUPS = {  # what is known, passes: measures
    ("the prompt alone", WHOLE): ("D1", "D2"),
    ("the prompt alone", FIRST): (DEFAULT_SCORE, *SCORED),
    ("x", WHOLE): ("D1, x_0 = x", "D2, x_0 = x", "distance along the path, guided", "distance along the path, prompt"),
    ("x", FIRST): (
        "injection, prior", "injection cosine, prior", "E_rel", "r_perp", "distance, guided", "distance, prompt",
        "cosine of eps and x, guided",
    ),
    ("another prompt's x, for control", WHOLE): ("D1, x_0 = other x",),
    ("another prompt's x, for control", FIRST): (
        "injection cosine, prior, other x", "E_rel, other x", "distance, guided, other x", "distance, prompt, other x"
    ),
    ("no model, for control", 0): ("words of the caption", "length of x less the mean"),
}  # fmt: skip
MARK = "<!-- Below: written by tools/severity.py. -->"
STORY = ("distance", "distance along the path", "cosine of eps and x", "cosine of eps and x_T")
STORY_TITLE = """**Overshooting.** *Distance* of the clean estimate from x at the first step, the root of the loss,
RMS per latent element; *along the path*: its mean over all steps. The cosines are the first step's."""


def sample(labels: pl.DataFrame, n: int) -> pl.DataFrame:
    """Half memorized prompts, half not, in turn, by chance: the first of more are those of fewer."""
    decided = labels.drop_nulls("label").sample(fraction=1, shuffle=True, seed=0)
    turn = pl.int_range(pl.len()).over("label")
    return (
        decided.with_columns(turn=turn).filter(pl.col("turn") < n // 2).sort("turn", "label", descending=[False, True])
    )


class Paths:
    """Whole paths of prompts, in numbers, against a training image x of each and another prompt's."""

    def __init__(self, model: Model):
        self.denoiser = denoiser = model.denoiser
        self.prior = predict_prior(denoiser, STEPS)
        self.start = replace(start(denoiser, SEEDS, STEPS), prior=self.prior)
        self.usual = start(denoiser, SEEDS, STEPS, model.settled.told)
        timesteps = denoiser.schedule.timesteps(STEPS)
        self.rates = (denoiser.schedule.signal_rate[timesteps], denoiser.schedule.noise_rate[timesteps])

    def of(self, prompts: Sequence[str], x: np.ndarray, other: np.ndarray) -> dict[str, np.ndarray]:
        """[B] each, means over seeds; `x`, `other`: latents [B, C, H, W]."""
        conditioning, near = self.denoiser.encode(prompts), x[:, None]
        first = trace(self.denoiser, conditioning, self.start, GUIDANCE_SCALE, STEPS, 1)
        usual = trace(self.denoiser, conditioning, self.usual, GUIDANCE_SCALE, STEPS, 1)
        found = {name: np.asarray(SCORES[name](first), np.float64) for name in SCORED}
        found[DEFAULT_SCORE] = np.asarray(SCORES[DEFAULT_SCORE](usual), np.float64)
        for words, image in (("", x), (", other x", other)):
            held = injection(first.hat.x0[0], image, self.prior.mean, self.prior.covariance)
            own = np.arange(len(x))
            found["injection, prior" + words] = held.coefficient[own, :, own].mean(1)
            found["injection cosine, prior" + words] = held.cosine[own, :, own].mean(1)
            off = discrepancy(first.text_estimate[0], image[:, None], self.prior.mean)
            found |= {"E_rel" + words: off.E_rel.mean(1), "r_perp" + words: off.r_perp.mean(1)}
        found["length of x less the mean"] = latent_norm(x - self.prior.mean)
        found["words of the caption"] = np.array([len(prompt.split()) for prompt in prompts], np.float64)
        for branch, of in (("guided", first.hat), ("prompt", first.cond)):
            found[f"distance, {branch}, other x"] = np.sqrt(loss(of.x0[0], other[:, None])).mean(1)
        path, distances = [], []
        for step in denoise(self.denoiser, conditioning, self.start, GUIDANCE_SCALE, STEPS):
            path.append(step.x_t)
            if step.timestep >= 0:
                hat = self.denoiser.schedule.guided(step.x_t, step.cond, step.uncond, GUIDANCE_SCALE, step.timestep)
                distances.append([np.sqrt(loss(of.x0, near)).mean(1) for of in (hat, step.cond, step.uncond)])
        x_t = np.stack(path)  # [K + 1, B, S, C, H, W]
        for words, image in (("", x_t[-1]), (", x_0 = x", near), (", x_0 = other x", other[:, None])):
            D1, D2 = deviation(decompose(x_t[:-1], image, self.start.x_T), *self.rates)
            found |= {"D1" + words: D1, "D2" + words: D2}
        for i, branch in enumerate(BRANCHES):
            of = (first.hat, first.cond, first.uncond)[i]
            found[f"distance, {branch}"] = distances[0][i]
            found[f"distance along the path, {branch}"] = np.mean([at[i] for at in distances], axis=0)
            found[f"cosine of eps and x, {branch}"] = cosine(of.eps[0], near).mean(1)
            found[f"cosine of eps and x_T, {branch}"] = cosine(of.eps[0], self.start.x_T).mean(1)
        return found


def measured(labelled: Labelled, labels: pl.DataFrame, model: Model) -> pl.DataFrame:
    """The labels with all measures beside them."""
    paths, prompts = Paths(model), labels["prompt"].to_list()
    x = labelled.latents(model.denoiser, labels["nearest"].to_numpy())
    other = np.roll(x, 1, axis=0)
    place = {prompt: i for i, prompt in enumerate(prompts)}
    names = list(paths.of(prompts[:1], x[:1], other[:1]))

    def computed(part: Sequence[str]) -> np.ndarray:
        at = [place[prompt] for prompt in part]
        return np.stack(list(paths.of(part, x[at], other[at]).values()), axis=1)

    made_of = [model.scan_id, names, labels["nearest"].to_list()]
    values = keeping(KEPT, "paths", made_of, prompts, 64, computed, told, lambda: False)
    return labels.with_columns(pl.Series(name, values[:, i]) for i, name in enumerate(names))


def pearson(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted correlations [R] of x, y [n] under weights [R, n]."""
    share = weights / weights.sum(1, keepdims=True)
    dx, dy = x - share @ x[:, None], y - share @ y[:, None]
    return (share * dx * dy).sum(1) / np.sqrt((share * dx**2).sum(1) * (share * dy**2).sum(1))


def ranks(values: np.ndarray) -> np.ndarray:
    return pl.Series(values).rank().to_numpy()


def correlations(found: pl.DataFrame, name: str) -> tuple[Bootstrap, Bootstrap]:
    """Pearson and Spearman of a measure with severity; ranks are those of the whole sample."""
    weights = resample(found["group"].to_numpy())
    pair = found[name].to_numpy(), found["similarity"].to_numpy()
    both = []
    for x, y in (pair, tuple(map(ranks, pair))):
        both.append(Bootstrap(float(pearson(x, y, np.ones((1, len(x))))[0]), pearson(x, y, weights)))
    return both[0], both[1]


def table(found: pl.DataFrame) -> str:
    """Markdown: correlations of each measure with severity."""
    lines = ["| knowing | measure | UNet passes | Pearson | Spearman | within memorized; others |", "|---" * 6 + "|"]
    for (known, passes), names in GROUPS.items():
        for name in names:
            cells = []
            for of in correlations(found, name):
                low, high = of.interval()
                cells.append(f"{of.value:.2f} ({low:.2f} to {high:.2f})")
            kinds = [found.filter(pl.col("label") == kind) for kind in (True, False)]
            within = "; ".join(f"{correlations(kind, name)[1].value:.2f}" for kind in kinds)
            word = f"`{name}`" if name in SCORES else name
            lines.append(f"| {known} | {word} | {passes} | {' | '.join(cells)} | {within} |")
    return "\n".join(lines)


def story(found: pl.DataFrame) -> str:
    """Markdown: medians of what the predictions hold of x, memorized prompts beside the others."""
    lines = [f"| median, memorized; not | {' | '.join(BRANCHES)} |", "|---" * 4 + "|"]
    for quantity in STORY:
        cells = []
        for branch in BRANCHES:
            kinds = [found.filter(pl.col("label") == kind)[f"{quantity}, {branch}"].median() for kind in (True, False)]
            cells.append("; ".join(f"{value:.2f}" for value in kinds))
        lines.append(f"| {quantity} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", type=Labelled.parse, metavar="NAME=BUNDLE,LABELS")
    parser.add_argument("--prompts", type=int, default=300, help="of each model, half of them memorized")
    parser.add_argument("--precision", default="auto", help="of OpenVINO")
    arguments = parser.parse_args()
    sections = []
    for labelled in arguments.models:
        labels = sample(labelled.prompts(), arguments.prompts)
        model = Model(labelled.bundle, "openvino", arguments.precision, ScanConfig(seeds=SEEDS), batch_size=64)
        found = measured(labelled, labels, model)
        memorized = int(labels["label"].sum())
        parts = [
            f"## The {labelled.name} model: {memorized} memorized prompts, {len(labels) - memorized} not",
            f"OpenVINO in {model.bundle.precision}.",
            table(found),
            STORY_TITLE,
            story(found),
        ]
        sections.append("\n\n".join(part.strip() for part in parts))
    PAGE.write_text(rewritten(PAGE.read_text(encoding="utf-8"), MARK, sections), encoding="utf-8")


if __name__ == "__main__":
    main()
