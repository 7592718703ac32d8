"""What changed between two nights' reports.

A night is a folder that `overscan report` wrote, not a version of the store: flags depend on the rule, the calibration
and the captions of that night, none of which the store of scores holds.
"""

import polars as pl

from scanner.audit.decision import Night
from scanner.audit.diagnose import compare
from scanner.dataset import partitions
from scanner.diffusion.scores import ABSOLUTE, RELATIVE
from scanner.disk import work_folder
from scanner.errors import ScannerError

CHANGES = ("new", "flagged", "unflagged", "gone", "moved")


def diff(before: Night, after: Night) -> pl.DataFrame:
    """Prompts flagged on either night whose standing changed, best rank of the later night first.

    [change, prompt_id, text, score_before, score_after, rank_before, rank_after, sources]; `sources`: list of
    {file, row} as of the later night that flagged it. `change`: `new` (flagged, not in the dataset before), `flagged`
    and `unflagged` (there both nights, the flag differs), `gone` (was flagged, no longer in the dataset), `moved`
    (flagged both nights, another score, by more than rounding). Scores of different models or settings do not compare:
    of those nothing has `moved`, and there are p_before and p_after, where both nights have p-values. Raises
    ScannerError for reports of different scores.
    """
    score, other = before.summary.score, after.summary.score
    if score != other:
        raise ScannerError(f"reports of {score} and of {other} do not compare: report both with one --score")
    alike, judged = same_scan(before, after), _judged(before, after)
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
        .when(was & now & pl.lit(alike) & (gap > ABSOLUTE + RELATIVE * pl.col("score_before").abs()))
        .then(pl.lit("moved"))
    )
    changed = both.with_columns(change=change, text=pl.coalesce("text_after", "text_before")).drop_nulls("change")
    numbers = ("score", "rank") if alike or not judged else ("score", "rank", "p")
    shown = ["change", "prompt_id", "text", *(f"{what}_{when}" for what in numbers for when in _NIGHTS)]
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
    """What a reader of the changes must know, in sentences: other settings, and drift."""
    said = []
    if not same_scan(before, after):
        said += _between(before, after)
    first, second = before.summary.rule, after.summary.rule
    if first.limit != second.limit:
        said.append(f"the nights flag by different rules, {first.limit} and {second.limit}")
    return said + drift(before, after)


def same_scan(before: Night, after: Night) -> bool:
    """Whether the scores of two nights compare: one model, one set of settings."""
    return before.summary.full_scan_id == after.summary.full_scan_id


def drift(before: Night, after: Night) -> list[str]:
    """Whether the prompts that are new in the later of two nights of one scan score otherwise, in a sentence.

    Prompts of both nights tell nothing of drift: under one scan_id their scores are computed once.
    """
    score = before.summary.score
    if not same_scan(before, after) or score != after.summary.score:
        return []
    new, old = _new_scores(before, after), before.ranked.select(score).drop_nulls().collect(engine="streaming")[score]
    if not (len(new) and len(old) and (found := compare(old, new))["differs"]):
        return []
    return [
        f"drift: the {len(new):,} new prompts score otherwise than the earlier night's (medians "
        f"{found['median_after']:.4g} and {found['median_before']:.4g}, Kolmogorov-Smirnov distance "
        f"{abs(found['distance']):.2f}, chance explains {found['chance']:.2f}): a calibration or a threshold for those "
        "may not fit these"
    ]


def _new_scores(before: Night, after: Night) -> pl.Series:
    """Scores of the later night's prompts that the earlier one has not, a part of the ids in memory at a time."""
    score = before.summary.score
    with work_folder() as work:
        for name, night in (("before", before), ("after", after)):
            partitions.split(night.ranked.select("prompt_id", score), work / name)
        schema, parts = dict(before.ranked.select("prompt_id", score).collect_schema()), []
        old, new = partitions.files(work / "before"), partitions.files(work / "after")
        for digit in partitions.DIGITS:
            earlier, later = (partitions.partition(split, digit, schema) for split in (old, new))
            parts.append(later.join(earlier, on="prompt_id", how="anti").select(score).drop_nulls().collect())
    return pl.concat(parts)[score]


def _between(before: Night, after: Night) -> list[str]:
    """Two models or settings compared on the prompts of both nights: by rank, and by p-values, never by scores."""
    said = [
        "the nights are of different models or settings, whose scores do not compare by value: prompts are compared by "
        "rank" + (" and p-value" if _judged(before, after) else "") + ", and none is said to have moved"
    ]
    columns = {"rank": "rank", "flagged": "flagged"} | ({"p": "p_value"} if _judged(before, after) else {})
    sides = [night.ranked.select("prompt_id", **columns).drop_nulls("rank").collect() for night in (before, after)]
    both = sides[0].join(sides[1], on="prompt_id", suffix="_after")
    if len(both) < 2:
        return [*said, "drift between them: unknown, as they have no two prompts in common"]
    correlation = both.select(pl.corr("rank", "rank_after", method="spearman")).item()
    flagged, again = both.filter("flagged"), both.filter("flagged", "flagged_after")
    said.append(
        f"drift between them: over {len(both):,} prompts of both nights the ranks correlate {correlation:.3f} "
        f"(Spearman); {len(again):,} of the {len(flagged):,} that were flagged are flagged again"
    )
    if "p" in both.columns and (found := compare(both["p"], both["p_after"]))["differs"]:
        said.append(
            f"drift of the p-values: the same prompts stand {'higher' if found['distance'] < 0 else 'lower'} above "
            f"their null than they did (medians {found['median_after']:.2g} and {found['median_before']:.2g}, "
            f"Kolmogorov-Smirnov distance {abs(found['distance']):.2f}, chance explains {found['chance']:.2f})"
        )
    return said


def _judged(before: Night, after: Night) -> bool:
    return all("p_value" in night.ranked.collect_schema() for night in (before, after))


_NIGHTS = ("before", "after")


def _side(night: Night, when: str) -> pl.DataFrame:
    names = {"text": "text", "rank": "rank", "flagged": "flagged", night.summary.score: "score"}
    names |= {"p_value": "p"} if "p_value" in night.ranked.collect_schema() else {}
    return night.ranked.select("prompt_id", **{f"{new}_{when}": old for old, new in names.items()}).collect()


def _rows(before: Night, after: Night) -> pl.DataFrame:
    """[prompt_id, sources]: of the later night, and of the earlier one for prompts that only it flagged."""
    earlier = before.flagged.join(after.flagged, on="prompt_id", how="anti")
    rows = pl.concat([part.select("prompt_id", "file", "row") for part in (after.flagged, earlier)]).sort(
        "prompt_id", "file", "row"
    )
    return rows.group_by("prompt_id", maintain_order=True).agg(sources=pl.struct("file", "row"))
