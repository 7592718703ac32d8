"""How well each score separates memorized prompts from others, at what cost: a labelled list in, tables out."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from scanner.config import ScanConfig, unet_passes
from scanner.diffusion.scores import SCORES, possible_scores
from scanner.diffusion.start import Watch, unwatched
from scanner.errors import ScannerError
from scanner.evidence.kept import keeping
from scanner.evidence.metrics import Bootstrap, also_flagged, bootstrap, resample
from scanner.model import Model, Scorer
from scanner.model.stopping import stopping

SEEDS, STEPS, STEP_SEEDS = (1, 2, 4, 8), (2, 3, 5), (1, 2)
WIDE = ScanConfig(seeds=tuple(range(max(SEEDS))), timesteps=())
DEEP = ScanConfig(seeds=tuple(range(max(STEP_SEEDS))), first_steps=max(STEPS), timesteps=())
FPRS = (0.05, 0.01, 0.001)
NORM = "text_noise_norm_v1"  # the literature's first-step score: all others are compared with it at equal passes

COLLAPSED_AT = 0.01  # of the others are flagged, where collapsed prompts are a class of their own
COLLAPSED: Mapping[str, pl.Expr] = {  # what to do with prompts whose seeds all give one image that is no copy
    "negative": pl.col("label"),
    "left out": pl.when(~pl.col("collapsed")).then(pl.col("label")),
    "positive": pl.col("label") | pl.col("collapsed"),
}


class Setting(NamedTuple):
    """A score of so many seeds and first steps."""

    score: str
    seeds: int
    steps: int

    @property
    def passes(self) -> int:
        """UNet passes per prompt."""
        by = SCORES[self.score]
        return unet_passes(self.seeds, self.steps) + self.seeds * (max(0, by.told - 1) + (by.needs == "base"))


Scored = dict[Setting, NDArray[np.float64]]  # [n] each, in the order of the labels


@dataclass(frozen=True)
class Evaluation:
    """`detection`: a row per setting and treatment of collapsed prompts; `differences`: a row per setting, against
    the norm at equal passes; `labels`: the labelled prompts; `scores`: the values behind it all."""

    detection: pl.DataFrame
    differences: pl.DataFrame
    labels: pl.DataFrame
    scores: Scored


def settings() -> list[Setting]:
    """First-step scores for each number of seeds; scores of more steps for each number of steps that they look at."""
    found = []
    for name, row in SCORES.items():
        steps = [K for K in STEPS if row.steps <= K] if row.every_step else [row.steps]
        seeds = SEEDS if row.steps == 1 else STEP_SEEDS
        found += [Setting(name, n, K) for n in seeds for K in steps if n >= row.seeds]
    return found


def score(
    model: Model,
    prompts: Sequence[str],
    watch: Watch = unwatched,
    stop: Callable[[], bool] = lambda: False,
    folder: Path | None = None,
    asked: Sequence[Setting] | None = None,
) -> Scored:
    """Every setting, or those that are `asked`, from two traces per prompt: most seeds of one step, few of most steps.

    `model`: with or without a reference or a base; of its settings only the timesteps matter: where it names some, or
    some are usual for it, a third trace is of these, and so are the scores that are not of the sampler's own first.
    `folder`: of the results; what is computed is kept in it, and not computed again. Once `stop()` is true, the prompts
    in hand are finished and Interrupted raised.
    """
    whole = replace(WIDE, first_steps=max(STEPS), timesteps=model.settled.timesteps)
    able = possible_scores(whole, bool(model.reference), model.base is not None)
    wanted = [setting for setting in (settings() if asked is None else asked) if setting.score in able]
    seeds = max(setting.seeds for setting in wanted)
    norms = [Setting(NORM, n, 1) for n in range(1, seeds + 1)]  # for any number of passes
    wanted += [setting for setting in norms if setting not in wanted]
    scorers = _scorers(model, seeds, any(setting.steps > 1 for setting in wanted), stopping(watch, stop))
    made_of = {"scan_ids": [scorer.scan_id for scorer in scorers.values()], "settings": wanted}
    size = scorers["wide"].denoiser.batch_size

    def computed(part: Sequence[str]) -> NDArray[np.float64]:
        return _values(scorers, part, wanted)

    values = keeping(folder, "evaluate", made_of, prompts, size, computed, watch, stop)
    return dict(zip(wanted, values.T, strict=True))


def _scorers(model: Model, seeds: int, deep: bool, watch: Watch) -> dict[str, Scorer]:
    """`wide`, of so many seeds, `deep`, of most steps, and `told`, where timesteps are: a base is compared at the
    noisiest."""
    told, base = model.settled.told, model.base
    wide = model.adapted(config=replace(WIDE, seeds=WIDE.seeds[:seeds]), base=None if told else base).prepare(watch)
    found = {"wide": wide.scorer()}
    if deep:
        found["deep"] = wide.adapted(config=DEEP, base=None).scorer(watch)
    if told:
        found["told"] = wide.adapted(config=wide.config.with_timesteps(told), base=base).scorer(watch)
    return found


def _values(scorers: Mapping[str, Scorer], prompts: Sequence[str], wanted: Sequence[Setting]) -> NDArray[np.float64]:
    """The prompts' scores of each setting, [B, settings]."""
    encoder = next((scorer for scorer in scorers.values() if scorer.base is not None), scorers["wide"])  # at most one
    encoded = encoder.encode(prompts)
    traces = {name: scorer.trace(encoded) for name, scorer in scorers.items()}
    values = []
    for setting in wanted:
        by = SCORES[setting.score]
        first = traces["wide"] if by.sampled else traces.get("told", traces["wide"])
        values.append(by((traces["deep"] if setting.steps > 1 else first).part(setting.seeds, setting.steps)))
    return np.stack(values, axis=-1).astype(np.float64)


