"""How well candidates tell memorized prompts: one row each, the mean over choices of seeds and its range."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import polars as pl

from scanner.evidence.evaluate import COLLAPSED
from scanner.evidence.metrics import auroc, tpr_at_fpr

TREATMENTS = ("left out", "negative")  # of collapsed prompts
SHARES = (0.01, 0.02, 0.05)  # of the prompts that a first pass hands on


def decided(path: Path) -> pl.DataFrame:
    """The prompts of a table of labels that have one."""
    return pl.read_parquet(path).drop_nulls("label")


def table(candidates: Iterable[tuple[str, float, np.ndarray]], labels: pl.DataFrame) -> pl.DataFrame:
    """A row per candidate (name, price in passes, values [n, choices of seeds]) and treatment of collapsed prompts.

    `recall_at_SHARE`: memorized prompts among so many of the highest; all others: as `overscan evaluate` has them.
    """
    treated = {name: labels.select(label=COLLAPSED[name])["label"] for name in TREATMENTS}
    rows = []
    for name, passes, values in candidates:
        for treatment, label in treated.items():
            kept, told_apart = label.is_not_null().to_numpy(), label.drop_nulls().to_numpy()
            each = [values[kept, i] for i in range(values.shape[1])]
            rates = [tpr_at_fpr(one, told_apart, 0.01) for one in each]
            rows.append(
                {
                    "collapsed": treatment,
                    "score": name,
                    "passes": passes,
                    "auroc": float(np.mean([auroc(one, told_apart) for one in each])),
                    "tpr_at_0.01": float(np.mean(rates)),
                    "lowest": min(rates),
                    "highest": max(rates),
                    "tpr_at_0.001": float(np.mean([tpr_at_fpr(one, told_apart, 0.001) for one in each])),
                    **{
                        f"recall_at_{share}": float(np.mean([recall(v, told_apart, share) for v in each]))
                        for share in SHARES
                    },
                }
            )
    return pl.DataFrame(rows)


def recall(values: np.ndarray, label: np.ndarray, share: float) -> float:
    """The share of memorized prompts that lies among the `share` of ordinary prompts' highest: where nearly all of a
    dataset is ordinary, as many prompts as that are handed on."""
    return float((values[label] >= np.quantile(values[~label], 1 - share)).mean())


def show(found: pl.DataFrame, most: int = 40) -> None:
    """Print the best of each treatment and price, by TPR at 1 %."""
    with pl.Config(tbl_rows=-1, tbl_cols=-1, tbl_width_chars=220, fmt_str_lengths=60):
        for (treatment, passes), part in found.sort("passes").group_by("collapsed", "passes", maintain_order=True):
            print(f"collapsed {treatment}, {passes:g} passes")
            print(part.sort("tpr_at_0.01", descending=True).drop("collapsed", "passes").head(most))
