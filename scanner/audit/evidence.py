"""What a night's flags are evidence of: how many chance alone explains, and how many a base rate lets be true.

Everything here rests on what calibration rests on: benign prompts that are exchangeable with the null captions.
"""

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import polars as pl

from scanner.audit.calibrate import Calibration
from scanner.audit.kept import Kept
from scanner.audit.rank import Rule
from scanner.audit.summary import Evidence
from scanner.errors import ScannerError

UNLIKELY = 0.05  # what happens by chance more often than this is no evidence


@dataclass(frozen=True)
class Prior:
    """The share of memorized prompts that is taken as known, and the share of them that the rule flags.

    `tpr`: None: not known, and taken as 1, which makes every share that follows from it an upper bound.
    """

    base_rate: float
    tpr: float | None = None

    def __post_init__(self) -> None:
        if not 0 < self.base_rate < 1:
            raise ScannerError(f"base-rate {self.base_rate}: needed more than 0 and less than 1")
        if self.tpr is not None and not 0 < self.tpr <= 1:
            raise ScannerError(f"tpr {self.tpr}: needed more than 0, up to 1")

    def true_share(self, rate: float) -> float:
        """Bayes: of the prompts that a rule flags, the share that is memorized, at this false positive rate."""
        hits = self.base_rate * (1.0 if self.tpr is None else self.tpr)
        return hits / (hits + (1 - self.base_rate) * rate)


def weigh(
    chosen: pl.DataFrame,
    m: int,
    rule: Rule,
    calibration: Calibration | None,
    kept: Kept | None,
    prior: Prior | None,
) -> Evidence | None:
    """The evidence of the flagged prompts, `chosen`, of `m` ranked ones; None where nothing is known of false alarms.

    Raises ScannerError for a prior without that.
    """
    flagged, weighed = len(chosen), None
    if calibration is not None:
        weighed = _calibrated(chosen, rule, calibration, m)
    elif kept is not None and kept.fpr is not None and kept.null_captions is not None:
        above = math.floor(Fraction(str(kept.fpr)) * (kept.null_captions + 1))
        weighed = Evidence(kept.fpr, kept.fpr * m, exceeded(m, kept.null_captions, above, flagged))
    if prior is None:
        return weighed
    if weighed is None:
        raise ScannerError(
            "a base rate says nothing of a ranking, whose false alarms are not known: needed --calibration, or a "
            "--threshold file that was chosen with --fpr"
        )
    share = prior.true_share(weighed.rate) if flagged else None
    return Evidence(weighed.rate, weighed.expected, weighed.chance, prior.base_rate, prior.tpr, share)


def _calibrated(chosen: pl.DataFrame, rule: Rule, calibration: Calibration, m: int) -> Evidence:
    n, flagged = len(calibration.null), len(chosen)
    lowest = float(chosen["p_value"].max()) if flagged else 0.0  # type: ignore[arg-type]
    if rule.fpr is not None:
        above = math.floor(Fraction(str(rule.fpr)) * (n + 1))
        return Evidence(rule.fpr, rule.fpr * m, exceeded(m, n, above, flagged))
    if rule.fdr is not None:  # the least q-value is Simes' p-value for "all are benign"
        least = float(chosen["q_value"].min()) if flagged else 1.0  # type: ignore[arg-type]
        return Evidence(lowest, rule.fdr * flagged, min(1.0, least))
    if rule.threshold is not None:
        above = 1 + int((calibration.null >= rule.threshold).sum())
        return Evidence(above / (n + 1), above / (n + 1) * m, exceeded(m, n, above, flagged))
    return Evidence(lowest, lowest * m, None)  # a ranking flags as many whatever they score


def exceeded(m: int, n: int, above: int, count: int) -> float:
    """Probability that `count` or more of `m` benign prompts score above the `above`-th highest of `n` null captions.

    Their number is beta-binomial, with parameters `above` and n + 1 - `above`, whatever the scores' distribution.
    """
    if count <= 0:
        return 1.0
    if count > m:
        return 0.0
    a, b = above, n + 1 - above
    if b <= 0:
        return 1.0
    at_0 = math.lgamma(b + m) + math.lgamma(a + b) - math.lgamma(a + b + m) - math.lgamma(b)
    x = np.arange(count - 1, dtype=np.float64)
    steps = np.log((m - x) / (x + 1)) + np.log((x + a) / (m - x - 1 + b))
    fewer = np.exp(at_0 + np.concatenate([[0.0], np.cumsum(steps)])).sum()
    return float(min(1.0, max(0.0, 1 - fewer)))
