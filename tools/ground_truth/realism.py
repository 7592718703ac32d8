"""Whether the models are like Stable Diffusion where it decides: the published order of published detectors.

    python -m tools.ground_truth.realism BUNDLE LABELS.parquet [FOLDER]

Looked at before any score of ours is: only a model that passes may choose defaults. Prompts whose seeds collapse
without a copy are left out, as are those without a label. Interrupted, it goes on with what it kept in FOLDER.
"""

import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import polars as pl

from scanner.evidence.compared import measure
from scanner.evidence.metrics import Bootstrap, bootstrap, resample
from scanner.evidence.peers import PEERS
from scanner.model import Model

MOST_NEGATIVES = 1500
PAIRS = (  # better, worse, as published; the models they were published on
    ("Wen, 5 steps", "Wen", "Stable Diffusion 1.4"),
    ("DSM 0-1", "Wen", "1.5"),
    ("DSM 1-2", "DSM 0-1", "1.5"),
    ("Asthana", "Wen", "1.4"),
    ("Wen, 4 seeds", "Wen", "1.4, 1.5, 2.0"),
)


def chosen(labels: pl.DataFrame) -> pl.DataFrame:
    """Every memorized prompt, and as many others as are needed, by chance; collapsed ones left out."""
    decided = labels.drop_nulls("label").filter(~pl.col("collapsed"))
    others = decided.filter(~pl.col("label"))
    others = others.sample(min(MOST_NEGATIVES, len(others)), seed=0, shuffle=True)
    return pl.concat([decided.filter("label"), others]).with_columns(cluster="group")


def areas(found: Mapping[str, np.ndarray], labels: pl.DataFrame) -> dict[str, Bootstrap]:
    """AUROCs, those of the same prompts on the same bootstrap weights, so that they can be subtracted."""
    label, cluster = labels["label"].to_numpy().astype(bool), labels["cluster"].rank("dense").to_numpy()
    kept = {name: np.isfinite(values) for name, values in found.items()}
    return {
        name: bootstrap(values[kept[name]], label[kept[name]], resample(cluster[kept[name]]), ())[0]
        for name, values in found.items()
        if kept[name].any()
    }


def highest(found: Mapping[str, np.ndarray], labels: pl.DataFrame) -> tuple[str, Bootstrap]:
    """The best of the others, on the prompts that Broken Memories ran, and what that has more."""
    ran = np.isfinite(found["Broken Memories"])
    here = areas({name: found[name][ran] for name in PEERS}, labels.filter(pl.Series(ran)))
    best = max((name for name in here if name != "Broken Memories"), key=lambda name: here[name].value)
    return best, here["Broken Memories"] - here[best]


def told(what: str, done: int, total: int) -> None:
    """Progress on one line."""
    print(f"{what}: {done} of {total}", end="\r", file=sys.stderr)


def main() -> None:
    """Print every AUROC, and every published pair with the interval of its difference."""
    bundle, path, *folder = map(Path, sys.argv[1:])
    labels = chosen(pl.read_parquet(path))
    model = Model(bundle, "openvino", "float32", batch_size=64)
    found = measure(
        model, labels, lambda *at: print(*at, end="\r", file=sys.stderr), folder=folder[0] if folder else None
    )
    print(f"{labels['label'].sum()} memorized, {(~labels['label']).sum()} not; AUROC [95 % interval, groups drawn]")
    measured = areas(found, labels)
    for name, area in measured.items():
        low, high = area.interval()
        print(f"{name}: {area.value:.3f} [{low:.3f}, {high:.3f}]")
    best, more = highest(found, labels)
    gains = [(f"{a} > {b} ({model})", measured[a] - measured[b]) for a, b, model in PAIRS]
    for pair, gain in [*gains, (f"Broken Memories > {best} (1.4: highest of all)", more)]:
        low, high = gain.interval()
        verdict = "as published" if low > 0 else "the other way" if high < 0 else "undecided"
        print(f"{pair}: {gain.value:+.3f} [{low:+.3f}, {high:+.3f}], {verdict}")


if __name__ == "__main__":
    main()
