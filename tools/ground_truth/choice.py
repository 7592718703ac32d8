"""Which timestep and score are the default: each by the rule of docs/scores.md, on the models.

    python -m tools.ground_truth.choice NAME=WORK,KIND,TOLD,TOLD,... ...

WORK, KIND: a work folder of `python -m tools.ground_truth` and v_prediction or epsilon; TOLD: a timestep, or first.
Two UNet passes per labelled caption and timestep, by OpenVINO in its own precision; interrupted, the same command goes
on with what it kept in WORK. Writes docs/detection/NAME-choice.csv; `python -m tools.ground_truth.detection` shows it.
"""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from scanner.audit.screens import FIRST
from scanner.config import ScanConfig
from scanner.diffusion.scores import SCORES
from scanner.evidence.evaluate import COLLAPSED
from scanner.evidence.kept import keeping
from scanner.evidence.labels import read_labels
from scanner.evidence.metrics import tpr_at_fpr
from scanner.evidence.screens import TREATMENTS
from scanner.model import Model

from .detection import write
from .realism import told

SEEDS, FPRS = (0, 1), (0.01, 0.001)
OF_FIRST = ("text_noise_norm_v1", "overestimation_prior_v1", "estimate_ratio_prior_v1")
OF_TOLD = ("low_noise_norm_v1", "overestimation_prior_v2", "estimate_ratio_prior_v2")


def shares(values: NDArray[np.float64], labels: pl.DataFrame) -> dict[str, float]:
    """Found at 1 % and 0.1 % false alarms, collapsed captions left out and counted as not memorized, and `mean`."""
    found = {}
    for collapsed in TREATMENTS:
        label = labels.select(label=COLLAPSED[collapsed])["label"]
        known, memorized = label.is_not_null().to_numpy(), label.drop_nulls().to_numpy()
        found |= {f"{collapsed}, {fpr:g}": tpr_at_fpr(values[known], memorized, fpr) for fpr in FPRS}
    return found | {"mean": float(np.mean(list(found.values())))}


def scored(bundle: Path, timesteps: tuple[int, ...], prompts: Sequence[str], folder: Path) -> pl.DataFrame:
    """A column for each score and number of seeds, `SCORE:SEEDS`."""
    names = OF_TOLD if timesteps else OF_FIRST
    asked = [(name, seeds) for name in names for seeds in (1, 2) if SCORES[name].seeds <= seeds]
    config = ScanConfig(seeds=SEEDS, timesteps=timesteps)
    scorer = Model(bundle, "openvino", config=config, batch_size=64).prepare().scorer()

    def computed(part: Sequence[str]) -> NDArray[np.float64]:
        trace = scorer.trace(scorer.encode(part))
        return np.stack([SCORES[name](trace.part(seeds, 1)) for name, seeds in asked], -1).astype(np.float64)

    values = keeping(folder, "choice", [scorer.scan_id, asked], prompts, 64, computed, told, lambda: False)
    return pl.DataFrame({f"{name}:{seeds}": values[:, i] for i, (name, seeds) in enumerate(asked)})


def measure(name: str, work: Path, kind: str, timesteps: Sequence[str]) -> None:
    """Write a model's table."""
    labels = read_labels(work / f"labels-{kind}.parquet")
    labels = labels.filter(labels["label"].is_not_null())
    rows = []
    for at in timesteps:
        asked = () if at == FIRST else (int(at),)
        found = scored(work / f"bundle-{kind}", asked, labels["prompt"].to_list(), work / f"choice-{kind}")
        for column in found.iter_columns():
            score, seeds = column.name.split(":")
            rows.append({"told": at, "score": score, "seeds": int(seeds)} | shares(column.to_numpy(), labels))
    write(pl.DataFrame(rows), name, "choice")


def asked_for(arguments: Sequence[str]) -> Iterator[tuple[str, Path, str, list[str]]]:
    """Name, work folder, kind and timesteps of each NAME=WORK,KIND,TOLD,... of a command line."""
    for argument in arguments:
        name, _, made = argument.partition("=")
        work, kind, *timesteps = made.split(",")
        yield name, Path(work), kind, timesteps


def main() -> None:
    for model in asked_for(sys.argv[1:]):
        measure(*model)


if __name__ == "__main__":
    main()
