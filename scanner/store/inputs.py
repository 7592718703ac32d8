"""The captions of several runs of one scan, read again and put together: no row twice, whoever listed its file.

A scan may be shared among processes that are given a part of the dataset each, and every night may bring new files:
what a scan covers is the union of what its runs were asked.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import polars as pl

from scanner.dataset import readers
from scanner.dataset.readers import Problem, Rows
from scanner.dataset.readers.columns import Row, Source
from scanner.errors import InputError
from scanner.places import is_url
from scanner.store.record import RunRecord

Whole = Mapping[str, int | None]  # file -> how many of its rows count; None: all


@dataclass(frozen=True)
class Inputs:
    """What runs of one scan were asked, as it can be read now.

    `parts`: rows by files, a part per column and dialect that was named; `problems`: files that cannot be read now;
    `gone`: inputs of earlier runs that cannot be read at all any more, and so are missing.
    """

    parts: tuple[Rows, ...] = field(repr=False)
    problems: tuple[Problem, ...] = ()
    gone: tuple[str, ...] = ()

    @property
    def frame(self) -> pl.LazyFrame:
        """[file, row, caption] of all parts."""
        frames = [rows.frame for rows in self.parts]
        return frames[0] if len(frames) == 1 else pl.concat(frames)


@dataclass(frozen=True)
class Prefixes(Rows):
    """Rows of files that count as far as `counts` says, which is all of it where that is None."""

    counts: Whole = field(default_factory=dict, repr=False)

    def batches(self, file: str, source: Source, limit: int | None = None) -> Iterator[pl.DataFrame | Sequence[Row]]:
        """One file's batches, as far as it counts."""
        yield from super().batches(file, source, self.counts[file])


def distinct(records: Sequence[RunRecord]) -> list[RunRecord]:
    """The runs that were asked for different captions, newest first: of those that were asked alike, the newest."""
    newest: dict[tuple[object, ...], RunRecord] = {}
    for run in records:
        newest.setdefault(run.captions, run)
    return list(newest.values())


def together(records: Sequence[RunRecord]) -> Inputs:
    """Read the captions of all these runs, newest first. Raises InputError where the newest one's cannot be read.

    A file that several runs listed counts once, as far as any of them read it; where they named different columns of
    it, or dialects, once for each.
    """
    newest, *earlier = distinct(records)
    opened = [(newest, _read(newest))]
    gone: list[str] = []
    for record in earlier:
        try:
            opened.append((record, _read(record)))
        except InputError:
            gone += [name for name in record.inputs if name not in gone]
    if len(opened) == 1:
        rows = opened[0][1]
        return Inputs((rows,), rows.problems, tuple(gone))
    problems = {problem.file: problem for _, rows in opened for problem in rows.problems}
    return Inputs(tuple(_by_reading(opened)), tuple(problems.values()), tuple(gone))


def _read(record: RunRecord) -> Rows:
    rows = readers.read(record.inputs, record.column, record.limit, dialect=record.dialect)
    return rows.without(record.left_out)


def _by_reading(opened: Sequence[tuple[RunRecord, Rows]]) -> Iterator[Rows]:
    """For each column and dialect that runs named, the rows of all their files, each as far as any run read it."""
    for how in dict.fromkeys((record.column, record.dialect) for record, _ in opened):
        files: dict[str, Source] = {}
        counts: dict[str, int | None] = {}
        names: dict[str, str] = {}  # another name of the same file is the same file
        for rows in (rows for record, rows in opened if (record.column, record.dialect) == how):
            for file, count in _counted(rows).items():
                name = names.setdefault(_identity(file), file)
                files.setdefault(name, rows.files[file])
                counts[name] = _more(counts.get(name, 0), count)
        yield Prefixes({name: source for name, source in files.items() if counts[name] != 0}, (), counts=counts)


def _counted(rows: Rows) -> Whole:
    """How far each file counts: under a limit, those that it reaches, which reads as many rows. Raises InputError."""
    if rows.limit is None:
        return dict.fromkeys(rows.files)
    counts, left = dict.fromkeys(rows.files, 0), rows.limit
    for file, source in rows.files.items():
        if left > 0:
            counts[file] = sum(map(len, rows.batches(file, source, left)))
            left -= counts[file]
    return counts


def _more(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else max(one, other)


def _identity(file: str) -> str:
    return file if is_url(file) else os.path.realpath(file)
