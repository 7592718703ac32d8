"""What was read, in words: rows without a caption, what is odd about files, what folders hold that is no dataset."""

from collections.abc import Iterator

from scanner.dataset.reading import Reading
from scanner.errors import printable

SHOWN = 5  # files that a summary names
KINDS = 3  # reasons that it names
LARGE = 0.1  # of the rows: a share without a caption that is no accident


def lines(reading: Reading) -> list[str]:
    """What a summary says of the inputs: nothing where all is as it should be."""
    return [*_missing(reading), *_notes(reading), *_passed_over(reading)]


def listing(reading: Reading) -> list[str]:
    """Every file read with its rows, the columns and the dialect, and everything that was passed over."""
    found = []
    for file in reading.files:
        how = "; ".join(known for known in (file.column, file.dialect) if known)
        without = f" ({file.without_caption:,} without a caption)" if file.without_caption else ""
        found.append(f"read            {printable(file.file)}: {file.rows:,} rows{without} {how}".rstrip())
    return found + [f"passed over     {message}" for message in reading.passed_over]


def _missing(reading: Reading) -> Iterator[str]:
    rows, missing = reading.rows, reading.without_caption
    if not missing:
        return
    why = ", ".join(f"{count:,} {printable(kind)}" for kind, count in list(reading.reasons.items())[:KINDS])
    loud = "WARNING: " if missing >= LARGE * rows else ""
    yield f"no caption      {loud}{missing:,} of {rows:,} rows ({missing / rows:.2%}){': ' + why if why else ''}"


def _notes(reading: Reading) -> Iterator[str]:
    notes = [f"{printable(file)}: {note}" for file, note in reading.notes]
    yield from (f"note            {note}" for note in notes[:SHOWN])
    if len(notes) > SHOWN:
        yield f"note            {len(notes) - SHOWN:,} more"


def _passed_over(reading: Reading) -> Iterator[str]:
    messages = reading.passed_over
    yield from (f"passed over     {message}" for message in messages[:SHOWN])
    if len(messages) > SHOWN:
        yield f"passed over     {len(messages) - SHOWN:,} more (--files lists them)"
