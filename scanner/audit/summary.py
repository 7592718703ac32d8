"""What a night asked and found, in numbers and sentences: `summary.json` of a report.

This is the one place that knows how a summary looks in its file, and how older versions of overscan wrote it.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from datetime import date
from typing import Any

from scanner.audit import kept
from scanner.audit.kept import Kept
from scanner.audit.rank import Rule
from scanner.config import MadeWith
from scanner.errors import ScannerError

FORMAT = "overscan report 1"
VERSION = 2  # within the format; 1: the first edition, whose summaries do not say so
Check = Mapping[str, str | float]  # a row of `scanner.audit.diagnose.exchangeability`


@dataclass(frozen=True)
class Findings:
    """Flagged prompts by what is known of them."""

    new: int = 0
    known: int = 0
    allowed: int = 0


@dataclass(frozen=True)
class Judgement:
    """What a calibration can tell of a night's prompts.

    `source`: of the null captions; `n`: how many; `above_null`: prompts that score above them all; `threshold` and
    `expected_false_alarms`: of a rule by fpr; `least_hits`: of a rule by fdr.
    """

    source: Mapping[str, object]
    n: int
    smallest_p: float
    above_null: int
    canary_difference: float
    exchangeability: tuple[Check, ...]
    threshold: float | None = None
    expected_false_alarms: float | None = None
    least_hits: int | None = None


@dataclass(frozen=True)
class Evidence:
    """Flags compared with chance. See `scanner.audit.evidence`.

    `rate`: the share of benign prompts that the rule flags; `expected`: false alarms, by a rule of `fdr` among the
    flags, by others were all prompts benign; `chance`: the probability of as much as was found were all of them benign,
    None for a ranking, which flags as many whatever they score; `true_share`: of the flags, by `base_rate` and `tpr`.
    """

    rate: float
    expected: float
    chance: float | None
    base_rate: float | None = None
    tpr: float | None = None
    true_share: float | None = None


@dataclass(frozen=True)
class Summary:
    """One night. `notes` are sentences that a reader of the flags must know.

    `headline`: the night in one line; `kept`: where the threshold comes from, None: no file; `evidence`: None where
    nothing is known of false alarms; `full_scan_id`: of the same scan unscreened; `made_with`: None where an older
    overscan did not note it; `lowest_flagged`: score; `calibration`: None for a ranking.
    """

    date: date
    scan_id: str
    full_scan_id: str
    made_with: MadeWith | None
    rule: Rule
    prompts: int
    scored: int
    flagged: int
    flagged_rows: int
    findings: Findings
    lowest_flagged: float | None
    calibration: Judgement | None = None
    notes: tuple[str, ...] = ()
    version: int = VERSION
    headline: str = ""
    evidence: Evidence | None = None
    kept: Kept | None = None

    @property
    def score(self) -> str:
        """What the prompts are ranked by."""
        return self.rule.score

    @property
    def threshold(self) -> float | None:
        """From which score prompts are flagged: the rule's, its calibration's, or the lowest flagged; None: nowhere."""
        calibrated = None if self.calibration is None else self.calibration.threshold
        return next((x for x in (self.rule.threshold, calibrated, self.lowest_flagged) if x is not None), None)


def as_json(summary: Summary) -> dict[str, object]:
    """A summary as `summary.json` and --json have it."""
    return {
        "format": FORMAT,
        "version": summary.version,
        "date": summary.date.isoformat(),
        "scan_id": summary.scan_id,
        "full_scan_id": summary.full_scan_id,
        "scan": None if summary.made_with is None else asdict(summary.made_with),
        "score": summary.score,
        "rule": summary.rule.limit,
        "kind": "decision" if summary.rule.decides else "ranking",
        "prompts": summary.prompts,
        "scored": summary.scored,
        "flagged": summary.flagged,
        "flagged_rows": summary.flagged_rows,
        "findings": asdict(summary.findings),
        "lowest_flagged": summary.lowest_flagged,
        "calibration": None if summary.calibration is None else asdict(summary.calibration),
        "kept": None if summary.kept is None else asdict(summary.kept),
        "evidence": None if summary.evidence is None else asdict(summary.evidence),
        "headline": summary.headline,
        "notes": list(summary.notes),
    }


def of_json(raw: Mapping[str, Any]) -> Summary:
    """Read a summary of this version or an older one; keys that a newer one has added are passed over.

    Raises ScannerError for another format; KeyError, TypeError or ValueError for what is no summary.
    """
    if raw["format"] != FORMAT:
        raise ScannerError(f"report format {raw['format']!r}, this overscan reads {FORMAT!r}")
    made, judged, weighed, held = raw.get("scan"), raw["calibration"], raw.get("evidence"), raw.get("kept")
    return Summary(
        date=date.fromisoformat(raw["date"]),
        scan_id=raw["scan_id"],
        full_scan_id=raw.get("full_scan_id", raw["scan_id"]),  # an older overscan did not screen
        made_with=None if made is None else MadeWith.of_json(made),
        rule=Rule(raw["score"], **raw["rule"]),
        prompts=raw["prompts"],
        scored=raw["scored"],
        flagged=raw["flagged"],
        flagged_rows=raw["flagged_rows"],
        findings=Findings(**raw["findings"]),
        lowest_flagged=raw["lowest_flagged"],
        calibration=None if judged is None else _judgement(judged),
        notes=tuple(raw["notes"]),
        version=raw.get("version", 1),
        headline=raw.get("headline", ""),
        evidence=None if weighed is None else Evidence(**{item.name: weighed[item.name] for item in fields(Evidence)}),
        kept=None if held is None else kept.of_json(held),
    )


def _judgement(raw: Mapping[str, Any]) -> Judgement:
    """The first edition wrote only what belongs to the rule."""
    return Judgement(
        source=raw["source"],
        n=raw["n"],
        smallest_p=raw["smallest_p"],
        above_null=raw["above_null"],
        canary_difference=raw["canary_difference"],
        exchangeability=tuple(raw["exchangeability"]),
        threshold=raw.get("threshold"),
        expected_false_alarms=raw.get("expected_false_alarms"),
        least_hits=raw.get("least_hits"),
    )
