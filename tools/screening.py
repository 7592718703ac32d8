"""Measure what first passes keep, and write it down for `overscan scan --screen auto` and for docs/screening.md.

    python -m tools.screening NAME=BUNDLE,SMALLER,LABELS ...

SMALLER: the same checkpoint exported for half the --size. Six passes per labelled prompt, two of them small, by
OpenVINO in float32; interrupted, the same command goes on with what it kept in build/screening. Writes
docs/screening/NAME.csv, of every NAME there is the table, and the lowest of them all where a scan looks it up. Prints
what samples say that a screen keeps, in DRAWS draws, against what it keeps.
"""

import math
import sys
from pathlib import Path

import numpy as np
import polars as pl

from scanner.audit.screened import Kept
from scanner.audit.screens import FIRST, MEASURED, USUAL
from scanner.evidence.labels import read_labels
from scanner.evidence.screens import lowest, measure, scores
from scanner.model import Model
from scanner.scanning.auto import FOUND

from .ground_truth.realism import told

ROOT = Path(__file__).parent.parent
PAGE, TABLES, KEPT = ROOT / "docs/screening.md", ROOT / "docs/screening", ROOT / "build/screening"
MARK = "<!-- below: written by python -m tools.screening -->"
SHOWN = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3)
DRAWS, SAMPLE = 200, 0.4
AUDITED = (  # first passes of which samples are drawn, and shares
    ((1.0, USUAL, "low_noise_norm_v1"), 0.01), ((1.0, FIRST, "overestimation_prior_v1"), 0.02),
    ((1.0, FIRST, "text_noise_norm_v1"), 0.05), ((0.5, USUAL, "low_noise_norm_v1"), 0.05),
)  # fmt: skip
ROUNDED = pl.selectors.float().round(4)


def measured(name: str, bundle: Path, smaller: Path, labels: Path) -> None:
    """Write one model's table."""
    model, half = (Model(path, "openvino", "float32", batch_size=64) for path in (bundle, smaller))
    labelled = read_labels(labels)
    labelled = labelled.filter(labelled["label"].is_not_null())
    found = measure(model, [half], labelled, told, folder=KEPT / name)
    TABLES.mkdir(exist_ok=True)
    found.with_columns(ROUNDED).write_csv(TABLES / f"{name}.csv")
    full, first_passes = scores(model, [half], labelled["prompt"].to_list(), told, folder=KEPT / name)
    print(name, *(audited(first_passes[key], full, share) for key, share in AUDITED), sep="\n")


def audited(first: np.ndarray, full: np.ndarray, share: float) -> str:
    """What samples say that a screen keeps of the highest of the full score, in DRAWS draws, and what it keeps."""
    passed = first >= np.quantile(first, 1 - share)
    truth = float(passed[np.argsort(-full)[: math.ceil(FOUND * len(full))]].mean())
    rng, said = np.random.default_rng(0), list[Kept]()
    for _ in range(DRAWS):
        drawn = rng.choice(len(full), round(SAMPLE * len(full)), replace=False)
        highest = drawn[np.argsort(-full[drawn])[: math.ceil(FOUND * len(drawn))]]
        said.append(Kept(len(highest), int(passed[highest].sum())))
    estimates = np.array([kept.kept / kept.flagged for kept in said])
    inside = np.mean([low <= truth <= high for low, high in (kept.interval for kept in said)])
    return (
        f"share {share:g}: keeps {truth:.3f} of the highest {FOUND:g}; {DRAWS} samples of {said[0].flagged} of them "
        f"say {estimates.mean():.3f} (sd {estimates.std():.3f}); the interval holds the truth in {inside:.3f}"
    )


def page(tables: dict[str, pl.DataFrame]) -> str:
    """Markdown: for each way to count collapsed captions, what each first pass keeps in each model."""
    parts = []
    for treatment, said in (("left out", "left out"), ("negative", "counted as not memorized")):
        parts += [f"## Kept, collapsed captions {said}", _row("first pass", "price", *map("{:g}".format, SHOWN))]
        parts[-1] += "\n" + _row(*["---"] * (len(SHOWN) + 2))
        first = next(iter(tables.values()))
        for side, told_, score in first.select("side", "told", "score").unique(maintain_order=True).iter_rows():
            cells = []
            for share in SHOWN:
                row = {"side": side, "told": told_, "score": score, "share": share, "collapsed": treatment}
                kept = [table.filter(**row)["kept"].item() for table in tables.values()]
                cells.append(" / ".join(f"{value:.3f}".removeprefix("0") for value in kept))
            named = f"`{score}`, told {told_}" + ("" if side == 1 else f", side {side:g}")
            parts[-1] += "\n" + _row(named, f"{side**2:.2g}", *cells)
    return "\n\n".join(parts) + "\n"


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def main(*named: str) -> None:
    """Measure those that are named, and write everything anew from all tables."""
    for one in named:
        name, places = one.split("=", 1)
        bundle, smaller, labels = map(Path, places.split(","))
        measured(name, bundle, smaller, labels)
    tables = {path.stem: pl.read_csv(path, schema_overrides={"told": pl.String}) for path in sorted(TABLES.glob("*"))}
    lowest(pl.concat(tables.values())).write_csv(MEASURED)
    text, _, _ = PAGE.read_text(encoding="utf-8").partition(MARK)
    header = f"{MARK}\n\nIn this order: {', '.join(tables)}.\n\n"
    PAGE.write_text(text + header + page(tables), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
