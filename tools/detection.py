"""Write docs/detection.md and its plots: every score on the labelled prompts of both shipped models.

    python tools/detection.py

Some minutes per model: 26 UNet passes for each labelled prompt, then the bootstrap. For models of another seed, on
which nothing was chosen, docs/detection-confirmation.md:

    python tools/train_demo_model.py --seed 7 --out build/confirmation --work build/confirmation-work
    python tools/detection.py --confirmation build/confirmation
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import demo_reference
import polars as pl
from reference_size import concept, table

from scanner.dataset import captions
from scanner.evidence import evaluated
from scanner.evidence.evaluate import COLLAPSED, NORM, Evaluation, Setting, evaluate, score
from scanner.evidence.labels import read_labels
from scanner.evidence.metrics import Bootstrap, auroc, bootstrap, resample, tpr_at_fpr
from scanner.model import Model

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
SMALL = ROOT / "tests/small"
REFERENCE = SMALL / "reference.txt"
KINDS = {"v-prediction": "v_prediction", "epsilon": "epsilon"}  # as the page calls them, and the files
MODELS = {  # name: model, labels
    "v-prediction": (SMALL / "bundle", SMALL / "labels.parquet"),
    "epsilon": (SMALL / "epsilon", SMALL / "labels-epsilon.parquet"),
}
CHOSEN = {  # settled on the shipped models, before the confirmation models were trained: seeds, and so passes
    "overestimation_prior_v1": 1,
    "overestimation_white_v1": 1,
    "estimate_ratio_prior_v1": 2,
    "estimate_ratio_white_v1": 2,
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
CONFIRMATION = """# Detection, confirmed on models that nothing was chosen on

Two more models, trained by `python tools/train_demo_model.py --seed 7 --out build/confirmation` with other captions,
other images, another split and other initial weights than the shipped ones, after the scores and the default had been
settled. They are not shipped; `python tools/detection.py --confirmation build/confirmation` writes this page. Same kind
of data, architecture and size: this confirms the choice between scores, not its transfer to large models. How to read
the tables, and how prompts are labelled: [detection.md](detection.md).
"""
MISSES_TITLE = """### The scores that were chosen, against the norm at equal passes

Difference in TPR, and the share of the norm's misses that are gone; collapsed left out, 95 % bootstrap over concepts.
One seed is one UNet pass per prompt, two seeds are two. Without a background in the caption the norm is at its best."""
FORM_TITLE = """### By what the caption says of the background

AUROC / TPR at 1 % FPR, two seeds, collapsed left out. A caption that names colours moves the estimate of most pixels
as far as a memorized one does: the plain norm, which tells memorized captions well where no background is named, is at
a loss."""
RATES = (0.01, 0.001)
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


def misses_gone(found: Evaluation) -> str:
    """Markdown: what the chosen scores gain on the norm at equal passes, over all captions and without background."""
    kept = found.labels.with_columns(label=COLLAPSED["left out"], row=pl.int_range(pl.len())).drop_nulls("label")
    groups = {"all": kept, "without a background": kept.filter(next(iter(FORMS.values())))}
    heads = ["score", "passes", "captions", "FPR", "norm's TPR", "TPR", "difference", "misses gone"]
    lines = [heads, ["---"] * len(heads)]
    for name, seeds in CHOSEN.items():
        for words, group in groups.items():
            rows, label = group["row"].to_numpy(), group["label"].to_numpy()
            weights = resample(group["cluster"].rank("dense").to_numpy())
            ours, theirs = (
                bootstrap(found.scores[Setting(score_name, seeds, 1)][rows], label, weights, RATES)[1:]
                for score_name in (name, NORM)
            )
            for fpr, mine, norm in zip(RATES, ours, theirs, strict=True):
                gain = mine - norm
                low, high = gain.interval()
                gone = Bootstrap(gain.value / (1 - norm.value), gain.replicates / (1 - norm.replicates))
                least, most = gone.interval()
                cells = [f"{norm.value:.3f}", f"{mine.value:.3f}", f"{gain.value:+.3f} ({low:+.3f} to {high:+.3f})"]
                shares = f"{gone.value:.0%} ({least:.0%} to {most:.0%})"
                lines.append([f"`{name}`", str(seeds), words, f"{fpr:.1%}", *cells, shares])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


@dataclass(frozen=True)
class Page:
    """A page of docs: its models with their labels, and the ordinary captions that each is compared with."""

    stem: str
    introduction: str
    models: Mapping[str, tuple[Path, Path]]
    reference: Mapping[str, Sequence[str]]


def shipped() -> Page:
    """The models that come with the source."""
    return Page("detection", INTRODUCTION, MODELS, dict.fromkeys(MODELS, captions.reference(REFERENCE)))


def confirmation(folder: Path) -> Page:
    """Models of another seed, with ordinary captions drawn as the demo's are."""
    models = {name: (folder / f"bundle-{kind}", folder / f"labels-{kind}.parquet") for name, kind in KINDS.items()}
    known = pl.concat([pl.read_parquet(labels).select("prompt") for _, labels in models.values()])["prompt"].to_list()
    ordinary = demo_reference.captions(known, demo_reference.CAPTIONS)
    return Page("detection-confirmation", CONFIRMATION, models, dict.fromkeys(models, ordinary))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--confirmation", type=Path, help="folder of models of another seed")
    folder = parser.parse_args().confirmation
    write(shipped() if folder is None else confirmation(folder))


def write(page: Page) -> None:
    """Evaluate the models of a page and write it, with its plots."""
    DOCS.mkdir(exist_ok=True)
    parts = [page.introduction]
    for name, (model, path) in page.models.items():
        reference = page.reference[name]
        labels = read_labels(path).with_columns(cluster=concept(pl.col("prompt")))
        opened = Model(model, reference=tuple(reference), batch_size=128)
        scores = score(opened, labels["prompt"].to_list())
        found = evaluate(scores, labels)
        evaluated.write(ROOT / "build" / page.stem / name, found, name)
        plots = []
        for plot in ("roc", "severity"):
            svg = (ROOT / "build" / page.stem / name / f"{plot}.svg").read_text(encoding="utf-8")
            (DOCS / f"{page.stem}-{name}-{plot}.svg").write_text(svg)
            plots.append(f"![{plot}]({page.stem}-{name}-{plot}.svg)")
        sizes = table(labels, reference, opened.denoiser)
        parts += [
            f"## The {name} model",
            "\n".join(plots),
            MISSES_TITLE,
            misses_gone(found),
            FORM_TITLE,
            by_form(found),
            evaluated.markdown(found),
        ]
        parts += ["### How many reference captions", "AUROC / TPR at 1 % FPR, two seeds, collapsed left out.", sizes]
        print(f"{name}: done", file=sys.stderr)
    (DOCS / f"{page.stem}.md").write_text("\n\n".join(part.strip() for part in parts) + "\n")


if __name__ == "__main__":
    main()
