"""Signs that p-values mean less than they say: null and data that differ, an engine or a dataset that drifted.

Absence of a sign proves nothing. Distances are two-sample Kolmogorov-Smirnov: no bins to choose.
"""

import math
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from scanner.audit.calibrate import Calibration, Floats
from scanner.errors import ScannerError

CHANCE = 1.63  # sqrt(-ln(.01/2)/2): times sqrt(1/n + 1/m), what chance alone exceeds in 1 % of comparisons
TOLERATED = 0.1  # a distance that matters: in the bulk, 20 % of memorized prompts move it by this much at most
CANARY_TOLERANCE = 0.01  # of the null's interquartile range: less moves no p-value noticeably


Numbers = NDArray[Any]


class EngineChangedError(ScannerError):
    """The engine no longer computes what it computed at calibration."""

    exit_code = 4


def kolmogorov_smirnov(before: Numbers, after: Numbers, up_to: float = math.inf) -> float:
    """Largest difference of the two distribution functions up to a value, in -1 to 1; positive: `after` is larger.

    Between two values of one sample its own function is constant and the other's only rises: it is enough to look on
    each value of the smaller sample and just below it.
    """
    if len(before) > len(after):
        return 0.0 - kolmogorov_smirnov(after, before, up_to)
    before, after = np.sort(before), np.sort(after)
    at = np.unique(before)
    at = at[at <= up_to]

    def below(values: Numbers, of: Numbers) -> Floats:
        """The distribution function just below each value, on it, and at the end, in this order."""
        places = [np.searchsorted(values, of, side=side) for side in ("left", "right")]
        end = np.searchsorted(values, up_to, side="right")
        return np.append(np.stack(places, axis=1).ravel(), end) / len(values)

    difference = below(before, at) - below(after, at)
    return float(difference[np.abs(difference).argmax()])


def _median(ascending: Numbers) -> float:
    return float(np.mean(ascending[(len(ascending) - 1) // 2 : len(ascending) // 2 + 1].astype(np.float64)))


def compare(before: pl.Series, after: pl.Series, up_to: float = math.inf) -> dict[str, float]:
    """One comparison: {n_before, n_after, median_before, median_after, distance, chance, differs (0 or 1)}.

    `differs`: the distance is more than chance explains, and enough to matter. Neither sample may be empty.
    """
    a, b = (np.sort(series.to_numpy()) for series in (before, after))
    distance = kolmogorov_smirnov(a, b, up_to)
    chance = CHANCE * math.sqrt(1 / len(before) + 1 / len(after))
    return {
        "n_before": len(before),
        "n_after": len(after),
        "median_before": _median(a),
        "median_after": _median(b),
        "distance": distance,
        "chance": chance,
        "differs": abs(distance) > max(chance, TOLERATED),
    }


def exchangeability(calibration: Calibration, ranked: pl.LazyFrame) -> pl.DataFrame:
    """Null ("before") against data ("after"): [check, ... of `compare`, length_correlation].

    `bulk`: scores up to the null's median. Memorized prompts lie above it, so a share of them moves this distance by at
    most half of that share, while a null that is too easy or too hard moves it by as much as it is off. A screened scan
    has no such row: its ordinary prompts have no scores. `length`: characters of the captions; it matters in so far as
    length goes with the score (`length_correlation`, Spearman, in the null).
    """
    placed = ranked.filter(pl.col("rank").is_not_null())
    data = placed.select(calibration.score, length=pl.col("text").str.len_chars()).collect(engine="streaming")
    median, screened = float(np.median(calibration.null)), data[calibration.score].null_count() > 0
    bulk = [] if screened else [compare(pl.Series(calibration.null), data[calibration.score], median)]
    length = compare(calibration.prompts["characters"], data["length"])
    spearman = calibration.prompts.select(pl.corr("characters", calibration.score, method="spearman")).item()
    correlation = spearman if spearman is not None and math.isfinite(spearman) else 0.0
    rows = [*({"check": "bulk"} | row for row in bulk), {"check": "length"} | length]
    return pl.DataFrame(rows).with_columns(length_correlation=pl.lit(correlation))


def warnings(checks: pl.DataFrame) -> list[str]:
    """What `exchangeability` found, in sentences."""
    said = []
    for row in checks.filter("differs").iter_rows(named=True):
        if row["check"] == "bulk":
            higher = row["distance"] > 0
            said.append(
                f"ordinary prompts of this dataset score {'higher' if higher else 'lower'} than the null captions "
                f"(distance {abs(row['distance']):.2f} below the null's median, chance explains {row['chance']:.2f}): "
                + ("expect more false alarms than asked" if higher else "p-values are too large, and hits missed")
                + "; calibrate with captions of the same kind"
            )
        else:
            said.append(
                f"captions have {row['median_after']:.0f} characters here and {row['median_before']:.0f} in the null "
                f"(medians; distance {abs(row['distance']):.2f}, chance explains {row['chance']:.2f}); length "
                f"correlates {row['length_correlation']:.2f} with the score"
            )
    return said


def check_canaries(calibration: Calibration, scored: pl.DataFrame) -> float:
    """Largest difference of a canary's score from the calibration's; raises EngineChangedError beyond the tolerance.

    Canaries are a few fixed prompts that every run scores anew: those count that both have, as older overscans had
    more. `scored`: [canary, score], of every run whose scores are judged, so a canary may come several times.
    """
    score = calibration.score
    then = calibration.canaries.select("canary", then=score).drop_nulls()
    both = then.join(scored.select("canary", now=score), on="canary")
    if both.is_empty() or both["now"].null_count():
        raise EngineChangedError(
            f"the scan and the calibration have not scored the same canary prompts ({len(then)} in the calibration): "
            "calibrate and scan again with one version of overscan"
        )
    difference = float(both.select((pl.col("now") - pl.col("then")).abs().max()).item())
    low, high = np.quantile(calibration.null, (0.25, 0.75))
    if not difference <= CANARY_TOLERANCE * (high - low):
        raise EngineChangedError(
            f"the engine changed: {score} of a canary prompt differs by {difference:.2g} from the calibration, allowed "
            f"{CANARY_TOLERANCE * (high - low):.2g} ({CANARY_TOLERANCE:.0%} of the null's interquartile range). Scores "
            "kept in this store are of the old engine: scan and calibrate into a new --store"
        )
    return difference
