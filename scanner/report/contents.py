"""What every report format is made from, and the same with its captions taken out."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl

from engines.manifest import FILE as MANIFEST
from scanner.audit.decision import Night
from scanner.audit.rank import Rule
from scanner.errors import printable
from scanner.identity import identity, shown
from scanner.store.record import RunRecord

RULES = {
    "top": "the {value:,} highest by {score}",
    "quantile": "{score} from its quantile {value:g} up",
    "threshold": "{score} from {value:g} up",
    "fdr": "false discovery rate of at most {value:g}, by {score}",
    "fpr": "false positive rate of at most {value:g}, by {score}",
}


@dataclass(frozen=True)
class NullScores:
    """The scores of captions known to be benign, under the same scan_id.

    `scores`: finite, of the report's score; `source`: where the captions came from.
    """

    scores: pl.Series = field(repr=False)
    source: str


@dataclass(frozen=True, kw_only=True)
class Look:
    """What closer looks found of one flagged prompt: of what was not looked at, nothing.

    `pictures`: (words, PNG) in the order shown; `verdict`: what they say; `measures`: (name, value); `words`: those of
    the caption, each with whether it must go to get it under the threshold; `page`: relative link to all of it.
    """

    verdict: str = ""
    pictures: Sequence[tuple[str, bytes]] = field(default=(), repr=False)
    measures: Sequence[tuple[str, str]] = ()
    words: Sequence[tuple[str, bool]] = ()
    page: str | None = None


@dataclass(frozen=True)
class Beside:
    """What closer looks add to a report.

    `looks`: prompt_id -> what was found; `files`: name -> text, to lie in its folder; `pages`: title -> relative link,
    of the pages there.
    """

    looks: Mapping[str, Look] = field(default_factory=dict, repr=False)
    files: Mapping[str, str] = field(default_factory=dict, repr=False)
    pages: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Contents:
    """All that a report says.

    `headline`: what was found, in one line; `score`: the column that decided; `rule`: how it decided, in words;
    `facts`: label -> value, what was scanned and with what, in the order shown; `made`: when; `notes`: sentences that a
    reader of the flags must know.
    `ranked`: one row per unique prompt, best first, to be streamed: rank, prompt_id, text, n_rows, status, truncated,
    flagged, float columns (the scores) and optionally p_value, q_value and finding ("new", "known" or "allowed").
    `flagged`: one row per dataset row that bears a flagged prompt: the same columns without `flagged`, and file, row.
    `compared`: whether a baseline or an allow-list was given; without, all findings are new, which a page leaves out.
    `threshold`: the finite score from which prompts are flagged, where there is one.
    `rated`: whether a null of another day tells the threshold's rate of false alarms.
    `nights`: former reports and this one, [date, n_flagged, n_new], oldest first.
    `looks`: prompt_id -> what closer looks found; `pages`: title -> relative link, of pages in the same folder.
    `following`: the command to type next.
    """

    headline: str
    score: str
    rule: str
    made: datetime
    facts: Mapping[str, str]
    ranked: pl.LazyFrame = field(repr=False)
    flagged: pl.DataFrame = field(repr=False)
    notes: Sequence[str] = ()
    compared: bool = True
    threshold: float | None = None
    null: NullScores | None = None
    rated: bool = False
    nights: pl.DataFrame | None = field(default=None, repr=False)
    redacted: bool = False
    looks: Mapping[str, Look] = field(default_factory=dict, repr=False)
    pages: Mapping[str, str] = field(default_factory=dict)
    following: str | None = None

    @property
    def id(self) -> str:
        """Of the document, on each of its printed pages: of what was reported, and when."""
        return identity({"facts": dict(self.facts), "rule": self.rule, "made": self.made.isoformat()})[:12]

    @cached_property
    def prompts(self) -> pl.DataFrame:
        """The flagged prompts of `ranked`."""
        return self.ranked.filter("flagged").collect(engine="streaming")

    @cached_property
    def scored(self) -> int:
        """How many prompts have a rank."""
        return int(self.ranked.select(pl.col("rank").count()).collect(engine="streaming").item())


def contents_of(
    night: Night, facts: Mapping[str, str], made: datetime, nights: pl.DataFrame | None = None, **more: Any
) -> Contents:
    """What a report says of a night. `facts`: as of `facts_of`; `nights` and `more`: as of `Contents`."""
    summary, calibration = night.summary, night.calibration
    null = None
    if calibration is not None:
        inputs = calibration.source.get("inputs")
        source = ", ".join(map(str, inputs)) if isinstance(inputs, list) else "a calibration"
        null = NullScores(pl.Series(calibration.null), source)
    return Contents(
        headline=summary.headline,
        score=summary.score,
        rule=rule_in_words(summary.rule) + ("" if summary.kept is None else f", kept: {summary.kept.how}"),
        made=made,
        facts={**facts, "Captions fingerprint": fingerprint(night.ranked)},
        ranked=night.ranked,
        flagged=night.flagged,
        notes=summary.notes,
        compared=night.compared,
        threshold=summary.lowest_flagged if summary.rule.threshold is None else summary.rule.threshold,
        null=null,
        rated=summary.kept is not None and summary.kept.fpr is not None,
        nights=nights,
        **more,
    )


def score_columns(frame: pl.DataFrame) -> list[str]:
    """The columns that hold scores: all floats but p- and q-values."""
    floats = [name for name, dtype in frame.schema.items() if dtype.is_float()]
    return [name for name in floats if name not in ("p_value", "q_value")]


def flagged_prompts(contents: Contents) -> pl.DataFrame:
    """One row per flagged prompt, best first, as a page shows them, with the finding_id of each."""
    flagged = contents.prompts
    if "finding_id" not in flagged.columns:
        flagged = flagged.with_columns(finding_id=pl.lit(None, pl.String))
    flagged = flagged.with_columns(pl.col("finding_id").fill_null(pl.col("prompt_id")))
    return flagged if contents.compared else flagged.drop("finding", strict=False)


def to_drop(contents: Contents) -> pl.DataFrame:
    """The flagged prompts that nobody has allowed, best first: those that a curator would drop."""
    flagged = contents.prompts
    return flagged.filter(pl.col("finding") != "allowed") if "finding" in flagged.columns else flagged


def rows_to_drop(contents: Contents) -> pl.DataFrame:
    """[file, row] of every dataset row that bears a prompt to drop."""
    return contents.flagged.join(to_drop(contents), on="prompt_id", how="semi", maintain_order="left").select(
        "file", "row"
    )


def counts_by_status(contents: Contents) -> dict[str, int]:
    """Unique prompts by status, the most frequent first; a prompt newer than the scan counts as `not scored yet`."""
    counted = contents.ranked.group_by(pl.col("status").fill_null("not scored yet")).len()
    return dict(counted.sort("len", "status", descending=[True, False]).collect(engine="streaming").iter_rows())


def fingerprint(ranked: pl.LazyFrame) -> str:
    """Of the unique captions and their rows, whatever their order: sums of their ids, which are hashes, hashed."""
    half = pl.col("prompt_id").str.slice(-30, 15).str.to_integer(base=16, strict=False, dtype=pl.UInt64)
    other = pl.col("prompt_id").str.slice(-15).str.to_integer(base=16, strict=False, dtype=pl.UInt64)
    rows = pl.col("n_rows").cast(pl.UInt64)
    sums = {"a": half.sum(), "b": other.sum(), "c": (half * rows).sum(), "d": (other * rows).sum()}
    prompts, *found = ranked.select(prompts=pl.len(), **sums).collect(engine="streaming").row(0)
    return identity({"prompts": prompts, "sums": [str(number) for number in found]})[:16]


def facts_of(
    scan_id: str, record: RunRecord, earlier: Sequence[RunRecord] = (), by: str | None = None
) -> dict[str, str]:
    """A run's record in words. `earlier`: other runs of the scan, whose captions are reported too; `by`: who ran it."""
    config, compared = record.config, {"Reference": record.reference, "Base model": record.base}
    named = {label: f"{with_.path} ({shown(with_.fingerprint)})" for label, with_ in compared.items() if with_}
    return {
        "Dataset": "; ".join(dict.fromkeys(_inputs(run) for run in (record, *earlier))),
        "Model": record.model,
        **_model_fingerprint(scan_id, record),
        "Computed by": record.provider,
        "Seeds": ", ".join(map(str, config.seeds)),
        "Steps": f"first {config.first_steps} of {config.num_inference_steps}",
        **({"Timesteps": ", ".join(map(str, config.told))} if config.told else {}),
        "Guidance scale": f"{config.guidance_scale:g}",
        "Prior": f"of {config.prior_noises} noises",
        **named,
        "Scan": scan_id,
        "Versions": ", ".join(f"{name} {version}" for name, version in record.versions.items()),
        **({} if by is None else {"Run by": by}),
    }


def _model_fingerprint(scan_id: str, record: RunRecord) -> dict[str, str]:
    """Of the bundle, where it still lies where it was scanned from."""
    try:
        found = json.loads((Path(record.model) / MANIFEST).read_bytes())["fingerprint"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    same = record.made_with.scan_id(str(found)) == record.full_scan_id(scan_id)
    return {"Model fingerprint": str(found)} if same else {}


def _inputs(record: RunRecord) -> str:
    first = record.limit
    return printable(", ".join(record.inputs)) + ("" if first is None else f" (first {first:,} rows)")


def rule_in_words(rule: Rule) -> str:
    """A rule as a clause."""
    ((name, value),) = rule.limit.items()
    return RULES[name].format(value=value, score=rule.score)
