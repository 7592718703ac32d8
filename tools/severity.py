"""Write docs/severity.md: how the paper's whole-trajectory measures, and first-step scores, go with severity.

    python tools/severity.py [--prompts N]  # 80 for the page as it is

D1 and D2 need a full generation, two UNet passes per step and seed; first-step scores one pass per seed. Some minutes
per model.
"""

import argparse
from pathlib import Path

import polars as pl
from detection import MODELS

from scanner.config import ScanConfig
from scanner.evidence.verify import Sampler, Sampling
from scanner.model import Model

DOCS = Path(__file__).parent.parent / "docs"
SEEDS = (2000, 2001)  # neither a scan's nor those that the labels were made with
FIRST_STEP = ("text_noise_norm_v1", "overestimation_prior_v1", "seed_independence_v1", "estimate_ratio_prior_v1")
SEVERITY = "similarity"
PAPER = ("about .92", "about .92", "about .70")  # Pearson with SSCD similarity on SD 1.4, SD 2.1, RealVis
INTRODUCTION = """# Severity

How closely each measure follows the severity of memorization, here the mean similarity of generated images to the
nearest training image ([demo-model.md](demo-model.md)); `python tools/severity.py --prompts N` writes
this page for at most N prompts of each model.

D1 and D2 are the paper's measures over a *whole* trajectory (arXiv 2509.25705): the deviation of w_0 and of w_T from
the schedule, summed over steps, x_0 being the generated latent ([verify.md](verify.md)). They cost 99 times what a
first-step score does. The paper reports Pearson correlations with SSCD similarity of {} on Stable Diffusion 1.4, {} on
2.1 and {} on RealVis, for its own prompts: theirs, not ours, and not comparable in size with the figures below, which
come from small models and a sample in which memorized prompts are half.
"""


def sample(labels: pl.DataFrame, n: int) -> pl.DataFrame:
    """Half memorized prompts, half not, drawn with a fixed seed; as many as there are."""
    halves = [labels.filter(label=kind) for kind in (True, False)]
    return pl.concat([half.sample(min(n // 2, len(half)), seed=0) for half in halves])


def measured(folder: Path, labels: pl.DataFrame) -> pl.DataFrame:
    """[similarity, D1, D2, first-step scores...] of labelled prompts, two seeds each."""
    model, prompts = Model(folder, config=ScanConfig(seeds=SEEDS)), labels["prompt"]
    deviations = Sampler(model.denoiser, Sampling(SEEDS)).deviations(prompts.to_list())
    scorer = model.scorer()
    frame = pl.DataFrame({"prompt_id": prompts, "text": prompts})
    scores = pl.concat([scorer(part) for part in frame.iter_slices(scorer.chunk)]).select(FIRST_STEP)
    return pl.concat([labels.select(SEVERITY), deviations.select("D1", "D2"), scores], how="horizontal")


def table(found: pl.DataFrame) -> str:
    """Markdown: Pearson and Spearman of each measure with severity."""
    lines = ["| measure | UNet passes per prompt | Pearson | Spearman |", "|---|---|---|---|"]
    for name in found.columns[1:]:
        kinds = [found.select(pl.corr(name, SEVERITY, method=method)).item() for method in ("pearson", "spearman")]
        passes = len(SEEDS) * (1 if name in FIRST_STEP else 99)
        lines.append(f"| `{name}` | {passes} | {kinds[0]:.2f} | {kinds[1]:.2f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=300)
    prompts = parser.parse_args().prompts
    parts = [INTRODUCTION.format(*PAPER)]
    for name, (model, path) in MODELS.items():
        labels = sample(pl.read_parquet(path), prompts)
        counts = f"{labels['label'].sum()} memorized prompts, {(~labels['label']).sum()} not"
        parts += [f"## The {name} model: {counts}", table(measured(model, labels))]
        print(f"{name}: done", flush=True)
    (DOCS / "severity.md").write_text("\n\n".join(part.strip() for part in parts) + "\n")


if __name__ == "__main__":
    main()
