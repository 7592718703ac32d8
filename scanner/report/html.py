"""One self-contained HTML file: no request leaves it, and no caption can run in it.

The table's rows travel as deflated JSON that the page inflates itself; the first rows are also a plain table, for paper
and for browsers without scripts.
"""

import base64
import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl
from markupsafe import Markup

from scanner.pages import page
from scanner.pages.safe import visible
from scanner.report import charts, wording
from scanner.report.contents import Contents, Look, counts_by_status, flagged_prompts, score_columns

TEMPLATE = Path(__file__).parent / "template.html.j2"
PROMPTS = 10_000  # in the page; all of them are in flagged.parquet
SOURCES = 20  # dataset rows listed for one prompt
CHARACTERS = 500  # of a caption; text encoders read fewer
PRINTED = 100  # findings of the plain table
DIGITS = 5  # significant
SMALL = 128  # pixels across
Row = dict[str, Any]


def render(contents: Contents) -> str:
    """The page. Its security policy admits the one script and the one style sheet in it, by hash, and nothing else."""
    flagged = flagged_prompts(contents)
    shown, n_findings = _shown(flagged), flagged["finding_id"].n_unique()
    return page.render(
        TEMPLATE, {"style": "page.css", "script": "page.js"}, f"Overscan report {contents.id}, {contents.made:%F}",
        contents=contents, wording=wording, figures=_figures(contents, flagged),
        pages=contents.pages, here="report.html",
        numbers=wording.of_the_numbers(contents), charts=_charts(contents), statuses=counts_by_status(contents),
        columns=_columns(contents, flagged), n_flagged=len(flagged), n_shown=len(shown), findings=_findings(flagged),
        n_findings=n_findings, grouped=n_findings < len(flagged), guide=wording.guide(contents),
        printed=_printed(shown, contents.looks), payload=_packed(_payload(contents, shown)),
    )  # fmt: skip


def _printed(shown: pl.DataFrame, looks: Mapping[str, Look]) -> list[tuple[Row, list[Row], list[dict[str, object]]]]:
    """The plain table's findings, the first PRINTED and those looked at: the highest caption, the others, the looks."""
    findings: dict[str, list[Row]] = {}
    for row in shown.iter_rows(named=True):
        findings.setdefault(row["finding_id"], []).append(row)
    listed = []
    for place, captions in enumerate(findings.values()):
        seen = [_look(looks[row["prompt_id"]]) for row in captions if row["prompt_id"] in looks]
        if place < PRINTED or seen:
            together = captions[0] | {"n_rows": sum(row["n_rows"] for row in captions)}  # as the script's table has it
            listed.append((together, captions[1:], seen))
    return listed


def _look(look: Look) -> dict[str, object]:
    """What the template shows of it: pictures as (words, data, style)."""
    return vars(look) | {"pictures": [(words, *picture(png)) for words, png in look.pictures]}


def picture(png: bytes) -> tuple[str, str]:
    """A PNG as a page holds it, and its style: small ones are shown pixel by pixel."""
    width = int.from_bytes(png[16:20], "big")  # of its header
    return "data:image/png;base64," + base64.b64encode(png).decode(), "small" if width < SMALL else ""


def _shown(flagged: pl.DataFrame) -> pl.DataFrame:
    """The prompts that fit the page, best first; new findings are never cut before others. Captions made visible."""
    if "finding" in flagged.columns:
        flagged = flagged.sort(pl.col("finding") != "new", "rank")
    return flagged.head(PROMPTS).sort("rank").with_columns(visible(pl.col("text"), CHARACTERS))


def _columns(contents: Contents, flagged: pl.DataFrame) -> list[tuple[str, str]]:
    """(key, heading) of the table's columns."""
    optional = {"p_value": "p-value", "q_value": "q-value", "finding": "status"}
    middle = [(key, heading) for key, heading in optional.items() if key in flagged.columns]
    return [("rank", "rank"), (contents.score, "score"), ("text", "caption"), *middle, ("n_rows", "rows")]


