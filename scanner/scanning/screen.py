"""Screening: all passes only where a first pass of one seed and one step finds a prompt suspicious.

A screened scan is two scans in one store. The first pass is a plain scan under its own scan_id; the second has a
scan_id that covers the full settings, the first pass, the score and the *threshold*, so that each row, `screened_out`
or scored, is a function of (scan_id, prompt) alone. The threshold is chosen once, as a quantile of the first night, and
found again in the records of that night's runs: a dataset that grows does not move it.
"""

import math
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import polars as pl

from scanner.dataset.captions import IDENTIFIED
from scanner.dataset.shards import SHARDS, shard, split
from scanner.errors import ScannerError
from scanner.identity import identity
from scanner.store.ledger import Ledger


@dataclass(frozen=True)
class Screening:
    """The policy of a screened scan: prompts whose `score` of the first pass is below `threshold` get no other pass.

    `full_scan_id`: of the same scan unscreened, whose calibrations hold; `first_scan_id`: of the first pass, by
    `model`; `share`: what the threshold was chosen for, None: not chosen yet.
    """

    full_scan_id: str
    first_scan_id: str
    model: str
    score: str
    share: float
    threshold: float | None = None

    @property
    def scan_id(self) -> str:
        """Identity of all that a screened scan's rows depend on, the threshold among it."""
        assert self.threshold is not None
        return identity(
            {"full": self.full_scan_id, "first": self.first_scan_id, "score": self.score, "threshold": self.threshold}
        )

    def remembered(self, ledger: Ledger, limit: int | None) -> "Screening":
        """With the threshold of the first run of this policy in the store, if there is one.

        A threshold that was chosen among a `limit` of rows is a trial's, and serves only runs of the same limit.
        """
        asked = asdict(replace(self, threshold=None, model=""))
        for record in reversed(ledger.records()):  # oldest first: two first nights at once end up with one threshold
            found = record.get("screening")
            if found and record["limit"] in (None, limit) and found | {"threshold": None, "model": ""} == asked:
                return replace(self, threshold=found["threshold"])
        return self

    def chosen(self, ledger: Ledger, captions: Path, folder: Path) -> "Screening":
        """With a threshold: the one it has, else the score from which `share` of the split `captions` lie.

        Prompts of equal score are on one side of it. Raises ScannerError where no prompt has a score.
        """
        if self.threshold is not None:
            return self
        with ledger.refusals():
            scores = ledger.rows(self.first_scan_id).select("prompt_id", self.score)
            split(scores, folder)
        schema, parts = dict(scores.collect_schema()), []
        for digit in SHARDS:
            held = shard(folder, digit, schema).filter(pl.col(self.score).is_finite()).unique("prompt_id")
            here = shard(captions, digit, IDENTIFIED)
            parts.append(held.join(here, on="prompt_id", how="semi").collect()[self.score].to_numpy())
        values = np.sort(np.concatenate(parts))  # 4 bytes per prompt
        if not len(values):
            raise ScannerError(f"screen: no caption has {self.score} after the first pass: scan without a screen")
        kept = math.ceil(Fraction(str(self.share)) * len(values))
        return replace(self, threshold=float(values[-kept]))

    def screened_out(self, ledger: Ledger) -> pl.LazyFrame:
        """[prompt_id] of the prompts below the threshold. One whose first scores overflowed is not among them."""
        assert self.threshold is not None
        below = pl.col(self.score).cast(pl.Float64) < self.threshold
        return ledger.rows(self.first_scan_id).filter(below).select("prompt_id")
