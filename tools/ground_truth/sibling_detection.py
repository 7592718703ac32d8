"""Which score works at which step of a model of another family: the table of a sibling.

    python -m tools.ground_truth.sibling_detection NAME=WORK,FAMILY,TOLD,TOLD,... ...

WORK, FAMILY: a work folder and a family of `python -m tools.ground_truth.siblings`; TOLD: a timestep that the model is
told beside the starting noise. Further rows are of the sampler's own path: its first step, and by `change` the norm of
X_c - X_u at the first, second, fourth and eighth step, at one pass per caption and seed for the first and two more for
each further one. By OpenVINO in its own precision; interrupted, the same command goes on with what it kept in WORK.
Writes docs/detection/NAME-sibling.csv.
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
from scanner.evidence.metrics import bootstrap, resample
from scanner.evidence.screens import TREATMENTS
from scanner.evidence.text_alone import features, text_alone
from scanner.model import Model

from .choice import OF_FIRST, SEEDS, asked_for, scored
from .detection import write
from .realism import told

FPRS, STEPS = (0.01, 0.001), (1, 2, 4, 8)
Measured = tuple[str, str, int, int, NDArray[np.float64]]  # what is told, score, seeds, passes, values
OF_PATH = ("overestimation_v1", *OF_FIRST)


def path(bundle: Path, prompts: Sequence[str], folder: Path) -> Iterator[Measured]:
    """Along the sampler's own path."""
    config = ScanConfig(seeds=SEEDS, timesteps=(), first_steps=max(STEPS))
    scorer = Model(bundle, "openvino", config=config, batch_size=64).prepare().scorer()
    asked = [(name, seeds) for name in OF_PATH for seeds in (1, 2) if SCORES[name].seeds <= seeds]

    def computed(part: Sequence[str]) -> NDArray[np.float64]:
        trace = scorer.trace(scorer.encode(part))
        change = np.sqrt(np.square(trace.text_estimate).sum((-3, -2, -1)))  # [K, B, S]
        steps = [change[step - 1, :, :seeds].mean(-1) for step in STEPS for seeds in (1, 2)]
        return np.stack([*steps, *(SCORES[name](trace.part(seeds, 1)) for name, seeds in asked)], -1).astype(np.float64)

    values = keeping(folder, "path", [scorer.scan_id, asked, STEPS], prompts, 32, computed, told, lambda: False)
    columns = [(f"step {step}", "change", seeds, seeds * (2 * step - 1)) for step in STEPS for seeds in (1, 2)]
    columns += [(FIRST, name, seeds, seeds) for name, seeds in asked]
    yield from ((*column, values[:, i]) for i, column in enumerate(columns))


def beside(bundle: Path, timestep: int, prompts: Sequence[str], folder: Path) -> Iterator[Measured]:
    """The same of another timestep beside the starting noise."""
    for column in scored(bundle, (timestep,), prompts, folder).iter_columns():
        score, seeds = column.name.split(":")
        yield str(timestep), score, int(seeds), int(seeds), column.to_numpy()


def control(bundle: Path, labels: pl.DataFrame) -> Iterator[Measured]:
    """What the text alone tells, for no pass; the probe is trained on the labels, groups left out in turn."""
    denoiser, prompts = Model(bundle, "openvino", batch_size=64).denoiser, labels["prompt"].to_list()
    found = np.concatenate([features(denoiser, prompts[i : i + 64]) for i in range(0, len(prompts), 64)])
    scores = text_alone(found, labels["label"].to_numpy(), labels["group"].to_numpy())
    yield from (("text alone", score, 0, 0, values) for score, values in scores.items())


def measure(name: str, work: Path, family: str, timesteps: Sequence[str]) -> None:
    """Write a sibling's table."""
    labels = pl.read_parquet(work / f"labels-{family}.parquet").filter(pl.col("label").is_not_null())
    clusters = labels["group"].rank("dense").to_numpy()
    prompts, folder, bundle = labels["prompt"].to_list(), work / f"sibling-{family}", work / f"bundle-{family}"
    measured = [*control(bundle, labels), *path(bundle, prompts, folder)]
    for at in timesteps:
        measured += beside(bundle, int(at), prompts, folder)
    rows = []
    for collapsed in TREATMENTS:
        label = labels.select(label=COLLAPSED[collapsed])["label"]
        known, memorized = label.is_not_null().to_numpy(), label.drop_nulls().to_numpy()
        weights = resample(clusters[known])
        for at, score, seeds, passes, values in measured:
            if not np.isfinite(values).all():  # of the noise, where it says nothing
                continue
            found = bootstrap(values[known], memorized, weights, FPRS)
            row = {"told": at, "score": score, "seeds": seeds, "passes": passes, "collapsed": collapsed}
            row |= {"positives": int(memorized.sum()), "negatives": int((~memorized).sum())}
            for what, value in zip(("auroc", *(f"tpr_at_{fpr:g}" for fpr in FPRS)), found, strict=True):
                low, high = value.interval()
                row |= {what: value.value, f"{what}_low": low, f"{what}_high": high}
            rows.append(row)
    write(pl.DataFrame(rows), name, "sibling")


def main() -> None:
    for model in asked_for(sys.argv[1:]):
        measure(*model)


if __name__ == "__main__":
    main()
