"""Captions are hostile text: what is done to them before a person's program shows them."""

import polars as pl

from scanner.errors import printable

__all__ = ["printable", "spreadsheet", "visible", "visible_text"]

CONTROLS = [chr(code) for code in (*range(0x20), 0x7F, *range(0x80, 0xA0)) if chr(code) not in "\t\n\r"]
DIRECTIONS = [chr(code) for code in (*range(0x202A, 0x202F), *range(0x2066, 0x206A))]  # they reorder what follows
FORMULA = r"^[=+\-@\t\r\n＝＋－＠]"  # a cell that a spreadsheet would compute


def visible(text: pl.Expr, longest: int) -> pl.Expr:
    """A caption to look at: control and direction characters become ⟨U+XXXX⟩; cut after `longest` characters."""
    unseen = CONTROLS + DIRECTIONS
    shown = text.str.head(longest).str.replace_many(unseen, [f"⟨U+{ord(c):04X}⟩" for c in unseen])
    more = text.str.len_chars().cast(pl.Int64) - longest
    return pl.when(more > 0).then(pl.format("{}… ({} more characters)", shown, more)).otherwise(shown)


def visible_text(text: str, longest: int) -> str:
    """One text, made `visible`."""
    return str(pl.select(visible(pl.lit(text), longest)).item())


def spreadsheet(frame: pl.DataFrame) -> pl.DataFrame:
    """The frame with an apostrophe before every text that a spreadsheet would take for a formula."""
    cells = pl.col(pl.String)
    return frame.with_columns(pl.when(cells.str.contains(FORMULA)).then("'" + cells).otherwise(cells).name.keep())
