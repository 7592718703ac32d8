"""What was read of a dataset: files with their rows, rows without a caption and why, what was passed over."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any


@dataclass(frozen=True)
class Problem:
    """A file that was left out of the rows, and why: what was found, what was needed, what to do."""

    file: str
    message: str


@dataclass(frozen=True)
class FileReading:
    """One file, or, where a record has no room for each, all `files` of a folder with one suffix.

    `without_caption`: of the `rows`; `reasons`: why -> how many, most first, where the format knows more than nulls;
    `notes`: what is odd about it; `column`: of the captions, None for formats without; `dialect`: of a CSV file.
    """

    file: str
    rows: int
    files: int = 1
    without_caption: int = 0
    reasons: Mapping[str, int] | None = None
    notes: tuple[str, ...] = ()
    column: str | None = None
    dialect: str | None = None


@dataclass(frozen=True)
class Reading:
    """All files: sums, each one's part, and what folders hold that is no dataset (`passed_over`, in sentences)."""

    rows: int
    without_caption: int
    reasons: Mapping[str, int]
    files: tuple[FileReading, ...]
    passed_over: tuple[str, ...]

    @property
    def notes(self) -> Iterator[tuple[str, str]]:
        """(file, what is odd about it)."""
        return ((each.file, note) for each in self.files for note in each.notes)


def as_json(reading: Reading) -> dict[str, Any]:
    """As records and `--json` have it: of a file, only what there is to tell."""
    return asdict(reading) | {"files": [facts(each) for each in reading.files]}


def of_json(raw: Mapping[str, Any]) -> Reading:
    """The reverse; keys that a newer version has added are passed over. Raises KeyError, TypeError, AttributeError."""
    files = tuple(file_of_json(each) for each in raw["files"])
    return Reading(raw["rows"], raw["without_caption"], raw["reasons"], files, tuple(raw["passed_over"]))


def facts(each: FileReading) -> dict[str, Any]:
    """One file as JSON has it."""
    usual = FileReading(each.file, each.rows)
    told = {name: value for name, value in asdict(each).items() if value != getattr(usual, name)}
    return {"file": each.file, "rows": each.rows, **told}


def file_of_json(raw: Mapping[str, Any]) -> FileReading:
    """The reverse of `facts`."""
    known = {field.name for field in fields(FileReading)}
    facts = {name: value for name, value in raw.items() if name in known}
    return FileReading(**facts | {"notes": tuple(raw.get("notes", ()))})
