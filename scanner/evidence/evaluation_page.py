"""An evaluation as a page: what the best score finds, the plots, and every table."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
from markupsafe import Markup

from scanner.evidence.evaluate import FPRS
from scanner.pages import links, page, safe

TEMPLATE = Path(__file__).parent / "evaluation.html.j2"
PAGE = "evaluation.html"
CHARACTERS = 200
RATE = 0.01  # of false alarms, that the headline names
Table = tuple[str, list[str], list[list[str]]]


def render(folder: Path, model: str, detection: pl.DataFrame, peers: pl.DataFrame | None, charts: Sequence[str]) -> str:
    """The page. `detection`, `peers`: of the main treatment of collapsed prompts; `charts`: SVG of our own making."""
    best = detection.sort(f"tpr_at_{RATE:g}", "auroc", "score", descending=[True, True, False]).row(0, named=True)
    memorized, others = best["positives"], best["negatives"]
    found = f"{best[f'tpr_at_{RATE:g}']:.0%} of the memorized captions are found at {RATE:.0%} false alarms"
    tables = [_detection(detection), *([] if peers is None else [_peers(peers)])]
    made = f"{datetime.now(UTC):%F}"
    return page.render(
        TEMPLATE, {"style": "evaluation.css"}, f"Overscan evaluation, {made}",
        headline=found, model=safe.visible_text(model, CHARACTERS), made=made, here=PAGE,
        lead=f"By {best['score']} with {_counted(best['seeds'], 'seed')} and {_counted(best['steps'], 'step')}, "
        f"{best['passes']} UNet passes a caption: {memorized:,} captions are memorized, {others:,} are not. It is the "
        "best of those tried on this list, so expect less on another. Intervals are of 95 %, by bootstrap.",
        charts=[Markup(chart) for chart in charts], tables=tables, pages=links.siblings(folder, PAGE),
    )  # fmt: skip


def _counted(n: int, thing: str) -> str:
    return f"{n} {thing}{'' if n == 1 else 's'}"


def _detection(detection: pl.DataFrame) -> Table:
    rows = [
        [row["score"], *(f"{row[name]:,}" for name in ("seeds", "steps", "passes")), *_measured(row)]
        for row in detection.iter_rows(named=True)
    ]
    heads = ["score", "seeds", "steps", "passes", "AUROC", *(f"found at {fpr:.1%} false alarms" for fpr in FPRS)]
    return "Scores", heads, rows


def _peers(peers: pl.DataFrame) -> Table:
    ordered = peers.sort("passes", "auroc").iter_rows(named=True)
    rows = [[row["detector"], f"{row['passes']:,}", *_measured(row)] for row in ordered]
    heads = ["detector", "passes", "AUROC", *(f"found at {fpr:.1%} false alarms" for fpr in FPRS)]
    return "Detectors of the literature, and what the text alone tells", heads, rows


def _measured(row: dict[str, float]) -> list[str]:
    names = ("auroc", *(f"tpr_at_{fpr:g}" for fpr in FPRS))
    return [f"{row[name]:.3f} ({row[f'{name}_low']:.2f}-{row[f'{name}_high']:.2f})" for name in names]
