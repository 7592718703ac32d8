"""An Evaluation as files: a page, Markdown, JSON, parquet and two SVG plots, which appear together."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl

from scanner.evidence import evaluation_page
from scanner.evidence.evaluate import COLLAPSED, COLLAPSED_AT, FPRS, NORM, Evaluation, Setting
from scanner.evidence.evaluation_page import PAGE
from scanner.evidence.kept import FOLDER
from scanner.evidence.metrics import roc
from scanner.evidence.plots import roc_plot, severity_plot
from scanner.evidence.screens import lowest
from scanner.files import replacing_folder

FILES = (
    "detection.md", "detection.json", "roc.svg", "severity.svg", "detection.parquet", "differences.parquet",
    "peers.parquet", "screens.csv", "screens-measured.parquet", PAGE,
)  # fmt: skip
MAIN = "left out"  # the treatment of collapsed prompts whose table comes first
APART = f"collapsed_at_{COLLAPSED_AT:g}"
SHOWN = 5  # curves beside the norm's in the ROC plot
SHOWN_SEEDS = 2


def write(
    out: Path,
    evaluation: Evaluation,
    model: str,
    default: str,
    peers: pl.DataFrame | None = None,
    first_passes: pl.DataFrame | None = None,
) -> list[Path]:
    """Write a page, detection.md, .json and .parquet, differences.parquet, plots; of `peers` peers.parquet; of
    `first_passes`, as `screens.measure` gives them, screens.csv and screens-measured.parquet. Returns the paths.

    `default`: the score that a scan of the model is ranked by, which is drawn against severity.
    """
    tables = {"detection": evaluation.detection.to_dicts(), "differences": evaluation.differences.to_dicts()}
    if peers is not None:
        tables["peers"] = peers.to_dicts()
    contents = {
        "detection.md": markdown(evaluation, peers),
        "detection.json": json.dumps({"model": model} | tables, indent=1) + "\n",
        "roc.svg": _roc(evaluation, model),
    }
    if evaluation.labels["similarity"].null_count() < len(evaluation.labels):
        contents["severity.svg"] = _severity(evaluation, model, default)
    main = _treatments(evaluation)[0]
    drawn = [text for name, text in contents.items() if name.endswith(".svg")]
    theirs = None if peers is None else peers.filter(collapsed=main)
    ours = evaluation.detection.filter(collapsed=main)
    contents[PAGE] = evaluation_page.render(out, model, ours, theirs, drawn)
    frames = {"detection.parquet": evaluation.detection, "differences.parquet": evaluation.differences}
    if peers is not None:
        frames["peers.parquet"] = peers
    if first_passes is not None:
        contents["screens.csv"], frames["screens-measured.parquet"] = lowest(first_passes).write_csv(), first_passes
    with replacing_folder(out, (*FILES, FOLDER).__contains__) as partial:
        for name, text in contents.items():
            (partial / name).write_text(text)
        for name, frame in frames.items():
            frame.write_parquet(partial / name)
    return [out / name for name in (*contents, *frames)]


def markdown(evaluation: Evaluation, peers: pl.DataFrame | None = None) -> str:
    """Tables for each treatment of collapsed prompts, the main one first; differences at equal passes; the `peers`."""
    treatments = _treatments(evaluation)
    parts = []
    for treatment in treatments:
        table = evaluation.detection.filter(collapsed=treatment)
        counts = f"{table['positives'][0]:,} memorized, {table['negatives'][0]:,} not"
        title = f"### Collapsed prompts {treatment}: {counts}" if len(treatments) > 1 else f"### {counts}"
        parts += [title, _detection_table(table)]
    treatment = treatments[0]
    parts += [f"### Difference from `{NORM}` at equal passes", _difference_table(evaluation, treatment)]
    if peers is not None:
        parts += ["### Detectors of the literature, and what the text alone tells", _peer_table(peers, treatment)]
    return "\n\n".join(parts) + "\n"


def _treatments(evaluation: Evaluation) -> list[str]:
    """Of collapsed prompts, the main one first; where none is collapsed, they are all the same."""
    if not evaluation.labels["collapsed"].any():
        return ["negative"]
    return [MAIN, *(name for name in COLLAPSED if name != MAIN)]


def best(table: pl.DataFrame, seeds: int) -> list[str]:
    """Names of first-step scores at so many seeds, best TPR at 1 % FPR first, then by AUROC."""
    at = table.filter(seeds=seeds, steps=1).sort("tpr_at_0.01", "auroc", descending=True)
    return at["score"].to_list()


def _detection_table(table: pl.DataFrame) -> str:
    rows = []
    last = {"pearson": "Pearson", "spearman": "Spearman"}
    if table[APART].count():
        last = {APART: f"collapsed flagged at {COLLAPSED_AT:.1%}"} | last
    for row in table.iter_rows(named=True):
        cells = [f"{row['auroc']:.4f} ({row['auroc_low']:.3f}-{row['auroc_high']:.3f})"]
        for name in (f"tpr_at_{fpr:g}" for fpr in FPRS):
            cells.append(f"{row[name]:.3f} ({row[f'{name}_low']:.2f}-{row[f'{name}_high']:.2f})")
        cells += ["" if row[name] is None else f"{row[name]:.2f}" for name in last]
        rows.append([f"`{row['score']}`", row["seeds"], row["steps"], row["passes"], *cells])
    heads = ["score", "seeds", "steps", "passes", "AUROC", *(f"TPR at {fpr:.1%} FPR" for fpr in FPRS)]
    return _table([*heads, *last.values()], rows)


def _difference_table(evaluation: Evaluation, treatment: str) -> str:
    rows = []
    others = evaluation.differences.filter(pl.col("score") != NORM, collapsed=treatment)
    for row in others.iter_rows(named=True):
        cells = []
        for name in ("auroc", *(f"tpr_at_{fpr:g}" for fpr in FPRS)):
            text = f"{row[name]:+.3f} ({row[f'{name}_low']:+.3f} to {row[f'{name}_high']:+.3f})"
            apart = row[f"{name}_low"] > 0 or row[f"{name}_high"] < 0
            cells.append(f"**{text}**" if apart else text)
        rows.append([f"`{row['score']}`", row["seeds"], row["steps"], row["passes"], *cells])
    return _table(["score", "seeds", "steps", "passes", "AUROC", *(f"TPR at {fpr:.1%} FPR" for fpr in FPRS)], rows)


def _peer_table(peers: pl.DataFrame, treatment: str) -> str:
    rows = []
    for row in peers.filter(collapsed=treatment).sort("passes", "auroc").iter_rows(named=True):
        cells = [f"{row['auroc']:.4f} ({row['auroc_low']:.3f}-{row['auroc_high']:.3f})"]
        rates = [f"tpr_at_{fpr:g}" for fpr in FPRS[1:]]
        cells += [f"{row[name]:.3f} ({row[f'{name}_low']:.2f}-{row[f'{name}_high']:.2f})" for name in rates]
        rate = f"more_{rates[0]}"
        cells.append(f"{row[rate]:+.3f} ({row[f'{rate}_low']:+.2f} to {row[f'{rate}_high']:+.2f})")
        ours = f"`{row['ours']}`, {row['our_seeds']}"
        rows.append([row["detector"], row["passes"], f"{row['positives']:,} / {row['negatives']:,}", *cells, ours])
    heads = ["detector", "passes", "memorized / not", "AUROC", *(f"TPR at {fpr:.1%} FPR" for fpr in FPRS[1:])]
    return _table([*heads, f"ours more at {FPRS[1]:.1%} FPR", "our score, seeds"], rows)


def _table(heads: Sequence[object], rows: Sequence[Sequence[object]]) -> str:
    lines: list[Sequence[object]] = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(str(cell) for cell in line)} |" for line in lines)


def _kept(evaluation: Evaluation) -> tuple[np.ndarray, np.ndarray]:
    label = evaluation.labels.select(label=COLLAPSED[MAIN])["label"]
    return label.is_not_null().to_numpy(), label.drop_nulls().to_numpy()


def _roc(evaluation: Evaluation, model: str) -> str:
    kept, label = _kept(evaluation)
    ranked = best(evaluation.detection.filter(collapsed=MAIN), SHOWN_SEEDS)
    names = [NORM, *[name for name in ranked if name != NORM][:SHOWN]]
    curves = {name: roc(evaluation.scores[Setting(name, SHOWN_SEEDS, 1)][kept], label) for name in names}
    return roc_plot(f"{model}: {SHOWN_SEEDS} seeds, first step", curves, int((~label).sum()))


def _severity(evaluation: Evaluation, model: str, default: str) -> str:
    labels = evaluation.labels
    known = labels["similarity"].is_not_null().to_numpy()
    score = evaluation.scores[Setting(default, SHOWN_SEEDS, 1)]
    memorized = labels["label"].fill_null(False).to_numpy()
    collapsed = labels["collapsed"].to_numpy() & ~memorized
    groups = {"neither": ~memorized & ~collapsed, "collapsed": collapsed, "memorized": memorized}
    shown = {name: chosen[known] for name, chosen in groups.items()}
    title = f"{model}: {default}, {SHOWN_SEEDS} seeds"
    return severity_plot(title, score[known], labels["similarity"].to_numpy()[known], shown)
