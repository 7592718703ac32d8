"""The top of the list as a table for a terminal."""

import polars as pl
from rich.table import Table
from rich.text import Text

SHOWN = 20


def table(ranked: pl.DataFrame, score: str) -> Table:
    """The first flagged prompts, with their score and the number of dataset rows."""
    flagged = ranked.filter("flagged")
    shown = flagged.head(SHOWN)
    title = f"{len(flagged):,} prompts flagged by {score} of {ranked['rank'].count():,} scored"
    view = Table(title=title, title_justify="left", title_style="bold")
    view.add_column("rank", justify="right", no_wrap=True)
    view.add_column("score", justify="right", no_wrap=True)
    view.add_column("rows", justify="right", no_wrap=True)
    view.add_column("prompt", overflow="ellipsis", no_wrap=True, ratio=1)
    for place, value, rows, text in shown.select("rank", score, "n_rows", "text").iter_rows():
        view.add_row(str(place), f"{value:.4f}", f"{rows:,}", Text(printable(text)))
    return view


def printable(text: str) -> str:
    """A caption that cannot move the cursor or colour the terminal: control and direction characters as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