def _figures(contents: Contents, flagged: pl.DataFrame) -> list[tuple[str, str]]:
    """The few numbers that the page opens with: (number, what it counts)."""
    scored = contents.scored
    findings = flagged["finding_id"].n_unique()
    figures = [
        *([(f"{findings:,}", "findings: images that they seem to lead to")] if findings < len(flagged) else []),
        (f"{len(flagged):,}", "captions flagged"),
        (f"{len(contents.flagged):,}", "dataset rows bear them"),
        (f"{scored:,}", "unique captions scored"),
        (f"{100 * len(flagged) / max(1, scored):.3g} %", "of them flagged"),
    ]
    if "finding" in flagged.columns:
        place = [words for _, words in figures].index("captions flagged") + 1
        figures.insert(place, (f"{len(flagged.filter(finding='new')):,}", "of them new"))
    return figures


def _findings(flagged: pl.DataFrame) -> list[tuple[str, int]]:
    """(finding, prompts), in a fixed order; none without a baseline or an allow-list."""
    if "finding" not in flagged.columns:
        return []
    counted = dict(flagged.group_by("finding").len().iter_rows())
    return [(finding, counted[finding]) for finding in ("new", "known", "allowed") if finding in counted]


def _charts(contents: Contents) -> dict[str, Markup]:
    drawable = contents.ranked.filter(pl.col(contents.score).is_finite()).select(contents.score, "flagged")
    finite = drawable.collect(engine="streaming")
    if finite.is_empty():
        return {}
    scores = finite[contents.score]
    null = contents.null.scores if contents.null else None
    ranked = contents.scored
    drawn = {"histogram": charts.histogram(scores, finite["flagged"], null, contents.threshold, ranked)}
    if null is not None and ranked == len(scores):  # those left of a screened scan are no sample of its prompts
        drawn["qq"] = charts.qq(scores, null)
    if contents.nights is not None and not contents.nights.is_empty():
        drawn["nights"] = charts.nights(contents.nights)
    return drawn


def _payload(contents: Contents, shown: pl.DataFrame) -> dict[str, object]:
    """What the script needs: columns of the shown prompts, and for each the dataset rows [file number, row]."""
    numbers = [name for name, dtype in shown.schema.items() if dtype.is_float()]
    optional = [name for name in ("truncated", "finding") if name in shown.columns]
    kept = shown.select("rank", "prompt_id", "text", "n_rows", *optional, pl.col(numbers).cast(pl.Float64))
    kept = kept.with_columns(pl.when(pl.col(numbers).is_finite()).then(pl.col(numbers).round_sig_figs(DIGITS)))
    files, sources = _sources(contents.flagged, shown)
    return {
        "score": contents.score,
        "scores": score_columns(shown),
        "rows": kept.to_dict(as_series=False),
        "files": files,
        "sources": sources,
        "lead": shown.with_row_index("i").select(pl.col("i").first().over("finding_id"))["i"].to_list(),
    }


def _sources(flagged: pl.DataFrame, shown: pl.DataFrame) -> tuple[list[str], list[list[list[int]]]]:
    """Names of the files, and for each shown prompt its first SOURCES dataset rows as [file number, row]."""
    rows = flagged.join(shown.select("prompt_id"), on="prompt_id", how="semi", maintain_order="left")
    rows = rows.filter(pl.int_range(pl.len()).over("prompt_id") < SOURCES)
    files = rows["file"].unique(maintain_order=True)
    numbered = rows.join(files.to_frame().with_row_index("number"), on="file", how="left", maintain_order="left")
    pair = pl.concat_list(pl.col("number").cast(pl.Int64), pl.col("row").cast(pl.Int64))
    grouped = numbered.group_by("prompt_id", maintain_order=True).agg(source=pair)
    sources = shown.select("prompt_id").join(grouped, on="prompt_id", how="left", maintain_order="left")
    names = files.to_frame().select(visible(pl.col("file"), CHARACTERS))["file"]
    return names.to_list(), sources["source"].fill_null([]).to_list()


def _packed(payload: dict[str, object]) -> str:
    """JSON, deflated, in base64: an alphabet that cannot end a script element."""
    text = json.dumps(payload, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return base64.b64encode(zlib.compress(text.encode(), 9)).decode()
