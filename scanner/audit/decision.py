"""One night's decision: ranked prompts, flagged rows, and a summary that says what was asked and found."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from functools import cached_property

import polars as pl

from scanner.audit import diagnose
from scanner.audit.baseline import Baseline
from scanner.audit.calibrate import Calibration, null_needed
from scanner.audit.evidence import Prior, weigh
from scanner.audit.findings import group
from scanner.audit.headline import headline, of_the_evidence, percent
from scanner.audit.kept import Kept
from scanner.audit.policy import classify
from scanner.audit.rank import Rule, ranked_in, sources
from scanner.audit.screened import of_the_screen
from scanner.audit.summary import Findings, Judgement, Summary
from scanner.config import SCREENED_OUT
from scanner.dataset.shards import Shard, shard_of
from scanner.store.stored import StoredScan

SHARDS_NAMED = 8


@dataclass(frozen=True)
class Night:
    """`ranked`: every unique prompt, as of `rank`, with `finding` and `finding_id`, to be streamed; `flagged`: every
    row that bears a flagged one.

    `compared`: whether a baseline or an allow-list told findings apart.
    """

    ranked: pl.LazyFrame = field(repr=False)
    flagged: pl.DataFrame = field(repr=False)
    summary: Summary
    calibration: Calibration | None = None
    compared: bool = False

    @cached_property
    def prompts(self) -> pl.DataFrame:
        """The flagged prompts, best first."""
        return self.ranked.filter("flagged").collect(engine="streaming")

    def noting(self, said: Sequence[str]) -> "Night":
        """The same night with more notes."""
        return replace(self, summary=replace(self.summary, notes=(*self.summary.notes, *said)))


def decide(
    stored: StoredScan,
    rule: Rule,
    today: date,
    *,
    calibration: Calibration | None = None,
    baseline: Baseline | None = None,
    allow: pl.DataFrame | None = None,
    kept: Kept | None = None,
    prior: Prior | None = None,
) -> Night:
    """A scan's scores and captions -> flags, findings, summary.

    `kept`: where the rule's threshold comes from; `prior`: what is taken as known of the share of memorized prompts.
    Raises ScannerError where the calibration is of another scan, too small, or of an engine that has changed, and where
    a threshold is of another scan or score.
    """
    if kept is not None:
        kept.check(stored.full_scan_id, rule.score)
    if calibration is not None:
        calibration.check(stored.full_scan_id)
    ranked = ranked_in(stored.work, stored.prompts, rule, calibration)
    ranked, of_the_lists = classify(ranked, baseline, allow, today)
    flagged = ranked.filter("flagged").collect(engine="streaming")
    counts = _counts(ranked, rule.score)
    lacking = unfinished(ranked, stored.record.shard.count) if counts["unscored"] else []
    notes = [*lacking, *stored.notes, *of_the_lists]
    if baseline is not None and (baseline.scan_id, baseline.score) != (stored.scan_id, rule.score):
        notes.append(f"the baseline of {baseline.date} was written for another model, setting or score")
    if baseline is not None:
        known = flagged.filter(finding="known")["prompt_id"]
        if carried := baseline.elsewhere(known, stored.scan_id, rule.score):
            notes.append(f"{carried:,} known findings were accepted under another model, setting or score")
    notes += _of_the_prompts(counts, rule.score) + of_the_screen(stored, flagged)
    judged = None
    if calibration is not None:
        judged, found = _judge(ranked, counts, rule, calibration, stored.canaries(rule.score))
        notes += found
    grouped = group(flagged.select("rank", "prompt_id"), stored.sketches(flagged["prompt_id"]))
    ranked = ranked.with_columns(finding_id=_finding_ids(grouped))
    flagged = flagged.with_columns(finding_id=_finding_ids(grouped))
    rows = sources(flagged, stored.captions)
    summary = Summary(
        date=today,
        scan_id=stored.scan_id,
        full_scan_id=stored.full_scan_id,
        made_with=stored.record.made_with,
        rule=rule,
        prompts=counts["prompts"],
        scored=counts["ranked"],
        flagged=len(flagged),
        flagged_rows=len(rows),
        findings=Findings(**dict(flagged.group_by("finding").len().iter_rows())),
        lowest_flagged=flagged[rule.score].min(),  # type: ignore[arg-type]
        calibration=judged,
        evidence=weigh(flagged, counts["ranked"], rule, calibration, kept, prior),
        kept=kept,
    )
    said = headline(summary)
    if lacking:
        said = f"UNFINISHED, {percent(1 - counts['unscored'] / counts['prompts'])} of the prompts are scored. {said}"
    summary = replace(summary, headline=said, notes=(*notes, *of_the_evidence(summary)))
    return Night(ranked, rows, summary, calibration, compared=baseline is not None or allow is not None)


def _finding_ids(grouped: pl.DataFrame) -> pl.Expr:
    """Of flagged prompts, as of `scanner.audit.findings`: an expression, as a join would be made with every pass.

    Elementwise, and said to be: with two columns to look up in, Polars would hold all prompts at once.
    """

    def led(flagged: pl.Series) -> pl.Series:
        if flagged.null_count() == len(flagged):  # most parts of a ranking
            return flagged
        return flagged.replace_strict(
            grouped["prompt_id"], grouped["finding_id"], default=None, return_dtype=pl.String()
        )

    return pl.when("flagged").then("prompt_id").map_batches(led, pl.String(), is_elementwise=True)


def _counts(ranked: pl.LazyFrame, score: str) -> dict[str, int]:
    """Prompts by what must be said of them."""
    status = pl.col("status")
    counted = ranked.select(
        prompts=pl.len(),
        ranked=pl.col("rank").count(),
        unscored=status.null_count(),
        lacking=((status == "scored") & pl.col(score).is_null()).sum(),
        screened_out=status.eq_missing(SCREENED_OUT).sum(),
        flagged=pl.col("flagged").sum(),
    )
    return counted.collect(engine="streaming").row(0, named=True)


def unfinished(ranked: pl.LazyFrame, count: int) -> list[str]:
    """Of a scan in `count` shards that has not scored all prompts, in a sentence: which are missing, and what to do."""
    if count == 1:
        return []
    parts = ranked.group_by(shard=shard_of(count)).agg(pl.len(), left=pl.col("status").null_count())
    shards = parts.sort("shard").collect(engine="streaming")
    missing = [f"{Shard(i, count)} ({left:,} of {n:,} prompts)" for i, n, left in shards.iter_rows() if left]
    named = ", ".join(missing[:SHARDS_NAMED]) + (" and others" if len(missing) > SHARDS_NAMED else "")
    return [
        f"UNFINISHED: {len(missing):,} of {count:,} shards of this scan have not scored all of their prompts: {named}: "
        "these prompts cannot be flagged; run the missing shards with --shard, then report again"
    ]


def _of_the_prompts(counts: Mapping[str, int], score: str) -> list[str]:
    """Who has no score, and why, in sentences."""
    said = []
    if unscored := counts["unscored"]:
        said.append(f"{unscored:,} prompts of the inputs are newer than the scan and have no score: scan again")
    if lacking := counts["lacking"]:
        said.append(
            f"{lacking:,} scored prompts have no {score} and are never flagged by it: an overscan scored them that did "
            "not know it, or it is undefined for them; scan into a new --store to have it for all"
        )
    if out := counts["screened_out"]:
        said.append(
            f"screened: {out:,} prompts were found ordinary by a first pass, got no other, and are never flagged; all "
            "counts of scored prompts include them"
        )
    return said


def _judge(
    ranked: pl.LazyFrame, counts: Mapping[str, int], rule: Rule, calibration: Calibration, canaries: pl.DataFrame
) -> tuple[Judgement, list[str]]:
    """What the calibration can tell of this dataset, and the signs against it."""
    difference = diagnose.check_canaries(calibration, canaries)
    checks = diagnose.exchangeability(calibration, ranked)
    n, m = len(calibration.null), counts["ranked"]
    above = _count(ranked.filter(pl.col(rule.score) > calibration.null[-1]))
    null = calibration.prompts["prompt_id"].implode()
    notes = diagnose.warnings(checks)
    if shared := _count(ranked.filter(pl.col("rank").is_not_null(), pl.col("prompt_id").is_in(null))):
        notes.append(f"{shared:,} prompts of the dataset are null captions themselves, taken to be benign")
    threshold, expected, least = None, None, None
    if rule.fpr is not None:
        threshold, expected = calibration.threshold(rule.fpr), rule.fpr * m
    if rule.fdr is not None:
        least = calibration.least_hits(m, rule.fdr)
        notes.append(detectable(n, m, least, rule.fdr))
        if above and not counts["flagged"]:
            notes.append(
                f"{above:,} prompts score above every null caption, too few for this null: see the line above, or "
                "use --fpr"
            )
    judged = Judgement(
        source=dict(calibration.source),
        n=n,
        smallest_p=calibration.smallest_p,
        above_null=above,
        canary_difference=difference,
        exchangeability=tuple(checks.to_dicts()),
        threshold=threshold,
        expected_false_alarms=expected,
        least_hits=least,
    )
    return judged, notes


def _count(rows: pl.LazyFrame) -> int:
    return int(rows.select(pl.len()).collect(engine="streaming").item())


def detectable(n: int, m: int, least: int, fdr: float) -> str:
    """What `n` null captions can find in `m` prompts, in one sentence."""
    said = f"{n:,} null captions: p-values from {1 / (n + 1):.2g} up; at fdr {fdr:g}"
    if least == 1:
        return f"{said} a single one of {m:,} prompts can be found"
    one = null_needed(m, 1, fdr)
    return f"{said} they flag {least:,} or more of {m:,} prompts, or none (a single one could be found with {one:,})"
