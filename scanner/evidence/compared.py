"""The detectors of the literature on a labelled list, beside our scores at no more than their price."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from scanner.config import ScanConfig
from scanner.diffusion.scores import best_score
from scanner.diffusion.start import Watch, unwatched
from scanner.evidence.evaluate import COLLAPSED, FPRS, Scored, Setting, columns
from scanner.evidence.kept import keeping
from scanner.evidence.metrics import bootstrap, resample
from scanner.evidence.peers import PEERS, Shared, asthana, broken_memories
from scanner.evidence.text_alone import features, text_alone
from scanner.model import Model

WHOLE_RUNS, ORDINARY = 200, 50  # prompts of each label that run all steps; others that set the scale of their lengths
Floats = NDArray[np.float64]
Stop = Callable[[], bool]


def measure(
    model: Model, labels: pl.DataFrame, watch: Watch = unwatched, stop: Stop = lambda: False, folder: Path | None = None
) -> dict[str, Floats]:
    """[n] for each detector and for what the text alone tells; NaN where it was not computed.

    `labels`: as `evaluate.read_labels` gives them. Whole runs are made of WHOLE_RUNS prompts of each label, by chance.
    The two that differentiate need float32: a difference of rounded predictions says nothing. `folder`: what is
    computed is kept in it. Once `stop()` is true, the prompts in hand are finished and Interrupted raised. Raises
    ScannerError or EngineError.
    """
    denoiser, prompts = model.denoiser, labels["prompt"].to_list()
    shared = Shared.of(denoiser)
    made_of = model.adapted(config=model.config.with_timesteps(())).scan_id  # whatever a scan tells the network

    def early(part: Sequence[str]) -> Floats:
        found = shared.scores(part)
        return np.stack([found[name] for name in names], axis=-1)

    def kept(what: str, texts: Sequence[str], compute: Callable[[Sequence[str]], Floats]) -> Floats:
        return keeping(folder, what, made_of, texts, denoiser.batch_size, compute, watch, stop)

    names = [name for name in PEERS if name not in ("Asthana", "Broken Memories")]
    found = dict(zip(names, kept("peers", prompts, early).T, strict=True))
    if model.bundle.precision != "float32":
        found |= dict.fromkeys(("Jeon", "Metric 2"), np.full(len(prompts), np.nan))
    found["Asthana"] = asthana(found)
    run, ordinary = _whole_runs(labels)
    usual = kept("ordinary runs", [prompts[i] for i in ordinary], shared.lengths)
    found["Broken Memories"] = np.full(len(prompts), np.nan)
    found["Broken Memories"][run] = broken_memories(
        kept("whole runs", [prompts[i] for i in run], shared.lengths), usual
    )
    known = labels["label"].is_not_null().to_numpy()
    text = kept("text alone", prompts, lambda part: features(denoiser, part))
    told = text_alone(text[known], labels["label"].drop_nulls().to_numpy(), labels["cluster"].to_numpy()[known])
    for name, values in told.items():
        found[name] = np.full(len(prompts), np.nan)
        found[name][known] = values
    return found


def table(
    found: Mapping[str, Floats], ours: Scored, labels: pl.DataFrame, config: ScanConfig, reference: bool
) -> pl.DataFrame:
    """A row per detector and treatment of collapsed prompts: AUROC and TPR with intervals, and what ours has more.

    `ours`: of the same prompts, by a model with `config`, with a `reference` or not; compared is the best score of as
    many seeds as the detector has passes, at most the default's two, on the prompts that the detector was computed for.
    """
    rows = []
    for collapsed, expression in COLLAPSED.items():
        labelled = labels.select(label=expression, cluster=pl.col("cluster").rank("dense"))
        for name, values in found.items():
            kept = labelled["label"].is_not_null().to_numpy() & np.isfinite(values)
            label = labelled["label"].to_numpy()[kept].astype(bool)
            if not kept.any() or label.all() or not label.any():
                continue
            weights = resample(labelled["cluster"].to_numpy()[kept])
            theirs = bootstrap(values[kept], label, weights, FPRS)
            passes = PEERS[name].passes if name in PEERS else 0
            seeds = min(max(passes, 1), 2)
            setting = Setting(best_score(replace(config, seeds=tuple(range(seeds))), reference), seeds, 1)
            against = bootstrap(ours[setting][kept], label, weights, FPRS)
            rows.append(
                {
                    "detector": name,
                    "source": PEERS[name].source if name in PEERS else "text alone",
                    "passes": passes,
                    "collapsed": collapsed,
                    "positives": int(label.sum()),
                    "negatives": int((~label).sum()),
                    "ours": setting.score,
                    "our_seeds": seeds,
                    **columns(theirs),
                    **columns(tuple(a - b for a, b in zip(against, theirs, strict=True)), "more_"),
                }
            )
    return pl.DataFrame(rows)


def _whole_runs(labels: pl.DataFrame) -> tuple[list[int], list[int]]:
    """Places of the prompts whose whole run is scored, and of those that set the scale: none of the scored."""
    places = labels.with_row_index("place").drop_nulls("label").filter(~pl.col("collapsed"))
    shuffled = places.sample(fraction=1, shuffle=True, seed=0)
    memorized, others = (shuffled.filter(pl.col("label") == kind)["place"].to_list() for kind in (True, False))
    ordinary = min(ORDINARY, len(others) // 2)
    scored = sorted([*memorized[:WHOLE_RUNS], *others[ordinary:][:WHOLE_RUNS]])
    return scored, sorted(others[:ordinary])
