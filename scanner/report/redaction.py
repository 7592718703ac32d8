"""A report without captions and without places: for people who may see the numbers and not the data.

No word of a caption stays, as the first words are often a person's name: its id and its length do. Files are named from
the dataset's own folder on, models and other files by their names alone. File names themselves stay: they find rows.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl

from scanner.audit.summary import Summary
from scanner.identity import LEAST
from scanner.report.contents import Contents
from scanner.store.record import RunRecord

GLOB = re.compile(r"[*?\[]")
PLACE = re.compile(r"(?<![\w.)/])(?:[a-zA-Z][\w+.-]+:/)?/(?:[^\s/,;'\"()]+/)*([^\s/,;'\"()]*)")  # also a URL


@dataclass(frozen=True)
class Places:
    """What a report calls places: folders of the dataset (`bases`), and other paths that it would name (`others`)."""

    bases: Mapping[str, str]
    others: Mapping[str, str]

    @classmethod
    def of(cls, records: Sequence[RunRecord], files: Iterable[str]) -> "Places":
        """Of a scan's runs and the dataset's files that its report names."""
        known = {*files, *(file for record in records for file in record.left_out)}
        inputs = (item for record in records for item in record.inputs)
        bases = list(dict.fromkeys(base for item in inputs if (base := _base(item, known))))
        named = [path for record in records for path in (
            record.model, record.reference and record.reference.path, record.base and record.base.path,
            record.screening and record.screening.model,
        )]  # fmt: skip
        return cls(_labels(bases), {path: _name(path) for path in named if path})

    def file(self, path: str) -> str:
        """A file of the dataset from its folder on."""
        base = max((base for base in self.bases if path.startswith(f"{base}/")), key=len, default=None)
        return _name(path) if base is None else self.bases[base] + path[len(base) + 1 :]

    def hide(self, words: str) -> str:
        """A sentence without places."""
        for path in sorted([*self.bases, *self.others], key=len, reverse=True):
            words = words.replace(f"{path}/", self.bases.get(path, "")).replace(path, _name(path))
        return PLACE.sub(r"\1", words)


def redact(contents: Contents, places: Places) -> Contents:
    """A report with an id and a length for each caption, and without places."""
    null = contents.null
    files = contents.flagged["file"].unique().to_list()
    flagged = contents.flagged.with_columns(file=pl.col("file").replace(files, [places.file(path) for path in files]))
    return replace(
        contents,
        facts={label: places.hide(words) for label, words in contents.facts.items()},
        ranked=contents.ranked.with_columns(text=_redacted()),
        flagged=flagged.with_columns(text=_redacted()),
        notes=[places.hide(note) for note in contents.notes],
        null=null and replace(null, source=", ".join(map(_name, null.source.split(", ")))),
        redacted=True,
    )


def redact_summary(summary: Summary, places: Places) -> Summary:
    """A summary without places."""
    made, judged = summary.made_with, summary.calibration
    if made is not None:
        reference = made.reference and replace(made.reference, path=_name(made.reference.path))
        base = made.base and replace(made.base, path=_name(made.base.path))
        made = replace(made, model=_name(made.model), reference=reference, base=base)
    if judged is not None:
        judged = replace(judged, source={key: _named(value) for key, value in judged.source.items()})
    return replace(summary, made_with=made, calibration=judged, notes=tuple(map(places.hide, summary.notes)))


def _redacted() -> pl.Expr:
    tag = pl.format("[{}] {} characters", pl.col("prompt_id").str.head(LEAST), pl.col("text").str.len_chars())
    return pl.when(pl.col("text").is_not_null()).then(tag)


def _base(source: str, files: Iterable[str]) -> str:
    """The folder that an input names: of a glob the part before it, of a file its own."""
    if found := GLOB.search(source):
        return source[: found.start()].rpartition("/")[0]
    one = source in files or Path(source).is_file() or ("://" in source and "." in _name(source))
    return source.rpartition("/")[0] if one else source.rstrip("/")


def _labels(bases: list[str]) -> dict[str, str]:
    """How a report begins the files of each folder: one needs no name; several are told apart by their last parts."""
    if len(bases) == 1:
        return {bases[0]: ""}
    names = [_name(base) for base in bases]
    numbers = [f"{i}-" if names.count(name) > 1 else "" for i, name in enumerate(names, 1)]
    return {base: f"{number}{name}/" for base, number, name in zip(bases, numbers, names, strict=True)}


def _name(path: str) -> str:
    return path.rstrip("/").rpartition("/")[2]


def _named(value: Any) -> Any:
    if isinstance(value, list):
        return [_named(item) for item in value]
    return _name(value) if isinstance(value, str) else value
