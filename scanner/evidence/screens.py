"""What first passes keep of what all passes find, on labelled prompts: the table that a screen is chosen by."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from scanner.audit.screens import FIRST, SCHEMA, SHARES, USUAL
from scanner.config import ScanConfig
from scanner.diffusion.scores import SCORES, best_score
from scanner.diffusion.start import Watch, unwatched
from scanner.errors import ScannerError
from scanner.evidence.evaluate import COLLAPSED
from scanner.evidence.kept import keeping
from scanner.evidence.metrics import flagged_above, tpr_at_fpr
from scanner.model import Model, Scorer
from scanner.model.stopping import stopping

FPR = 0.01  # of what all passes find
TOLD = {  # in a first pass: timesteps of its configuration, and scores
    FIRST: ((), ("text_noise_norm_v1", "overestimation_prior_v1")),
    USUAL: (None, ("low_noise_norm_v1", "overestimation_prior_v2")),
}
TREATMENTS = ("left out", "negative")  # of collapsed prompts: the worse counts
Floats = NDArray[np.float64]


def measure(
    model: Model,
    smaller: Sequence[Model],
    labels: pl.DataFrame,
    watch: Watch = unwatched,
    stop: Callable[[], bool] = lambda: False,
    folder: Path | None = None,
) -> pl.DataFrame:
    """A row per first pass and share: what it keeps, and what is found after it. As `scores` and `curve` say.

    Beside SCHEMA: `recall`, of all memorized prompts; `found` and `found_by_all`, TPR at 1 % of the others behind the
    screen and without it; `collapsed`: how such prompts count. Raises ScannerError where all passes find nothing.
    """
    full, first_passes = scores(model, smaller, labels["prompt"].to_list(), watch, stop, folder)
    rows = [
        {"side": side, "told": told, "score": name} | row
        for (side, told, name), first in first_passes.items()
        for row in curve(first, full, labels)
    ]
    return pl.DataFrame(rows, schema_overrides=SCHEMA)


def scores(
    model: Model,
    smaller: Sequence[Model],
    prompts: Sequence[str],
    watch: Watch = unwatched,
    stop: Callable[[], bool] = lambda: False,
    folder: Path | None = None,
) -> tuple[Floats, dict[tuple[float, str, str], Floats]]:
    """[n] by all passes, and by each first pass: its side, what is told, its score.

    `model`: with the scan's settings; `smaller`: the same for smaller latents. Interrupted, what is computed is kept
    in `folder`.
    """
    heard = stopping(watch, stop)

    def values(opened: Model, config: ScanConfig, names: Sequence[str]) -> Mapping[str, Floats]:
        scorer = opened.adapted(config=config).scorer(heard)
        of, size = [scorer.scan_id, list(names)], scorer.denoiser.batch_size
        kept = keeping(folder, "screens", of, prompts, size, lambda part: _scores(scorer, names, part), watch, stop)
        return dict(zip(names, kept.T, strict=True))

    found = {}
    for opened in (model, *smaller):
        side = (opened.latent_area / model.latent_area) ** 0.5
        for told, (timesteps, names) in TOLD.items():
            config = replace(model.settled.with_timesteps(timesteps), seeds=model.config.seeds[:1], first_steps=1)
            for name, first in values(opened, config, names).items():
                found[side, told, name] = first
    score = best_score(model.settled, bool(model.reference))
    return values(model, model.settled, [score])[score], found


def curve(first: Floats, full: Floats, labels: pl.DataFrame) -> Iterator[dict[str, object]]:
    """What a first pass keeps, by share of the ordinary prompts and treatment of collapsed ones."""
    for collapsed in TREATMENTS:
        label = labels.select(label=COLLAPSED[collapsed])["label"]
        known, memorized = label.is_not_null().to_numpy(), label.drop_nulls().to_numpy()
        one, all_passes = first[known], full[known]
        found = memorized & (all_passes > flagged_above(all_passes[~memorized], FPR))
        if not found.any():
            raise ScannerError("screens: all passes find none of the memorized prompts at 1 % false alarms")
        for share in SHARES:
            passed = one >= np.quantile(one[~memorized], 1 - share, method="higher")
            behind = np.where(passed, all_passes, all_passes.min() - 1)
            yield {
                "share": share,
                "kept": float(passed[found].mean()),
                "recall": float(passed[memorized].mean()),
                "found": tpr_at_fpr(behind, memorized, FPR),
                "found_by_all": tpr_at_fpr(all_passes, memorized, FPR),
                "collapsed": collapsed,
            }


def lowest(measured: pl.DataFrame) -> pl.DataFrame:
    """SCHEMA: of each first pass and share what it keeps in the worst case, cheapest first."""
    worst = measured.group_by("side", "told", "score", "share").agg(pl.col("kept").min().round(4))
    return worst.select(list(SCHEMA)).sort("side", "share", -pl.col("kept"), "told", "score")


def _scores(scorer: Scorer, names: Sequence[str], prompts: Sequence[str]) -> Floats:
    trace = scorer.trace(scorer.encode(prompts))
    return np.stack([SCORES[name](trace) for name in names], axis=-1).astype(np.float64)
