"""The top of the list as a table, and changes between nights as lines, for a terminal."""

from collections.abc import Iterator

import polars as pl
from rich.table import Table
from rich.text import Text

from scanner.pages.safe import printable
from scanner.report.contents import Contents, flagged_prompts

SHOWN = 20


def table(contents: Contents) -> Table:
    """The first flagged prompts: score, p and q where there is a null, finding, number of dataset rows."""
    flagged, score = flagged_prompts(contents), contents.score
    shown = flagged.head(SHOWN)
    title = f"{contents.headline}\nby {score}, of {contents.scored:,} scored"
    view = Table(title=title, title_justify="left", title_style="bold", expand=True)
    view.add_column("rank", justify="right", no_wrap=True)
    view.add_column("score", justify="right", no_wrap=True)
    more = [name for name in ("p_value", "q_value", "finding") if name in shown.columns]
    for name in (*more, "rows"):
        view.add_column(name.removesuffix("_value"), justify="right", no_wrap=True)
    view.add_column("prompt", overflow="ellipsis", no_wrap=True, ratio=1)
    for place, value, rows, text, *cells in shown.select("rank", score, "n_rows", "text", *more).iter_rows():
        judged = [cell if isinstance(cell, str) else f"{cell:.1e}" for cell in cells]
        view.add_row(str(place), f"{value:.4f}", *judged, f"{rows:,}", Text(printable(text)))
    return view


def change_lines(changes: pl.DataFrame) -> Iterator[str]:
    """A tab-separated line per prompt of `scanner.audit.diff.diff`: change, id, scores, first source row, caption."""
    shown = {"score": ".4f"} if "p_before" not in changes.columns else {"rank": "d", "p": ".1e"}
    numbers = [(f"{what}_{when}", form) for what, form in shown.items() for when in ("before", "after")]
    yield "\t".join(["change", "prompt_id", *(name for name, _ in numbers), "sources", "text"])
    for row in changes.iter_rows(named=True):
        scores = ["" if row[name] is None else format(row[name], form) for name, form in numbers]
        first, *more = row["sources"]
        place = f"{first['file']}:{first['row']}" + (f" +{len(more):,}" if more else "")
        yield "\t".join([row["change"], row["prompt_id"], *scores, printable(place), printable(row["text"])])