def evaluate(scores: Scored, labels: pl.DataFrame) -> Evaluation:
    """Tables of detection and of differences from the norm at equal passes, with intervals by cluster.

    Where collapsed prompts are left out, `collapsed_at_0.01` is the share of them that the threshold for 1 % of the
    others flags as well.
    A setting that is undefined for some prompt is left out. Raises ScannerError where the norm is.
    """
    _check_norm(scores, labels["prompt"])
    detection, differences = [], []
    for collapsed, expression in COLLAPSED.items():
        labelled = labels.select(label=expression, cluster="cluster")
        kept = labelled["label"].is_not_null().to_numpy()
        label = labelled["label"].drop_nulls().to_numpy()
        weights = resample(labelled["cluster"].rank("dense").to_numpy()[kept])
        measured: dict[Setting, tuple[Bootstrap, ...]] = {}
        for setting, values in scores.items():
            if np.isfinite(values).all():
                measured[setting] = bootstrap(values[kept], label, weights, FPRS)
        counts = {"collapsed": collapsed, "positives": int(label.sum()), "negatives": int((~label).sum())}
        apart = (labels["collapsed"] & ~labels["label"].fill_null(value=False)).to_numpy() & (collapsed == "left out")
        for setting in (s for s in settings() if s in measured):
            found, values = measured[setting], scores[setting]
            flagged = also_flagged(values[apart], values[kept], label, COLLAPSED_AT) if apart.any() else None
            row = _row(setting, found) | counts | {f"collapsed_at_{COLLAPSED_AT:g}": flagged}
            detection.append(row | _severity(values, labels))
            theirs = measured[Setting(NORM, min(setting.passes, max(SEEDS)), 1)]
            ours_minus_theirs = tuple(a - b for a, b in zip(found, theirs, strict=True))
            differences.append(_row(setting, ours_minus_theirs) | {"collapsed": collapsed})
    return Evaluation(pl.DataFrame(detection, infer_schema_length=None), pl.DataFrame(differences), labels, scores)


def _check_norm(scores: Scored, prompts: pl.Series) -> None:
    """Every setting is compared with the norm, so it must be defined for every prompt."""
    norms = np.array([values for setting, values in scores.items() if setting.score == NORM])  # [settings, n]
    finite = pl.Series(np.isfinite(norms).all(axis=0))
    if broken := prompts.filter(~finite).to_list():
        raise ScannerError(
            f"{NORM} is not finite for {len(broken):,} of {len(prompts):,} prompts ({broken[0]!r} first), but all "
            "scores are compared with it: leave these prompts out, or use another --model or --backend"
        )


def _row(setting: Setting, measured: tuple[Bootstrap, ...]) -> dict[str, object]:
    return {**setting._asdict(), "passes": setting.passes, **columns(measured)}


def columns(measured: tuple[Bootstrap, ...], prefix: str = "") -> dict[str, float]:
    """AUROC and TPR at each of FPRS as `bootstrap` gives them, by column: value, low and high end of the interval."""
    row: dict[str, float] = {}
    for name, metric in zip(("auroc", *(f"tpr_at_{fpr:g}" for fpr in FPRS)), measured, strict=True):
        low, high = metric.interval()
        row |= {f"{prefix}{name}": metric.value, f"{prefix}{name}_low": low, f"{prefix}{name}_high": high}
    return row


def _severity(values: NDArray[np.float64], labels: pl.DataFrame) -> dict[str, float | None]:
    """Correlation with severity over all prompts whose severity is known."""
    both = pl.DataFrame({"score": values, "similarity": labels["similarity"]}).drop_nulls()
    if len(both) < 2:
        return {"pearson": None, "spearman": None}
    pearson, spearman = pl.corr("score", "similarity"), pl.corr("score", "similarity", method="spearman")
    return both.select(pearson=pearson, spearman=spearman).fill_nan(None).row(0, named=True)
