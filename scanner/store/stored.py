"""A scan read back from its store: the captions as they are now, joined with their scores."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import polars as pl

from scanner.dataset import captions, partitions, readers
from scanner.disk import work_folder
from scanner.places import Place, place_of
from scanner.store.inputs import distinct, together
from scanner.store.ledger import SCORE, Ledger
from scanner.store.record import RunRecord

FILES_NAMED = 3  # in a sentence


@dataclass(frozen=True)
class StoredScan:
    """One scan in a store, with the captions as they are now.

    `record`: what its newest run was asked, and with which versions; `captions`: lazy [file, row, text]; `left_out`:
    files that cannot be read as they are now; `earlier`: its runs that were asked for other captions, which are among
    these; `gone`: inputs of theirs that cannot be read any more; `work`: a folder for work files, with which `prompts`
    lie there and not in memory.

    >>> stored = read_store("store")
    >>> stored.record.config.seeds, stored.captions.collect_schema().names()
    ((0, 1), ['file', 'row', 'text'])
    """

    scan_id: str
    store: Place
    record: RunRecord = field(repr=False)
    captions: pl.LazyFrame = field(repr=False)
    left_out: tuple[readers.Problem, ...] = field(repr=False)
    earlier: tuple[RunRecord, ...] = field(default=(), repr=False, kw_only=True)
    gone: tuple[str, ...] = field(default=(), kw_only=True)
    work: Path | None = field(default=None, repr=False, kw_only=True)

    @cached_property
    def scores(self) -> pl.DataFrame:
        """One row per unique prompt, [prompt_id, text, n_rows, status, scores..., q1, q2, q3], read when first asked.

        In order of first appearance. The status is null where a caption is newer than the scan.
        """
        with work_folder() as folder:
            return self._joined(folder).collect().sort("first_row").drop("first_row")

    @cached_property
    def prompts(self) -> pl.LazyFrame:
        """The rows of `scores`, to be streamed: in no order from work files, if there is a folder for them."""
        return self.scores.lazy() if self.work is None else self._joined(self.work).drop("first_row")

    def _joined(self, folder: Path) -> pl.LazyFrame:
        ledger = Ledger(self.store)
        with ledger.refusals():
            return partitions.join(self.captions, ledger.scores(self.scan_id), folder)

    def sketches(self, prompt_ids: pl.Series) -> pl.DataFrame:
        """[prompt_id, sketch_v1] of these prompts: what their first step points at, in the bytes of 64 float16."""
        return Ledger(self.store).sketches(self.scan_id, prompt_ids)

    @property
    def full_scan_id(self) -> str:
        """The scan_id whose calibrations hold: of a screened scan, that of the same scan unscreened."""
        return self.record.full_scan_id(self.scan_id)

    @property
    def notes(self) -> list[str]:
        """Whose captions are missing: files that the scan, or now the reader, could not read, in sentences."""
        then = list(dict.fromkeys(file for record in (self.record, *self.earlier) for file in record.left_out))
        now = [problem.file for problem in self.left_out if problem.file not in then]
        whose = (("files that could not be read when scanned", then), ("files that cannot be read now", now))
        said = [f"{what}, whose captions are missing: {_some(files)}" for what, files in whose if files]
        if self.gone:
            said.append(f"inputs of earlier runs that are gone, whose captions are missing: {_some(self.gone)}")
        if self.earlier:
            said.append(
                f"the captions of {1 + len(self.earlier):,} runs of this scan that were asked for different ones are "
                "reported together; --last-run reports those of the newest run alone"
            )
        return said

    def canaries(self, score: str) -> pl.DataFrame:
        """[canary, score] of fixed prompts, as every run that computed the score for this scan found it."""
        return canaries_of(Ledger(self.store).records(self.scan_id), [score])


def read_store(
    store: Place, scan_id: str | None = None, last_run: bool = False, work: Path | None = None
) -> StoredScan:
    """The scan that began last; the captions of all its runs are read again, but for the files that they left out.

    `scan_id`: another scan of the store, by its id or 8 or more of the first characters; `last_run`: only the captions
    of its newest run; `work`: as of StoredScan. Raises ScannerError.

    >>> read_store("store").scores.filter(status="scored").columns[:4]
    ['prompt_id', 'text', 'n_rows', 'status']
    """
    scan_id, records = Ledger(store).scan_runs(scan_id)
    newest, *earlier = distinct(records[:1] if last_run else records)
    found = together([newest, *earlier])
    texts = captions.texts_of(found.frame)
    return StoredScan(
        scan_id, place_of(store), newest, texts, found.problems, earlier=tuple(earlier), gone=found.gone, work=work
    )


def _some(files: Sequence[str]) -> str:
    more = len(files) - FILES_NAMED
    return ", ".join(files[:FILES_NAMED]) + (f" and {more:,} more" if more > 0 else "")


def canaries_of(records: Iterable[RunRecord], scores: Sequence[str]) -> pl.DataFrame:
    """[canary, scores...] in the records of those runs that computed these scores; older ones may know fewer."""
    rows = [row for record in records for row in record.canaries if all(score in row for score in scores)]
    return pl.DataFrame(rows, schema={"canary": pl.String(), **dict.fromkeys(scores, SCORE)})
