"""Write docs/errors.md: which captions the default score flags wrongly, and which it misses, by kind, with pictures.

    python -m tools.ground_truth.errors NAME=WORK,KIND ...

WORK, KIND: a work folder of `python -m tools.ground_truth` and v_prediction or epsilon, as in main=build/x,epsilon. The
threshold is the one that flags 1 % of the captions that are neither memorized nor collapsed.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl

from scanner.diffusion.denoiser import Denoiser
from scanner.diffusion.scores import SCORES, best_score
from scanner.evidence.kept import keeping
from scanner.evidence.metrics import flagged_above
from scanner.model import Model

from ..pairs import rewritten
from . import checks, dataset, labels
from .dataset import Dataset
from .grounds import COLOURS
from .realism import told
from .stages import shrunk

DOCS = Path(__file__).parents[2] / "docs"
MARK = "<!-- below: written by python -m tools.ground_truth.errors -->"
FPR = 0.01
NEAR = 0.2  # of the training pictures lie nearest to their mean
ALIKE = 0.8  # correlation of two seeds' pictures
SHOWN = 6  # examples of a kind
BATCH = 256

CLASSES = {  # of all captions
    "memorized": pl.col("label"),
    "collapsed: all seeds give one picture, no copy": pl.col("collapsed"),
    "left out: one or two seeds copy": pl.col("label").is_null(),
    "neither": pl.lit(True),
}
COLLAPSED = {
    "and three seeds copy by the tower": pl.col("tower_label"),
    "of a template": pl.col("role") == "template",
    "of a caption shown twice or more, or reworded": (pl.col("duplicates") > 1) | (pl.col("role") == "edited"),
    "other": pl.lit(True),
}
ALARMS = {  # of captions that are neither memorized nor collapsed
    "a seed or more copies by the tower": pl.col("tower_copied_seeds") > 0,
    f"seeds agree nearly (mean correlation above {ALIKE})": pl.col("cross_seed_similarity") > ALIKE,
    "a reworded caption, a template or of a set": pl.col("role").is_in(["edited", "template", "retrieval"]),
    "names colours": pl.col("colours"),
    "other": pl.lit(True),
}
MISSES = {  # of memorized captions
    f"its picture is among the {NEAR:.0%} nearest to the mean": pl.col("near"),
    "reworded, never shown itself": pl.col("role") == "edited",
    "of a set or a template": pl.col("role").is_in(["retrieval", "template"]),
    "shown fewer than 16 times": pl.col("duplicates") < 16,
    "names colours": pl.col("colours"),
    "other": pl.lit(True),
}


@dataclass(frozen=True)
class Scored:
    """A model with its labelled captions: the labels' columns, `score`, `flagged`, `kind` of CLASSES, `colours`,
    `near`."""

    denoiser: Denoiser
    data: Dataset
    table: pl.DataFrame
    score: str


def kind(kinds: Mapping[str, pl.Expr]) -> pl.Expr:
    """The first of `kinds` that applies, by name."""
    return pl.coalesce(pl.when(expression).then(pl.lit(name)) for name, expression in kinds.items())


def scored(work: Path, prediction: str) -> Scored:
    """The default score of every labelled caption; what is computed is kept in `work`."""
    model = Model(work / f"bundle-{prediction}", "openvino", "float32", batch_size=64)
    table = pl.read_parquet(work / f"labels-{prediction}.parquet")
    score, scorer = best_score(model.settled, reference=False), model.scorer()

    def computed(texts: Sequence[str]) -> np.ndarray:
        return SCORES[score](scorer.trace(scorer.encode(texts))).astype(np.float64)

    prompts = table["prompt"].to_list()
    made_of = [scorer.scan_id, score]
    values = keeping(work / f"errors-{prediction}", "errors", made_of, prompts, BATCH, computed, told, lambda: False)
    data = dataset.build(work, [], np.empty(0))
    data = replace(data, images=shrunk(data.images, model.denoiser.image_size[0]))
    told_colours = r"\b(" + "|".join(COLOURS) + r")\b"
    table = table.with_columns(
        kind(CLASSES).alias("kind"),
        pl.col("prompt").str.to_lowercase().str.contains(told_colours).alias("colours"),
        score=values,
        near=near_mean(data.images)[table["image"].to_numpy()],
    )
    return Scored(model.denoiser, data, table.with_columns(flagged=pl.col("score") > threshold(table)), score)


def threshold(table: pl.DataFrame) -> float:
    """The score above which FPR of the captions lie that are neither memorized nor collapsed."""
    return flagged_above(table.filter(kind="neither")["score"].to_numpy(), FPR)


def near_mean(images: np.ndarray) -> np.ndarray:
    """Whether a picture uint8 [n, 3, h, w] is among the NEAR nearest to the mean of all, [n]."""
    pixels = images.reshape(len(images), -1).astype(np.float32)
    distance = np.linalg.norm(pixels - pixels.mean(0), axis=1)
    return distance <= np.quantile(distance, NEAR)


def counted(table: pl.DataFrame, kinds: Mapping[str, pl.Expr], heads: Sequence[str], wanted: pl.Expr) -> str:
    """Markdown: captions of each kind, and those that are `wanted`, with their share."""
    rows = table.group_by(kind(kinds).alias("of")).agg(pl.len(), wanted.sum().alias("n"))
    by = {row["of"]: row for row in rows.iter_rows(named=True)}
    lines = [f"| {' | '.join(heads)} |", "|---|---|---|---|"]
    lines += [
        f"| {k} | {by[k]['len']:,} | {by[k]['n']:,} | {by[k]['n'] / by[k]['len']:.1%} |" for k in kinds if k in by
    ]
    return "\n".join(lines)


def section(name: str, found: Scored) -> str:
    """Markdown of one model; its pictures are written beside the page."""
    table = found.table
    flagged, missed = pl.col("flagged"), ~pl.col("flagged")
    ordinary, memorized = table.filter(kind="neither"), table.filter("label")
    parts = [
        f"## {name}",
        counted(table, CLASSES, ("captions that are", "all", "flagged", ""), flagged),
        "### Collapsed captions",
        counted(table.filter("collapsed"), COLLAPSED, ("collapsed", "all", "flagged", ""), flagged),
        pictures(found, table.filter("collapsed").sample(SHOWN, seed=0, shuffle=True), f"errors-{name}-collapsed.png"),
        "### False alarms",
        counted(ordinary, ALARMS, ("neither memorized nor collapsed", "all", "flagged", ""), flagged),
        pictures(found, ordinary.sort("score", descending=True).head(SHOWN), f"errors-{name}-alarms.png"),
        "### Misses",
        counted(memorized, MISSES, ("memorized", "all", "missed", ""), missed),
        pictures(found, memorized.sort("score").head(SHOWN), f"errors-{name}-misses.png"),
    ]
    return "\n\n".join(parts)


def pictures(found: Scored, rows: pl.DataFrame, file: str) -> str:
    """Markdown: a picture of the captions of `rows`, a row each, and what they say."""
    prompts, nearest = rows["prompt"].to_list(), rows["image"].to_numpy()
    generated = labels.generate(found.denoiser, prompts, labels.SEEDS, labels.STEPS)
    checks.picture_rows(found.denoiser, found.data.images[nearest], generated, DOCS / file)
    captions = [f'"{row["prompt"]}" ({row["role"]}, shown {row["duplicates"]} times)' for row in rows.to_dicts()]
    return f"![a row each: the nearest training picture, four seeds]({file})\n\nFrom the top: {'; '.join(captions)}."


def main() -> None:
    """Write the page."""
    sections = []
    for asked in sys.argv[1:]:
        name, _, made = asked.partition("=")
        work, _, prediction = made.partition(",")
        sections.append(section(name, scored(Path(work), prediction)))
    page = DOCS / "errors.md"
    page.write_text(rewritten(page.read_text(encoding="utf-8"), MARK, sections), encoding="utf-8")


if __name__ == "__main__":
    main()
