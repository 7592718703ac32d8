"""One night's decision: ranked prompts, flagged rows, and a summary that says what was asked and found."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import polars as pl

from scanner.audit import diagnose
from scanner.audit.calibrate import Calibration, null_needed
from scanner.audit.policy import Baseline, classify
from scanner.audit.rank import Rule, rank, sources
from scanner.config import SCREENED_OUT
from scanner.errors import ScannerError

FORMAT = "overscan report 1"
SCAN_FACTS = ("model", "backend", "precision", "config", "reference")  # of a run's record


@dataclass(frozen=True)
class Night:
    """`ranked`: every unique prompt, as of `rank`, with `finding`; `flagged`: every row that bears a flagged one.

    `summary`: JSON-able; its `notes` are sentences that a reader of the flags must know. `compared`: whether a baseline
    or an allow-list told findings apart.
    """

    ranked: pl.DataFrame = field(repr=False)
    flagged: pl.DataFrame = field(repr=False)
    summary: Mapping[str, Any]
    calibration: Calibration | None = None
    compared: bool = False


def decide(
    scores: pl.DataFrame,
    captions: pl.LazyFrame,
    scan_id: str,
    canaries: pl.DataFrame,
    rule: Rule,
    today: date,
    *,
    calibration: Calibration | None = None,
    full_scan_id: str | None = None,
    record: Mapping[str, Any] | None = None,
    baseline: Baseline | None = None,
    allow: pl.DataFrame | None = None,
    notes: Sequence[str] = (),
) -> Night:
    """Scores and captions of a scan -> flags, findings, summary.

    `canaries`: [canary, scores...] as the engine gave them in every run of this scan, compared with the calibration's.
    `full_scan_id`: of the same scan unscreened, whose calibrations hold for a screened one.
    `record`: of the scan's run, of which the summary keeps what the scan_id was made of, and the model's name.
    `notes`: sentences on the scan itself, which come first among the night's.
    Raises ScannerError where the calibration is of another scan, too small, or of an engine that has changed.
    """
    comparable = scan_id if full_scan_id is None else full_scan_id
    if calibration is not None and calibration.scan_id != comparable:
        raise ScannerError(
            f"the calibration is of scan_id {calibration.scan_id}, the scan has {comparable}: scores of other models "
            "or settings do not compare; calibrate with the --model and settings of the scan"
        )
    ranked, said = classify(rank(scores, rule, calibration), baseline, allow, today)
    notes = [*notes, *said]
    if baseline is not None and (baseline.scan_id, baseline.score) != (scan_id, rule.score):
        notes.append(f"the baseline of {baseline.date} was written for another model, setting or score")
    if unscored := ranked["status"].null_count():
        notes.append(f"{unscored:,} prompts of the inputs are newer than the scan and have no score: scan again")
    if out := ranked["status"].eq_missing(SCREENED_OUT).sum():
        notes.append(
            f"screened: {out:,} prompts were found ordinary by a first pass, got no other, and are never flagged; all "
            "counts of scored prompts include them"
        )
    judged = None
    if calibration is not None:
        judged, found = _judge(ranked, rule, calibration, canaries)
        notes += found
    flagged, rows = ranked.filter("flagged"), sources(ranked, captions)
    kinds = dict(flagged.group_by("finding").len().iter_rows())
    summary = {
        "format": FORMAT,
        "date": today.isoformat(),
        "scan_id": scan_id,
        "full_scan_id": comparable,
        "scan": None if record is None else {name: record.get(name) for name in SCAN_FACTS},
        "score": rule.score,
        "rule": rule.limit,
        "kind": "decision" if rule.decides else "ranking",
        "prompts": len(ranked),
        "scored": ranked["rank"].count(),
        "flagged": len(flagged),
        "flagged_rows": len(rows),
        "findings": {kind: kinds.get(kind, 0) for kind in ("new", "known", "allowed")},
        "lowest_flagged": flagged[rule.score].min(),
        "calibration": judged,
        "notes": notes,
    }
    return Night(ranked, rows, summary, calibration, compared=baseline is not None or allow is not None)


def _judge(
    ranked: pl.DataFrame, rule: Rule, calibration: Calibration, canaries: pl.DataFrame
) -> tuple[dict[str, Any], list[str]]:
    """What the calibration can tell of this dataset, and the signs against it."""
    difference = diagnose.check_canaries(calibration, canaries)
    checks = diagnose.exchangeability(calibration, ranked)
    n, m = len(calibration.null), ranked["rank"].count()
    shared = ranked.filter(pl.col("rank").is_not_null()).join(calibration.prompts, on="prompt_id", how="semi")
    above = ranked.filter(pl.col(rule.score) > calibration.null[-1])
    notes = diagnose.warnings(checks)
    if len(shared):
        notes.append(f"{len(shared):,} prompts of the dataset are null captions themselves, taken to be benign")
    judged: dict[str, Any] = {
        "source": dict(calibration.source),
        "n": n,
        "smallest_p": calibration.smallest_p,
        "above_null": len(above),
        "canary_difference": difference,
        "exchangeability": checks.to_dicts(),
    }
    if rule.fpr is not None:
        judged |= {"threshold": calibration.threshold(rule.fpr), "expected_false_alarms": rule.fpr * m}
        notes.append(
            f"of {m:,} prompts up to {rule.fpr * m:,.0f} would be flagged at fpr {rule.fpr:g} were all of them benign"
        )
    if rule.fdr is not None:
        least = calibration.least_hits(m, rule.fdr)
        judged["least_hits"] = least
        notes.append(detectable(n, m, least, rule.fdr))
        if len(above) and not ranked["flagged"].any():
            notes.append(
                f"{len(above):,} prompts score above every null caption, too few for this null: see the line above, or "
                "use --fpr"
            )
    return judged, notes


def detectable(n: int, m: int, least: int, fdr: float) -> str:
    """What `n` null captions can find in `m` prompts, in one sentence."""
    said = f"{n:,} null captions: p-values from {1 / (n + 1):.2g} up; at fdr {fdr:g}"
    if least == 1:
        return f"{said} a single one of {m:,} prompts can be found"
    one = null_needed(m, 1, fdr)
    return f"{said} they flag {least:,} or more of {m:,} prompts, or none (a single one could be found with {one:,})"
