"""Write docs/screening.md: what screening costs and loses, on labelled prompts.

    python tools/screening.py [NAME=MODEL,LABELS ...]

By default the demo's. Some minutes per model: four UNet passes for each labelled prompt, twice, as the first pass is
also made in int8, fitted to the labelled prompts, then the bootstrap. Needs the int8 extra.
"""

import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl

from engines.export import export
from scanner.config import ScanConfig
from scanner.dataset import captions
from scanner.demo import BUNDLE, LABELS, REFERENCE
from scanner.diffusion.scores import SCORES
from scanner.evidence.evaluate import COLLAPSED
from scanner.evidence.labels import read_labels
from scanner.evidence.metrics import bootstrap, resample
from scanner.fidelity.int8 import export_int8, prompts_of
from scanner.model import Model

SEEDS, CHUNK = 4, 64
SHARES = (0.5, 0.2, 0.1, 0.05, 0.025, 0.02, 0.01)
PAIRS = (  # the score of the first pass, the score that ranks in the end
    ("overestimation_prior_v1", "estimate_ratio_prior_v1"),
    ("overestimation_white_v1", "estimate_ratio_white_v1"),
    ("text_noise_norm_v1", "estimate_ratio_prior_v1"),
)
HEADER = (
    "screen",
    "passes per prompt",
    "memorized that pass",
    "TPR at 1 % FPR",
    "against unscreened (95 %)",
    "at the unscreened threshold",
    "TPR at 0.1 % FPR",
)
PAGE = Path(__file__).parent.parent / "docs/screening.md"
TABLES = "<!-- tables: written by tools/screening.py -->"


def scored(model: Model, prompts: Sequence[str]) -> Mapping[str, np.ndarray]:
    """By the first pass's scores (one seed) and the final ones (all seeds): float64 [n] each."""
    scorer = model.scorer()
    values: dict[str, list[np.ndarray]] = {name: [] for pair in PAIRS for name in pair}
    for i in range(0, len(prompts), CHUNK):
        whole = scorer.trace(scorer.encode(prompts[i : i + CHUNK]))
        one = whole.part(1, 1)
        for name, parts in values.items():
            parts.append(SCORES[name](one if SCORES[name].seeds == 1 else whole))
    return {name: np.concatenate(parts).astype(np.float64) for name, parts in values.items()}


def curve(first: np.ndarray, final: np.ndarray, label: np.ndarray, cluster: np.ndarray) -> Iterator[tuple[str, ...]]:
    """A row of the table per share; the threshold is the quantile of the prompts that are not memorized."""
    weights = resample(cluster)
    unscreened = bootstrap(final, label, weights, (0.01, 0.001))[1:]
    at = np.quantile(final[~label], 0.99, method="higher")  # the unscreened scan's threshold, as a calibration has it
    flagged = final > at
    yield ("none", f"{SEEDS}", "1", f"{unscreened[0].value:.3f}", "", f"{flagged[label].mean():.3f}",
           f"{unscreened[1].value:.3f}")  # fmt: skip
    for share in SHARES:
        passed = first >= np.quantile(first[~label], 1 - share, method="higher")
        screened = bootstrap(np.where(passed, final, final.min() - 1), label, weights, (0.01, 0.001))[1:]
        low, high = (screened[0] - unscreened[0]).interval()
        yield (
            f"{share:g}",
            f"{1 + SEEDS * share:.2f}",
            f"{passed[label].mean():.3f}",
            f"{screened[0].value:.3f}",
            f"{screened[0].value - unscreened[0].value:+.3f} ({low:+.2f} to {high:+.2f})",
            f"{(passed & flagged)[label].mean():.3f}",
            f"{screened[1].value:.3f}",
        )


def tables(name: str, full: Model, int8: Model, labels: pl.DataFrame) -> str:
    """Markdown of one model: a table for each pair of scores and each reading of collapsed prompts."""
    values, cheap = (scored(model, labels["prompt"].to_list()) for model in (full, int8))
    parts = [f"## The {name} model"]
    for collapsed in ("left out", "negative"):
        labelled = labels.select(label=COLLAPSED[collapsed], cluster=pl.col("cluster").rank("dense"))
        kept = labelled["label"].is_not_null().to_numpy()
        label, cluster = labelled["label"].drop_nulls().to_numpy(), labelled["cluster"].to_numpy()[kept]
        parts.append(f"### Collapsed prompts {collapsed}: {label.sum():,} memorized, {(~label).sum():,} not")
        screens = [(f"`{first}`", values[first], final) for first, final in PAIRS]
        screens += [(f"`{first}` in int8", cheap[first], final) for first, final in PAIRS[:2]]
        for first, screening, final in screens:
            lines = [f"| {' | '.join(HEADER)} |", "|---" * len(HEADER) + "|"]
            rows = curve(screening[kept], values[final][kept], label, cluster)
            lines += [f"| {' | '.join(row)} |" for row in rows]
            parts += [f"Screened by {first}, ranked by `{final}`:", "\n".join(lines)]
            print(f"{name}, {collapsed}, {first}", *lines, sep="\n", file=sys.stderr, flush=True)
    return "\n\n".join(parts)


def main(*named: str) -> None:
    """Write the tables of each model."""
    asked = dict(one.split("=", 1) for one in named) or {"v-prediction": f"{BUNDLE},{LABELS}"}
    reference, parts = tuple(captions.reference(REFERENCE)), []

    def report(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory() as folder:
        for name, places in asked.items():
            model, labels = map(Path, places.split(","))
            if (model / "model_index.json").is_file():
                export(model, Path(folder) / name)
                model = Path(folder) / name
            int8 = Path(folder) / f"{name}-int8"
            export_int8(model, int8, prompts_of(str(labels)), report)
            full = Model(model, "cpu", config=ScanConfig(seeds=tuple(range(SEEDS))), reference=reference)
            cheap = replace(full, path=int8, backend="openvino")
            parts.append(tables(name, full, cheap, read_labels(labels)))
    text, _, _ = PAGE.read_text(encoding="utf-8").partition(TABLES)
    PAGE.write_text("\n\n".join([text + TABLES, *parts]) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
