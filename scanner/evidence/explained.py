"""Explained captions as tables for a terminal and as data files."""

from collections.abc import Callable, Mapping
from pathlib import Path, PurePath

import polars as pl
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from scanner.errors import ScannerError, first_line
from scanner.evidence.explain import MOST_DELETED, Explanation, Word
from scanner.files import replacing
from scanner.pages.safe import printable
from scanner.places import Place

BAR = 20  # characters of the most important word's bar
STRONG, SOME = 0.5, 0.2  # shares of the most important word's importance that are coloured
WRITERS: Mapping[str, Callable[[pl.DataFrame, Path], object]] = {
    ".parquet": lambda frame, path: frame.write_parquet(path),
    ".jsonl": lambda frame, path: frame.write_ndjson(path),
}


def view(found: Explanation, score: str, threshold: float | None) -> RenderableType:
    """A caption, its words with their importance as numbers and bars, and the suggested edit.

    Text comes last on a line: of a right-to-left caption, a terminal would reverse what follows.
    """
    heading = Text.assemble((printable(found.text), "bold"))
    if found.score is None:
        return Group(heading, Text(f"not explained: {found.status}\n"))
    limit = "" if threshold is None else f", threshold {threshold:.4f}"
    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("importance", "without it"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("", width=BAR, no_wrap=True)
    table.add_column("word" if len(found.text.split()) > 1 else "token", overflow="fold")
    largest = max((word.importance for word in found.words if word.importance is not None), default=0.0)
    for word in found.words:
        if word.read:
            table.add_row(*_row(word, largest))
    unread = sum(not word.read for word in found.words)
    rest = [Text(f"{unread:,} words are not read by the model: importance 0")] if unread else []
    return Group(heading, Text(f"{score} {found.score:.4f}{limit}"), table, *rest, _edit(found, threshold), Text())


def _row(word: Word, largest: float) -> tuple[str, str, str, Text]:
    if word.importance is None or word.score is None:
        return "not finite", "", "", Text(printable(word.text))
    share = max(word.importance, 0.0) / largest if largest > 0 else 0.0
    style = "bold red" if share >= STRONG else "yellow" if share >= SOME else ""
    return f"{word.importance:+.4f}", f"{word.score:.4f}", "█" * round(share * BAR), Text(printable(word.text), style)


def _edit(found: Explanation, threshold: float | None) -> Text:
    if threshold is None or found.score is None:
        return Text("no edit was sought: name a --threshold")
    if found.score < threshold:
        return Text("under the threshold as it is")
    if found.edit is None:
        return Text(f"no edit: deleting up to {MOST_DELETED} words, the search found nothing under the threshold")
    deleted = ", ".join(printable(found.words[i].text) for i in found.edit.deleted)
    smallest = "no smaller deletion does" if found.edit.smallest else "a smaller deletion may do"
    count = f"{len(found.edit.deleted)} of {len(found.words)}"
    return Text(
        f"delete {count}, {smallest}: {deleted}\nthen {found.edit.score:.4f}, not flagged: {printable(found.edit.text)}"
    )


def check(out: Place) -> None:
    """Raises ScannerError for a file of no known format."""
    suffix = PurePath(out).suffix
    if suffix not in WRITERS:
        raise ScannerError(f"{out}: a file in {suffix or 'no known format'}; needed one of {', '.join(WRITERS)}")


def write(out: Path, variants: pl.DataFrame) -> None:
    """Write the edited captions as data. Raises ScannerError where it cannot."""
    try:
        with replacing(out) as partial:
            WRITERS[out.suffix](variants, partial)
    except (OSError, pl.exceptions.ComputeError) as error:
        raise ScannerError(f"{out}: cannot be written ({first_line(error)})") from error
