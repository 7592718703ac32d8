"""Scores of benign captions (the null) -> p-values, thresholds, and what can be detected at all.

Conformal p-values rest on one assumption: a benign prompt of the dataset and a null caption are exchangeable. Nothing
here can prove it; `scanner.audit.diagnose` looks for signs against it.
"""

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from scanner.errors import ScannerError, first_line
from scanner.files import replacing

FORMAT = 1
DEFAULT_FDR = 0.05
KEY = "overscan_calibration"  # of the parquet file's metadata
KEPT = ("prompt_id", "characters")  # of each null prompt, beside its scores
BLOCK = 1_000_000  # scores that are counted at once
Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Calibration:
    """One score's null under one scan_id.

    `prompts`: [prompt_id, characters, score], the null captions whose score is finite; `null`: their scores, float64
    [n], ascending; `canaries`: [canary, score], what the engine gave for fixed prompts on that day.
    """

    scan_id: str
    score: str
    null: Floats = field(repr=False)
    prompts: pl.DataFrame = field(repr=False)
    canaries: pl.DataFrame = field(repr=False)
    source: Mapping[str, object]

    @classmethod
    def of(
        cls, scan_id: str, score: str, scores: pl.DataFrame, canaries: pl.DataFrame, source: Mapping[str, object]
    ) -> "Calibration":
        """Take the null from scored benign prompts: [prompt_id, text or characters, score]. Raises ScannerError."""
        if score not in scores.columns:
            raise ScannerError(f"the calibration holds no {score!r}; it has {', '.join(_score_names(scores))}")
        prompts = _characters(scores).filter(pl.col(score).is_finite()).select(*KEPT, score)
        if prompts.is_empty():
            raise ScannerError(
                f"no null caption has {score}: calibrate with what it needs (two seeds or more, --reference, "
                "--base-model, --timesteps, or more --first-steps; see docs/scores.md), or name another --score"
            )
        null = np.sort(prompts[score].cast(pl.Float64).to_numpy())
        return cls(scan_id, score, null, prompts, canaries.select("canary", score), source)

    def check(self, full_scan_id: str) -> None:
        """Raises ScannerError unless it is of this scan, or of the same unscreened."""
        if self.scan_id != full_scan_id:
            raise ScannerError(
                f"the calibration is of scan_id {self.scan_id}, the scan has {full_scan_id}: scores of other models or "
                "settings do not compare; calibrate with the --model and settings of the scan"
            )

    @property
    def smallest_p(self) -> float:
        """1 / (n + 1): no prompt can be less likely than this, however high its score."""
        return 1 / (len(self.null) + 1)

    def p_values(self, scores: pl.Series) -> pl.Series:
        """p = (1 + number of null scores >= s) / (n + 1) of each score; null where there is none.

        For a benign prompt exchangeable with the null, P(p <= a) <= a (Vovk et al., 2005).
        """
        p = pl.Series("p_value", (1 + self._at_least(scores)) / (len(self.null) + 1))
        return p.set(scores.is_null(), None)

    def q_values(self, scores: pl.Series) -> Callable[[pl.Series], pl.Series]:
        """q-values of any among all `scores`, which need not be in order; null where there is no score.

        Equal p-values have one q-value, so what is kept is one number per null score.
        """
        n = len(self.null)
        counts = np.zeros(n + 1, np.int64)  # scores at or below which lie so many null scores
        for part in scores.drop_nulls().to_frame().iter_slices(BLOCK):
            counts += np.bincount(self._at_least(part.to_series()), minlength=n + 1)
        p = pl.DataFrame({"p": (1 + np.arange(n + 1)) / (n + 1), "rank": np.cumsum(counts)})
        q = p.select(q_values(pl.col("p"), pl.col("rank"))).to_series().to_numpy()

        def of(some: pl.Series) -> pl.Series:
            return pl.Series("q_value", q[self._at_least(some)]).set(some.is_null(), None)

        return of

    def _at_least(self, scores: pl.Series) -> NDArray[np.int64]:
        """How many null scores lie at or above each score; 0 where there is none."""
        values = scores.cast(pl.Float64).fill_null(np.inf).to_numpy()
        return len(self.null) - np.searchsorted(self.null, values, side="left")

    def threshold(self, fpr: float) -> float:
        """The null score above which a prompt has p <= `fpr`. Raises ScannerError where no score has."""
        n = len(self.null)
        allowed = math.floor(Fraction(str(fpr)) * (n + 1)) - 1  # null scores at or above a flagged one
        if allowed < 0:
            raise ScannerError(
                f"{n:,} null captions give p-values from {self.smallest_p:.2g} up, fpr {fpr:g} needs smaller: "
                f"calibrate with {null_needed_for_fpr(fpr):,} or more"
            )
        return float(self.null[n - 1 - allowed]) if allowed < n else -math.inf

    def least_hits(self, m: int, fdr: float) -> int:
        """Fewest of `m` prompts that Benjamini-Hochberg can flag: it flags this many or more, or none.

        The smallest k with 1/(n+1) <= fdr*k/m. Raises ScannerError where no k up to m will do.
        """
        k = math.ceil(Fraction(m) / (Fraction(str(fdr)) * (len(self.null) + 1)))
        if k > m:
            raise ScannerError(
                f"{len(self.null):,} null captions give p-values from {self.smallest_p:.2g} up, so fdr {fdr:g} can "
                f"never flag: calibrate with {null_needed(m, m, fdr):,} or more "
                f"({null_needed(m, max(1, m // 100), fdr):,} to find {max(1, m // 100):,} of {m:,} prompts), "
                "or rank with top, quantile or threshold"
            )
        return k


