"""A summary for the job page of a CI system, in GitHub's Markdown."""

import re
import string

import polars as pl

from scanner.pages.safe import visible
from scanner.report.contents import Contents, counts_by_status, flagged_prompts
from scanner.report.wording import MEANING, number, of_the_numbers

SHOWN = 10
CHARACTERS = 120
PLAIN = string.ascii_letters + string.digits + ",'-"  # every other ASCII character may mean something to Markdown


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
    values = ["rank", contents.score, *(name for name in ("q_value", "finding") if name in flagged.columns), "n_rows"]
    shown = flagged.head(SHOWN).with_columns(visible(pl.col("text"), CHARACTERS))
    lines = ["| " + " | ".join([*values, "prompt"]) + " |", "|" + " --: |" * len(values) + " :-- |"]
    for *cells, text in shown.select(*values, "text").iter_rows():
        lines.append("| " + " | ".join([*map(_cell, cells), _code(text)]) + " |")
    if len(flagged) > SHOWN:
        lines += ["", f"The first {SHOWN} of {len(flagged):,}; all are in `report.html` and `flagged.parquet`."]
    return ["\n".join(lines)]


def _cell(value: float | str | None) -> str:
    return value if isinstance(value, str) else number(value)


def _code(text: str) -> str:
    """Text that stays text: no Markdown, HTML, link, mention or table cell can begin in it."""
    return f"<code>{_escape(text)}</code>"


def _escape(text: str) -> str:
    flat = re.sub(r"\s+", " ", text)
    return re.sub(r"[!-~]", lambda match: match[0] if match[0] in PLAIN else f"&#{ord(match[0])};", flat)
