"""What changed between two nights' reports.

A night is a folder that `overscan report` wrote, not a version of the store: flags depend on the rule, the calibration
and the captions of that night, none of which the store of scores holds.
"""

import polars as pl

from scanner.audit.decision import Night
from scanner.audit.diagnose import compare
from scanner.diffusion.scores import ABSOLUTE, RELATIVE
from scanner.errors import ScannerError

CHANGES = ("new", "flagged", "unflagged", "gone", "moved")


def diff(before: Night, after: Night) -> pl.DataFrame:
    """Prompts flagged on either night whose standing changed, best rank of the later night first.

    [change, prompt_id, text, score_before, score_after, rank_before, rank_after, sources]; `sources`: list of
    {file, row} as of the later night that flagged it. `change`: `new` (flagged, not in the dataset before), `flagged`
    and `unflagged` (there both nights, the flag differs), `gone` (was flagged, no longer in the dataset), `moved`
    (flagged both nights, another score, by more than rounding). Raises ScannerError for reports of different scores.
    """
    score, other = before.summary.score, after.summary.score
    if score != other:
        raise ScannerError(f"reports of {score} and of {other} do not compare: report both with one --score")
    both = _side(before, "before").join(_side(after, "after"), on="prompt_id", how="full", coalesce=True)
    was, now = pl.col("flagged_before").fill_null(False), pl.col("flagged_after").fill_null(False)
    gap = (pl.col("score_after") - pl.col("score_before")).abs()
    change = (
        pl.when(now & pl.col("flagged_before").is_null())
        .then(pl.lit("new"))
        .when(was & pl.col("flagged_after").is_null())
        .then(pl.lit("gone"))
        .when(now & ~was)
        .then(pl.lit("flagged"))
        .when(was & ~now)
        .then(pl.lit("unflagged"))
        .when(was & now & (gap > ABSOLUTE + RELATIVE * pl.col("score_before").abs()))
        .then(pl.lit("moved"))
    )
    changed = both.with_columns(change=change, text=pl.coalesce("text_after", "text_before")).drop_nulls("change")
    shown = ["change", "prompt_id", "text", *(f"{what}_{when}" for what in ("score", "rank") for when in _NIGHTS)]
    ordered = changed.with_columns(_order=pl.col("change").replace_strict(CHANGES, range(len(CHANGES))))
    ordered = ordered.sort("_order", "rank_after", "rank_before", "prompt_id", nulls_last=True)
    return ordered.join(_rows(before, after), on="prompt_id", how="left", maintain_order="left").select(
        *shown, "sources"
    )


def count(changes: pl.DataFrame) -> str:
    """How many prompts changed, in one line."""
    counts = dict(changes.group_by("change").len().iter_rows())
    return ", ".join(f"{counts.get(change, 0):,} {change}" for change in CHANGES)


def notes(before: Night, after: Night) -> list[str]:
    """What a reader of the changes must know, in sentences: other settings, and drift of the new prompts' scores.

    Prompts of both nights tell nothing of drift: under one scan_id their scores are computed once.
    """
    said = []
    if before.summary.scan_id != after.summary.scan_id:
        said.append("the nights are of different models or settings: scores moved for that reason")
    first, second = before.summary.rule, after.summary.rule
    if first.limit != second.limit:
        said.append(f"the nights flag by different rules, {first.limit} and {second.limit}")
    score = first.score
    new = after.ranked.join(before.ranked, on="prompt_id", how="anti")[score].drop_nulls()
    old = before.ranked[score].drop_nulls()
    if len(new) and len(old) and (drift := compare(old, new))["differs"]:
        said.append(
            f"drift: the {len(new):,} new prompts score otherwise than the earlier night's (medians "
            f"{drift['median_after']:.4g} and {drift['median_before']:.4g}, Kolmogorov-Smirnov distance "
            f"{abs(drift['distance']):.2f}, chance explains {drift['chance']:.2f}): a calibration for those may not "
            "fit these"
        )
    return said


_NIGHTS = ("before", "after")


def _side(night: Night, when: str) -> pl.DataFrame:
    names = {"text": "text", "rank": "rank", "flagged": "flagged", night.summary.score: "score"}
    return night.ranked.select("prompt_id", **{f"{new}_{when}": old for old, new in names.items()})


def _rows(before: Night, after: Night) -> pl.DataFrame:
    """[prompt_id, sources]: of the later night, and of the earlier one for prompts that only it flagged."""
    earlier = before.flagged.join(after.flagged, on="prompt_id", how="anti")
    rows = pl.concat([after.flagged, earlier]).sort("prompt_id", "file", "row")
    return rows.group_by("prompt_id", maintain_order=True).agg(sources=pl.struct("file", "row"))
