"""What was read, in words: rows without a caption, what is odd about files, what folders hold that is no dataset."""

from collections.abc import Iterator, Mapping
from typing import Any

from scanner.errors import printable

SHOWN = 5  # files that a summary names
KINDS = 3  # reasons that it names
LARGE = 0.1  # of the rows: a share without a caption that is no accident


def lines(reading: Mapping[str, Any]) -> list[str]:
    """What a summary says of the inputs: nothing where all is as it should be."""
    return [*_missing(reading), *_notes(reading), *_passed_over(reading)]


def listing(reading: Mapping[str, Any]) -> list[str]:
    """Every file read with its rows, the columns and the dialect, and everything that was passed over."""
    found = []
    for facts in reading["files"]:
        how = [facts[name] for name in ("column", "dialect") if name in facts]
        missing = facts.get("without_caption", 0)
        without = f" ({missing:,} without a caption)" if missing else ""
        found.append(
            f"read            {printable(facts['file'])}: {facts['rows']:,} rows{without} {'; '.join(how)}".rstrip()
        )
    return found + [f"passed over     {message}" for message in reading["passed_over"]]


def _missing(reading: Mapping[str, Any]) -> Iterator[str]:
    rows, missing = reading["rows"], reading["without_caption"]
    if not missing:
        return
    why = ", ".join(f"{count:,} {printable(kind)}" for kind, count in list(reading["reasons"].items())[:KINDS])
    loud = "WARNING: " if missing >= LARGE * rows else ""
    yield f"no caption      {loud}{missing:,} of {rows:,} rows ({missing / rows:.2%}){': ' + why if why else ''}"


def _notes(reading: Mapping[str, Any]) -> Iterator[str]:
    notes = [f"{printable(facts['file'])}: {note}" for facts in reading["files"] for note in facts.get("notes", ())]
    yield from (f"note            {note}" for note in notes[:SHOWN])
    if len(notes) > SHOWN:
        yield f"note            {len(notes) - SHOWN:,} more"


def _passed_over(reading: Mapping[str, Any]) -> Iterator[str]:
    messages = reading["passed_over"]
    yield from (f"passed over     {message}" for message in messages[:SHOWN])
    if len(messages) > SHOWN:
        yield f"passed over     {len(messages) - SHOWN:,} more (--files lists them)"