def null_needed(m: int, k: int, fdr: float) -> int:
    """Null captions with which Benjamini-Hochberg can find `k` of `m` prompts: 1/(n+1) <= fdr*k/m."""
    return math.ceil(Fraction(m) / (Fraction(str(fdr)) * k)) - 1


def null_needed_for_fpr(fpr: float) -> int:
    """Null captions with which a p-value can be as small as `fpr`."""
    return math.ceil(1 / Fraction(str(fpr))) - 1


def reach(n: int) -> str:
    """What `n` null captions can tell, whatever the dataset."""
    share = 1 / (DEFAULT_FDR * (n + 1))
    fdr = (
        f"at fdr {DEFAULT_FDR:g} they flag {share:.2g} of a dataset's prompts or more, or none"
        if share <= 1
        else f"too few for fdr {DEFAULT_FDR:g}, which needs {null_needed(1, 1, DEFAULT_FDR):,} at the least"
    )
    return f"{n:,} null captions: p-values from {1 / (n + 1):.2g} up; {fdr}"


def q_values(p: pl.Expr, rank: pl.Expr) -> pl.Expr:
    """Benjamini-Hochberg q-values of p-values in ascending order: the running least p*m/rank from the end.

    `rank`: how many p-values of all m are as small or smaller; the last is m.
    Conformal p-values share one null and so depend on one another positively (PRDS): BH holds (Bates et al., 2023).
    """
    return (p * rank.last() / rank).cum_min(reverse=True)


def write(
    path: Path,
    scan_id: str,
    scores: pl.DataFrame,
    score_names: list[str],
    canaries: pl.DataFrame,
    source: Mapping[str, object],
) -> int:
    """Write the null of every score to one file: whole, or not at all; returns the number of null captions.

    `scores`: scored benign prompts, [prompt_id, text, status, scores...]; `canaries`: as of a ScanResult. Raises
    ScannerError where none of them is scored, and over another file.
    """
    check_place(path)
    kept = _characters(scores.filter(status="scored")).select(*KEPT, *score_names).sort("prompt_id")
    if kept.is_empty():
        raise ScannerError("none of the null captions could be scored: calibrate with readable, benign captions")
    head = {
        "format": FORMAT,
        "scan_id": scan_id,
        "canaries": canaries.to_dicts(),
        "source": {"captions": len(kept)} | dict(source),
    }
    head["hash"] = _hash(head, kept)
    with replacing(path) as partial:
        kept.write_parquet(partial, metadata={KEY: json.dumps(head)})
    return len(kept)


def check_place(path: Path) -> None:
    """Raises ScannerError where another file than a calibration is in its place: captions, for instance."""
    if path.is_file():
        try:
            ours = KEY in pl.read_parquet_metadata(path)
        except (pl.exceptions.PolarsError, OSError):
            ours = False
        if not ours:
            raise ScannerError(f"{path}: another file is there, and no calibration: move it away or name another --out")


def scan_id_of(path: Path) -> str:
    """The scan_id that a calibration file is of. Raises ScannerError."""
    return str(_verified(path)[0]["scan_id"])


def read(path: Path, score: str) -> Calibration:
    """Read and verify a calibration file. Raises ScannerError if it is missing, foreign or damaged."""
    head, scores = _verified(path)
    canaries = pl.DataFrame(head["canaries"], schema={"canary": pl.String, **_score_names(scores)})
    return Calibration.of(head["scan_id"], score, scores, canaries, head["source"])


def _verified(path: Path) -> tuple[dict[str, Any], pl.DataFrame]:
    if not path.is_file():
        raise ScannerError(f"{path}: no such file; `overscan calibrate NULL_INPUT... --out {path}` makes it")
    try:
        head = json.loads(pl.read_parquet_metadata(path).get(KEY, "{}"))
        scores = pl.read_parquet(path)
    except (pl.exceptions.PolarsError, OSError, ValueError) as error:
        reason = first_line(error)
        raise ScannerError(f"{path}: damaged, or no calibration ({reason}): calibrate again") from error
    if not head:
        raise ScannerError(f"{path}: a parquet file, but not one that `overscan calibrate` wrote")
    if head.get("format") != FORMAT:
        raise ScannerError(f"{path}: calibration format {head.get('format')}, this overscan reads {FORMAT}")
    if head.pop("hash", None) != _hash(head, scores):
        raise ScannerError(f"{path}: damaged or edited (its hash differs): copy it again, or calibrate again")
    return head, scores


def _hash(head: Mapping[str, Any], frame: pl.DataFrame) -> str:
    """blake2b-128 of the values, whatever the parquet writer makes of them."""
    digest = hashlib.blake2b(json.dumps(head, sort_keys=True).encode(), digest_size=16)
    for series in frame:
        column = series if series.dtype == pl.String else series.cast(pl.Float64).fill_null(np.inf)
        values = "\n".join(column).encode() if column.dtype == pl.String else column.to_numpy().tobytes()
        digest.update(f"{series.name}:{len(values)}:".encode() + values)
    return digest.hexdigest()


def _characters(scores: pl.DataFrame) -> pl.DataFrame:
    has_text = "text" in scores.columns
    return scores.with_columns(characters=pl.col("text").str.len_chars().cast(pl.Int64)) if has_text else scores


def _score_names(frame: pl.DataFrame) -> dict[str, pl.DataType]:
    return {name: dtype for name, dtype in frame.schema.items() if dtype == pl.Float32}
