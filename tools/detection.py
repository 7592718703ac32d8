"""Write docs/detection.md and its plots: every score on the labelled prompts of both shipped models.

    python tools/detection.py

Some minutes per model: 26 UNet passes for each labelled prompt, then the bootstrap.
"""

import sys
from pathlib import Path

import polars as pl
from reference_size import concept, table

from engines import open_bundle
from scanner.dataset import captions
from scanner.diffusion.denoiser import Denoiser
from scanner.evidence import detection_report
from scanner.evidence.evaluate import COLLAPSED, Evaluation, Setting, evaluate, read_labels, score
from scanner.evidence.metrics import auroc, tpr_at_fpr

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
REFERENCE = ROOT / "scanner/demo/reference.txt"
MODELS = {  # name: model, labels
    "v-prediction": (ROOT / "scanner/demo/bundle", ROOT / "scanner/demo/labels.parquet"),
    "epsilon": (ROOT / "tests/checkpoints/demo-epsilon", ROOT / "tests/checkpoints/labels-epsilon.parquet"),
}
INTRODUCTION = """# Detection

How well each score tells memorized prompts, measured by `overscan evaluate` on the two small models that come with the
source; `python tools/detection.py` writes this page.

**What these figures are not.** No public Stable Diffusion checkpoint was in reach: everything below is measured on
small latent diffusion models trained on captioned emoji artwork, with 256 latent elements where Stable Diffusion
has 16,384. Which score is best may differ there. Measure on your model, with your labels, before you rely on one.

**What is measured.** Whether a prompt is memorized was found by generating images in full (four seeds, 50 steps,
guidance scale 7.5; none of them a scan's seed): *memorized* where at least three of four seeds reproduce one
training image, *not* where none does, left out between. Prompts whose seeds all give one image that is no copy
(*collapsed*) are counted in three ways: left out, as not memorized, as memorized. Intervals: 95 % bootstrap over
concepts (captions that show the same thing are drawn together), 1,000 replicates. Differences are paired, against
the literature's score with as many UNet passes as the other score spends (at most eight); those whose interval
excludes zero are in bold. With some thousand prompts that are not memorized, TPR at 0.1 % FPR rests on two or three
false positives. Pearson and Spearman: with the similarity of the generated images to the nearest training image.

**Published, not ours.** AUC and TPR at 1 % FPR with one seed at the first step: Wen et al. (ICLR 2024), whom
`text_noise_norm_v1` equals, .976 / .896 on SD 1.4, .948 / .739 on SD 2.0; Asthana et al. (ICLR 2026) .994 / .935
and .953 / .791 for twice to four times the passes; all against 500 negatives.
"""
FORM_TITLE = """### By what the caption says of the background

AUROC / TPR at 1 % FPR, two seeds, collapsed left out. A caption that names colours moves the estimate of most pixels
as far as a memorized one does: the plain norm, which tells memorized captions well where no background is named, is at
a loss."""
FORMS = {  # of captions: what they say of the background
    'nothing ("hot dog")': ~pl.col("prompt").str.contains(" on "),
    'one colour ("hot dog on teal")': pl.col("prompt").str.contains(r" on \w+$"),
    'two colours ("hot dog on red and white")': pl.col("prompt").str.contains(r" on \w+ and \w+$"),
}


def by_form(found: Evaluation) -> str:
    """Markdown: AUROC / TPR at 1 % FPR of the first-step scores at two seeds, for each form of caption apart."""
    kept = found.labels.with_columns(label=COLLAPSED["left out"], row=pl.int_range(pl.len())).drop_nulls("label")
    groups = {form: kept.filter(expression) for form, expression in FORMS.items()}
    lines = ["| score | " + " | ".join(groups) + " |", "|---" * (1 + len(groups)) + "|"]
    for setting, values in found.scores.items():
        if setting == Setting(setting.score, 2, 1) and not pl.Series(values).is_nan().any():
            pairs = [(values[group["row"].to_numpy()], group["label"].to_numpy()) for group in groups.values()]
            cells = [f"{auroc(*pair):.4f} / {tpr_at_fpr(*pair, 0.01):.3f}" for pair in pairs]
            lines.append(f"| `{setting.score}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    DOCS.mkdir(exist_ok=True)
    parts = [INTRODUCTION]
    reference = captions.reference(REFERENCE)
    for name, (model, path) in MODELS.items():
        labels = read_labels(path).with_columns(cluster=concept(pl.col("prompt")))
        bundle = open_bundle(model)
        scores = score(bundle, labels["prompt"].to_list(), reference, 128)
        found = evaluate(scores, labels)
        detection_report.write(ROOT / "build/detection" / name, found, name)
        plots = []
        for plot in ("roc", "severity"):
            svg = (ROOT / "build/detection" / name / f"{plot}.svg").read_text()
            (DOCS / f"detection-{name}-{plot}.svg").write_text(svg)
            plots.append(f"![{plot}](detection-{name}-{plot}.svg)")
        sizes = table(labels, reference, Denoiser(bundle))
        parts += [
            f"## The {name} model",
            "\n".join(plots),
            FORM_TITLE,
            by_form(found),
            detection_report.markdown(found),
        ]
        parts += ["### How many reference captions", "AUROC / TPR at 1 % FPR, two seeds, collapsed left out.", sizes]
        print(f"{name}: done", file=sys.stderr)
    (DOCS / "detection.md").write_text("\n\n".join(part.strip() for part in parts) + "\n")


if __name__ == "__main__":
    main()
