"""A threshold that was chosen once and is kept: the same score flags a caption, however the dataset grows."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from scanner.audit.calibrate import Calibration
from scanner.audit.rank import Rule, ranked_in
from scanner.errors import ScannerError
from scanner.files import replacing
from scanner.store.stored import StoredScan

KIND = "overscan threshold"
FORMAT = f"{KIND} 1"


@dataclass(frozen=True)
class Kept:
    """A threshold: prompts that score `value` or more are flagged.

    It holds for one `scan_id` (of a screened scan: of the same scan unscreened) and one `score`. It was chosen on that
    `date` at a `quantile` of the `prompts` of then, which tells nothing of false alarms, or else at a false positive
    rate, `fpr`, by so many `null_captions`.
    """

    scan_id: str
    score: str
    value: float
    date: str
    prompts: int
    quantile: float | None = None
    fpr: float | None = None
    null_captions: int | None = None

    def __post_init__(self) -> None:
        if (self.quantile is None) == (self.fpr is None) or (self.fpr is None) != (self.null_captions is None):
            raise ValueError("needed a quantile, or fpr and null_captions")
        if not math.isfinite(self.value):
            raise ValueError("value: needed a finite number")

    @property
    def rule(self) -> Rule:
        """The rule that flags by it."""
        return Rule(self.score, threshold=self.value)

    @property
    def how(self) -> str:
        """How it was chosen, as a clause."""
        if self.quantile is not None:
            return f"the quantile {self.quantile:g} of {self.prompts:,} prompts on {self.date}"
        return f"a false positive rate of {self.fpr:g} by {self.null_captions:,} null captions on {self.date}"

    def check(self, full_scan_id: str, score: str | None) -> None:
        """Raises ScannerError for another scan or score."""
        if self.scan_id != full_scan_id:
            raise ScannerError(
                f"the threshold is of scan_id {self.scan_id}, the scan has {full_scan_id}: scores of other models or "
                "settings do not compare; choose one with `overscan threshold`, or see `overscan recheck`"
            )
        if score not in (None, self.score):
            raise ScannerError(f"the threshold is of {self.score}, the report by {score}: choose one for that score")


def choose(stored: StoredScan, rule: Rule, today: str, calibration: Calibration | None = None) -> Kept:
    """The threshold from which a rule by `quantile`, or by `fpr` with a calibration, flags. Raises ScannerError."""
    if calibration is not None:
        calibration.check(stored.full_scan_id)
    ranked = ranked_in(stored.work, stored.prompts, rule, calibration)
    lowest = pl.col(rule.score).filter("flagged").min()
    prompts, at_least = ranked.select(pl.col("rank").count(), lowest.alias("lowest")).collect(engine="streaming").row(0)
    known = (stored.full_scan_id, rule.score)
    if rule.fpr is not None and calibration is not None:
        n = len(calibration.null)
        at = np.float32(calibration.threshold(rule.fpr))
        above = np.nextafter(at, np.float32(np.inf))  # p <= fpr is above that null score, and scores are float32
        return Kept(*known, float(above), today, prompts, fpr=rule.fpr, null_captions=n)
    if at_least is None:
        raise ScannerError("no prompt has a score to choose a threshold from: name a higher --quantile, or scan first")
    return Kept(*known, float(at_least), today, prompts, quantile=rule.quantile)


def write(path: Path, kept: Kept) -> None:
    """Write a threshold as one small JSON file, whole or not at all. Raises ScannerError over another file."""
    if path.exists() and not _is_kept(path):
        raise ScannerError(f"{path}: another file is there, and no kept threshold: move it away or name another --out")
    with replacing(path) as partial:
        partial.write_text(json.dumps({"format": FORMAT} | asdict(kept), indent=1) + "\n", encoding="utf-8")


def read(path: Path) -> Kept:
    """Read what `write` wrote. Raises ScannerError."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        if raw["format"] != FORMAT:
            raise ScannerError(f"{path}: format {raw['format']!r}, this overscan reads {FORMAT!r}")
        return of_json(raw)
    except FileNotFoundError:
        raise ScannerError(f"{path}: no such file; `overscan threshold --store STORE --out {path}` makes it") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ScannerError(f"{path}: not a threshold ({error!r}): choose it again with `overscan threshold`") from error


def _is_kept(path: Path) -> bool:
    try:
        return str(json.loads(path.read_bytes())["format"]).startswith(KIND)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def of_json(raw: Mapping[str, Any]) -> Kept:
    """A threshold from its file or from a report's summary. Raises KeyError, TypeError or ValueError."""
    return Kept(
        scan_id=raw["scan_id"],
        score=raw["score"],
        value=float(raw["value"]),
        date=raw["date"],
        prompts=raw["prompts"],
        quantile=raw.get("quantile"),
        fpr=raw.get("fpr"),
        null_captions=raw.get("null_captions"),
    )
