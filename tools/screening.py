"""Measure what first passes keep, and write it down for `overscan scan --screen auto` and for docs/screening.md.

    python -m tools.screening NAME=BUNDLE,SMALLER,LABELS ...

SMALLER: the same checkpoint exported for half the --size. Twenty passes per labelled prompt, half of them small, by
OpenVINO in float32; interrupted, the same command goes on with what it kept in build/screening. Writes
docs/screening/NAME.csv, of every NAME there is the table, and the lowest of them all where a scan looks it up.
"""

import sys
from pathlib import Path

import polars as pl

from scanner.audit.screens import MEASURED
from scanner.evidence.labels import read_labels
from scanner.evidence.screens import lowest, measure
from scanner.model import Model

from .ground_truth.realism import told

ROOT = Path(__file__).parent.parent
PAGE, TABLES, KEPT = ROOT / "docs/screening.md", ROOT / "docs/screening", ROOT / "build/screening"
MARK = "<!-- below: written by python -m tools.screening -->"
SHOWN = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3)
ROUNDED = pl.selectors.float().round(4)


def measured(name: str, bundle: Path, smaller: Path, labels: Path) -> None:
    """Write one model's table."""
    model, half = (Model(path, "openvino", "float32", batch_size=64) for path in (bundle, smaller))
    labelled = read_labels(labels)
    labelled = labelled.filter(labelled["label"].is_not_null())
    found = measure(model, [half], labelled, told, folder=KEPT / name)
    TABLES.mkdir(exist_ok=True)
    found.with_columns(ROUNDED).write_csv(TABLES / f"{name}.csv")


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
