"""Explained captions as a page and a table in one folder, and the table read back for a report."""

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from scanner.errors import ScannerError, first_line
from scanner.evidence.cards_page import Card, Word, render
from scanner.evidence.explain import MOST_DELETED, Explanation, variants
from scanner.evidence.explained import SOME, STRONG
from scanner.files import reading, replacing_folder
from scanner.identity import shown
from scanner.pages import safe

PAGE, DATA = "explain.html", "explain.parquet"
FILES = (PAGE, DATA)
CHARACTERS = 500
HEADS = ("word", "importance", "score without it")
LEAD = (
    "Each caption was scored without each of its words; the importance of a word is how much lower that score is. Red "
    "words matter most, dotted ones somewhat. Struck through are the fewest words found whose deletion gets the "
    "caption under the threshold."
)
NOTE = (
    "Importances do not add up: of two words that each suffice, neither seems to matter. Not flagged is not the same "
    "as not memorized: scan what you write instead."
)


def write(out: Path, found: Sequence[Explanation], score: str, threshold: float | None, scan_id: str) -> list[Path]:
    """The page and the table of variants in the folder `out`, both together. Raises ScannerError where it cannot."""
    table = variants(found)
    suggested = pl.DataFrame(
        [(one.prompt_id, list(one.edit.deleted), True) for one in found if one.edit is not None],
        schema={"prompt_id": pl.String(), "deleted": pl.List(pl.UInt32), "suggested": pl.Boolean()}, orient="row",
    )  # fmt: skip
    table = table.join(suggested, on=["prompt_id", "deleted"], how="left", maintain_order="left")
    try:
        with replacing_folder(out, FILES.__contains__) as partial:
            marked = table.with_columns(pl.col("suggested").fill_null(False))
            marked.write_parquet(partial / DATA, metadata={"scan_id": scan_id, "score": score})
            (partial / PAGE).write_bytes(page(found, out, score, threshold, scan_id).encode())
    except (OSError, pl.exceptions.ComputeError) as error:
        raise ScannerError(f"{out}: cannot be written ({first_line(error)}): needed a folder to write to") from error
    return [out / name for name in FILES]


def read(folder: Path, scan_id: str, score: str, threshold: float | None) -> dict[str, list[tuple[str, bool]]]:
    """prompt_id -> its words, each with whether the suggested edit deletes it, as `write` left them, of this scan.

    Only edits that are under the `threshold` by this score, whatever was asked then. Captions of one word are left out:
    they were taken apart into tokens.
    """
    try:
        with reading(folder):
            told = pl.read_parquet_metadata(folder / DATA)
            if threshold is None or (told.get("scan_id"), told.get("score")) != (scan_id, score):
                return {}
            found = (
                pl.read_parquet(folder / DATA)
                .filter("suggested", pl.col("score") < threshold)
                .select("prompt_id", "text", "deleted")
            )
    except (OSError, pl.exceptions.PolarsError):  # none there, or another's
        return {}
    words = {prompt: (text.split(), set(deleted)) for prompt, text, deleted in found.iter_rows()}
    return {
        prompt: [(safe.visible_text(word, CHARACTERS), i in gone) for i, word in enumerate(all_words)]
        for prompt, (all_words, gone) in words.items()
        if len(all_words) > 1
    }


def page(found: Sequence[Explanation], folder: Path, score: str, threshold: float | None, scan_id: str) -> str:
    """A card per caption: its words, the edit, and each word in numbers."""
    edited = sum(one.edit is not None for one in found)
    headline = f"{edited:,} of {len(found):,} captions get under the threshold without some of their words"
    if threshold is None:
        headline = f"Which words {len(found):,} captions rest on"
    limit = "no threshold was named" if threshold is None else f"threshold {threshold:.4f}"
    lead = f"By {score}, {limit}. {LEAD}"
    kicker = f"Overscan, words of scan {shown(scan_id)}"
    return render(PAGE, folder, kicker, headline, lead, (NOTE,), HEADS, [_card(one, threshold) for one in found])


def _card(one: Explanation, threshold: float | None) -> Card:
    gone = set() if one.edit is None else set(one.edit.deleted)
    largest = max((word.importance for word in one.words if word.importance is not None), default=0.0)
    words = [
        Word(safe.visible_text(word.text, CHARACTERS), _style(word.importance, largest), i in gone)
        for i, word in enumerate(one.words)
    ] or [Word(safe.visible_text(one.text, CHARACTERS))]
    rows = [
        [word.text, f"{of.importance:+.3f}", f"{of.score:.3f}"]
        for word, of in zip(words, one.words, strict=False)
        if of.importance is not None and of.score is not None and of.read
    ]
    return Card(one.prompt_id[:12], words, _verdict(one, threshold), rows=rows, foot=_edit(one))


def _style(importance: float | None, largest: float) -> str:
    share = 0.0 if importance is None or largest <= 0 else importance / largest
    return "strong" if share >= STRONG else "some" if share >= SOME else ""


def _verdict(one: Explanation, threshold: float | None) -> str:
    if one.score is None:
        return f"not explained: {one.status}"
    if one.edit is not None:
        return f"{one.score:.3f}, without the words struck through {one.edit.score:.3f}"
    if threshold is None:
        return f"{one.score:.3f}"
    if one.score < threshold:
        return f"{one.score:.3f}, under the threshold as it is"
    return f"{one.score:.3f}: deleting up to {MOST_DELETED} words, the search found nothing under the threshold"


def _edit(one: Explanation) -> str:
    if one.edit is None:
        return ""
    smallest = "no smaller deletion does" if one.edit.smallest else "a smaller deletion may do"
    return f"{smallest}; what is left: {safe.visible_text(one.edit.text, CHARACTERS)}"
