"""A scan read back from its store: the captions as they are now, joined with their scores."""

import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import polars as pl

from scanner.dataset import captions, readers, shards
from scanner.store.ledger import SCORE, Ledger
from scanner.store.record import RunRecord

FILES_NAMED = 3  # in a sentence


@dataclass(frozen=True)
class StoredScan:
    """One scan in a store, with the captions as they are now.

    `record`: what the run was asked, and with which versions; `captions`: lazy [file, row, text]; `left_out`: files
    that cannot be read as they are now.

    >>> stored = read_store("store")
    >>> stored.record.config.seeds, stored.captions.collect_schema().names()
    ((0, 1), ['file', 'row', 'text'])
    """

    scan_id: str
    store: Path
    record: RunRecord = field(repr=False)
    captions: pl.LazyFrame = field(repr=False)
    left_out: tuple[readers.Problem, ...] = field(repr=False)

    @cached_property
    def scores(self) -> pl.DataFrame:
        """One row per unique prompt, [prompt_id, text, n_rows, status, scores..., q1, q2, q3], read when first asked.

        The status is null where a caption is newer than the scan.
        """
        ledger = Ledger(self.store)
        with tempfile.TemporaryDirectory(prefix="overscan-", ignore_cleanup_errors=True) as name, ledger.refusals():
            return shards.join(self.captions, ledger.rows(self.scan_id), Path(name))

    @property
    def full_scan_id(self) -> str:
        """The scan_id whose calibrations hold: of a screened scan, that of the same scan unscreened."""
        return self.record.full_scan_id(self.scan_id)

    @property
    def notes(self) -> list[str]:
        """Whose captions are missing: files that the scan, or now the reader, could not read, in sentences."""
        then = self.record.left_out
        now = [problem.file for problem in self.left_out if problem.file not in then]
        whose = (("could not be read when scanned", then), ("cannot be read now", now))
        return [f"files that {why}, whose captions are missing: {_some(files)}" for why, files in whose if files]

    def canaries(self, score: str) -> pl.DataFrame:
        """[canary, score] of fixed prompts, as every run that computed the score for this scan found it."""
        return canaries_of(Ledger(self.store).records(self.scan_id), [score])


def read_store(store: str | Path, scan_id: str | None = None) -> StoredScan:
    """The scan that began last; its captions are read again, but for the files that it left out.

    `scan_id`: another scan of the store, by its id or 8 or more of the first characters. Raises ScannerError.

    >>> read_store("store").scores.filter(status="scored").columns[:4]
    ['prompt_id', 'text', 'n_rows', 'status']
    """
    scan_id, record = Ledger(store).last_run(scan_id)
    rows = readers.read(record.inputs, record.column, record.limit, dialect=record.dialect).without(record.left_out)
    return StoredScan(scan_id, Path(store), record, captions.texts(rows), rows.problems)


def _some(files: Sequence[str]) -> str:
    more = len(files) - FILES_NAMED
    return ", ".join(files[:FILES_NAMED]) + (f" and {more:,} more" if more > 0 else "")


def canaries_of(records: Iterable[RunRecord], scores: Sequence[str]) -> pl.DataFrame:
    """[canary, scores...] in the records of those runs that computed these scores; older ones may know fewer."""
    rows = [row for record in records for row in record.canaries if all(score in row for score in scores)]
    return pl.DataFrame(rows, schema={"canary": pl.String(), **dict.fromkeys(scores, SCORE)})
