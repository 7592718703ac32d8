"""A summary for the job page of a CI system, in GitHub's Markdown."""

import re
import string
from collections.abc import Sequence

import polars as pl

from scanner.pages.safe import visible
from scanner.report.contents import Contents, counts_by_status, flagged_prompts
from scanner.report.wording import MEANING, number, of_the_numbers

SHOWN = 10
CHARACTERS = 120
PLAIN = string.ascii_letters + string.digits + ",'-.;:%()/?"  # other ASCII characters may mean something to Markdown
INSIDE = re.compile(r"(?<=[A-Za-z0-9])_(?=[A-Za-z0-9])")  # an underscore that is none's emphasis
LINKS = re.compile(r":(?=//)|(?<=www)\.", re.IGNORECASE)  # what GitHub makes links of


def render(contents: Contents) -> str:
    """Counts, the first flagged prompts, what a flag means, and what was scanned."""
    facts = [f"- **{label}**: {_code(value)}" for label, value in contents.facts.items()]
    statuses = ", ".join(f"{count:,} {status}" for status, count in counts_by_status(contents).items())
    parts = [
        f"## {contents.headline}",
        f"Rule: {_escape(contents.rule)}. {_escape(of_the_numbers(contents))}",
        "\n".join(f"- {_escape(note)}" for note in contents.notes),
        *_table(contents),
        f"**{MEANING[0][0]}.** {MEANING[0][1]}",
        "\n".join([*facts, f"- **Unique prompts**: {_escape(statuses)}"]),
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


def _table(contents: Contents) -> list[str]:
    flagged = flagged_prompts(contents)
    if flagged.is_empty():
        return []
    counted = flagged.with_columns(captions=pl.len().over("finding_id"), rows=pl.col("n_rows").sum().over("finding_id"))
    first = counted.unique("finding_id", keep="first", maintain_order=True)
    grouped = len(first) < len(flagged)
    optional = [name for name in ("q_value", "finding") if name in flagged.columns]
    values = ["rank", contents.score, *optional, *(["captions"] if grouped else []), "rows"]
    shown = first.head(SHOWN).with_columns(visible(pl.col("text"), CHARACTERS))
    cells = [[*map(_cell, numbers), _code(text)] for *numbers, text in shown.select(*values, "text").iter_rows()]
    lines = _aligned([[*values, "prompt"], *cells])
    if len(first) > SHOWN:
        kind = "findings, each with its highest caption" if grouped else "flagged captions"
        lines += ["", f"The first {SHOWN} of {len(first):,} {kind}; all are in `report.html` and `flagged.parquet`."]
    return ["\n".join(lines)]


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """A table whose columns, the last aside, are as wide as their widest cell: to be read as it is, too."""
    widths = [max(4, *map(len, column)) for column in zip(*rows, strict=True)][:-1]
    lines = [
        f"| {' | '.join(cell.rjust(width) for cell, width in zip(cells, widths, strict=True))} | {last} |"
        for *cells, last in rows
    ]
    rule = "".join(f"|{'-' * (width + 1)}:" for width in widths)
    return [lines[0], f"{rule}|:---|", *lines[1:]]


def _cell(value: float | str | None) -> str:
    return value if isinstance(value, str) else number(value)


def _code(text: str) -> str:
    """Text that stays text: no Markdown, HTML, link, mention or table cell can begin in it."""
    flat = re.sub(r"\s+", " ", text).strip()
    if not flat or "|" in flat or "\\" in flat:  # which a table looks for before code
        return f"<code>{_escape(text)}</code>"
    fence = "`" * (1 + max(map(len, re.findall("`+", flat)), default=0))
    pad = " " if "`" in (flat[0], flat[-1]) else ""
    return f"{fence}{pad}{flat}{pad}{fence}"


def _escape(text: str) -> str:
    flat = re.sub(r"\s+", " ", text)
    kept = {match.start() for match in INSIDE.finditer(flat)}
    broken = {match.start() for match in LINKS.finditer(flat)}
    return "".join(
        c if (c in PLAIN or not "!" <= c <= "~" or i in kept) and i not in broken else f"&#{ord(c)};"
        for i, c in enumerate(flat)
    )
