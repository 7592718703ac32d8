"""The store: an append-only Delta table of scores, and one of the runs that made them.

Rows are found by content (scan_id, prompt_id), never by position, so a scan resumes after any interruption, on a
reordered or grown dataset, and pays only for what is new. The store holds no captions.

Several scans may append at once. A row that two of them computed is stored twice and read once: it is a pure function
of (scan_id, prompt_id), while refusing the second copy would make every writer wait and read what others wrote.
"""

from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import unquote

import polars as pl
from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError

from scanner.dataset.shards import shard_of
from scanner.errors import DiskError, StoreError
from scanner.identity import LEAST
from scanner.places import Place, is_url, place_of
from scanner.store import record
from scanner.store.record import FIRST_PASS, RunRecord
from scanner.store.tables import Columns, Table, refusals, scanned

MERGE_EVERY = 20  # commits of one ledger
SCORE_KEYS: Columns = {
    "scan_id": pl.String(),
    "prompt_id": pl.String(),
    "status": pl.String(),
    "truncated": pl.Boolean(),
}
SCORE = pl.Float32()  # every column of this type is a score, whichever overscan computed it
QUADRATICS, NUMBERS = ("q1", "q2", "q3"), pl.List(pl.Float32)  # a number per seed
RAW: Columns = dict.fromkeys((*QUADRATICS, *(f"{name}_low" for name in QUADRATICS)), NUMBERS)
RAW_LATER: Columns = {f"{name}_v2": NUMBERS for name in QUADRATICS}  # where they say nothing: where a scan has them
SKETCH = "sketch_v1"  # of `scanner.diffusion.sketch`
RUNS: Columns = {
    "scan_id": pl.String(),
    "started": pl.Datetime("us", "UTC"),
    "record": pl.String(),
    "sequence": pl.Int64(),  # 1, 2, ... in the order of the commits; null: of the first edition, before them
}


@dataclass(frozen=True)
class Run:
    """A run of the store. `started`: by the clock of the run's host."""

    scan_id: str
    started: datetime
    record: RunRecord


class Ledger:
    """A store, opened: a folder of this machine or of an object store.

    `score_names` become columns, beside those that it has. Without, the store must exist, and is left as it is. Every
    method raises StoreError where the store cannot be read and DiskError where it cannot be written.
    """

    def __init__(self, folder: Place, score_names: Collection[str] = ()):
        self.folder = place_of(folder)
        self._commits = 0
        path = "" if is_url(self.folder) else str(Path(self.folder).absolute())
        if unquote(path) != path or not {"[", "]"}.isdisjoint(path):
            raise StoreError(f"{self.folder}: deltalake cannot hold a path with %XX, [ or ]: name another --store")
        if score_names and path and Path(path).is_file():
            raise StoreError(f"{self.folder}: a file; a store is a folder: name another --store")
        self._scores = Table(self.folder, "scores", ("scan_id", "prompt_id", "status"))
        self._runs = Table(self.folder, "runs", ("scan_id", "started", "record"))
        with self.refusals():
            if score_names:
                names = dict.fromkeys(score_names, SCORE)
                self._scores.create({**SCORE_KEYS, **names, **RAW, SKETCH: pl.Binary()}, ["scan_id"])
                self._runs.create(RUNS, None)
            else:
                self._scores.verify()
                self._runs.verify()

    def scores(self, scan_id: str) -> pl.LazyFrame:
        """Score rows of one scan, to be streamed: [prompt_id, status, truncated, scores..., q1, q2, q3].

        Two scans at once may have stored a prompt_id twice. A score that the rows were not given is null. What is
        neither a score nor known to this overscan stays in the store.
        """
        with self.refusals():
            scores = scanned(self.table("scores"))
            known = SCORE_KEYS.keys() | RAW.keys() | RAW_LATER.keys()
            read = [name for name, dtype in scores.collect_schema().items() if name in known or dtype == SCORE]
            return scores.filter(pl.col("scan_id") == scan_id).select(read).drop("scan_id")

    def sketches(self, scan_id: str, prompt_ids: pl.Series) -> pl.DataFrame:
        """[prompt_id, sketch_v1] of these prompts, of those that have one."""
        with self.refusals():
            scores = scanned(self.table("scores"))
            if SKETCH not in scores.collect_schema():
                return pl.DataFrame(schema={"prompt_id": pl.String(), SKETCH: pl.Binary()})
            held = scores.filter(pl.col("scan_id") == scan_id, pl.col(SKETCH).is_not_null()).select("prompt_id", SKETCH)
            asked = prompt_ids.alias("prompt_id").to_frame().lazy()
            return held.join(asked, on="prompt_id", how="semi").unique("prompt_id").collect(engine="streaming")

    def append(self, scan_id: str, rows: pl.DataFrame) -> None:
        """Commit rows: all of them, or, interrupted, none. Now and then the files of earlier ones are merged."""
        whole = rows.with_columns(scan_id=pl.lit(scan_id))
        with self.refusals():
            if later := {name: RAW_LATER[name] for name in rows.columns if name in RAW_LATER}:
                self._scores.grow(later)
            self._scores.append(lambda table: (whole, None))
        self._commits += 1
        if self._commits % MERGE_EVERY == 0:
            self._merge(levels(self._commits))

    def begin(self, scan_id: str, asked: RunRecord) -> None:
        """Note what a run was asked: inputs, settings, versions. A report reads the captions again from there."""
        self.agree(lambda _: (scan_id, asked))

    def agree(self, run_of: Callable[[Sequence[RunRecord]], tuple[str, RunRecord]]) -> tuple[str, RunRecord]:
        """Begin the run that `run_of` makes of all records so far, newest first: its scan_id and record.

        No other run can begin in between: what runs at once must agree on, the first of them decides.
        """
        begun: list[tuple[str, RunRecord]] = []

        def numbered(table: DeltaTable) -> tuple[pl.DataFrame, int]:
            runs = scanned(table).collect()
            begun[:] = [run_of([run.record for run in _ordered(runs)])]
            (scan_id, asked), last = begun[0], runs.select(pl.col("sequence").max()).item()
            row = {"scan_id": scan_id, "started": datetime.now(UTC), "record": record.as_json(asked)}
            number = 1 if last is None else last + 1
            frame = pl.DataFrame([row]).with_columns(pl.col("started").dt.cast_time_unit("us"))
            return frame.with_columns(sequence=pl.lit(number, pl.Int64)), number

        with self.refusals():
            self._runs.append(numbered)
        return begun[0]

    def runs(self) -> list[Run]:
        """Every run, the newest first: in the order of the table's commits, whatever the hosts' clocks said."""
        with self.refusals():
            return _ordered(scanned(self.table("runs")).collect())

    def last_run(self, scan_id: str | None = None) -> tuple[str, RunRecord]:
        """scan_id and record of the scan (no calibration, no first pass of a screened scan) that began last.

        `scan_id`: only a scan, or first pass, whose id begins so. Raises StoreError where there is none, or more than
        one.
        """
        found, records = self.scan_runs(scan_id)
        return found, records[0]

    def scan_runs(self, scan_id: str | None = None) -> tuple[str, list[RunRecord]]:
        """The scan of `last_run`, and the records of all its runs, newest first."""
        asked = ("scan",) if scan_id is None else ("scan", FIRST_PASS)
        scans = [run for run in self.runs() if run.record.purpose in asked]
        if not scans:
            raise StoreError(f"{self.folder}: no scan in this store yet: run `overscan scan` first")
        if scan_id is not None:
            scans = self._one(scans, scan_id)
        newest = scans[0].scan_id
        return newest, [run.record for run in scans if run.scan_id == newest]

    def _one(self, scans: list[Run], scan_id: str) -> list[Run]:
        """The runs of the one scan whose id begins so."""
        if len(scan_id) < LEAST:
            raise StoreError(f"scan_id {scan_id!r}: needed {LEAST} or more of its first characters")
        found = [run for run in scans if run.scan_id.startswith(scan_id)]
        held = list(dict.fromkeys(run.scan_id for run in found or scans))
        if found and len(held) == 1:
            return found
        said = f"{len(held)} scans" if found else "no scan"
        raise StoreError(f"{self.folder}: {said} of scan_id {scan_id}; there are {', '.join(held)}")

    def records(self, scan_id: str | None = None) -> list[RunRecord]:
        """Records of all runs, newest first; `scan_id`: of one scan, calibrations among them."""
        return [run.record for run in self.runs() if scan_id in (None, run.scan_id)]

    def read(self, scan_id: str) -> pl.DataFrame:
        """Score rows of one scan in memory, one per prompt_id."""
        with self.refusals():
            return self.scores(scan_id).unique("prompt_id", keep="any").collect(engine="streaming")

    def counts(self) -> pl.DataFrame:
        """[scan_id, status, rows, scores...] of the whole store, rows computed twice counted twice.

        Of each score, how many of the rows have it.
        """
        with self.refusals():
            scores = scanned(self.table("scores"))
            names = [name for name, dtype in scores.collect_schema().items() if dtype == SCORE]
            counted = scores.group_by("scan_id", "status").agg(pl.col(names).count(), rows=pl.len())
            return (
                counted.sort("scan_id", "status")
                .select("scan_id", "status", "rows", *names)
                .collect(engine="streaming")
            )

    def count_others(self, *scan_ids: str) -> int:
        """Rows under other scan_ids than these: other models, settings or backends."""
        with self.refusals():
            others = scanned(self.table("scores")).filter(~pl.col("scan_id").is_in(scan_ids))
            return int(others.select(pl.len()).collect().item())

    def rows_by_shard(self, scan_id: str, count: int) -> dict[int, int]:
        """Rows of one scan in each of `count` shards that has any, rows computed twice counted twice."""
        with self.refusals():
            ids = scanned(self.table("scores")).filter(scan_id=scan_id).select(shard=shard_of(count))
            return dict(ids.group_by("shard").len().collect(engine="streaming").iter_rows())

    def table(self, name: str) -> DeltaTable:
        """The Delta table `scores` or `runs`, freshly loaded."""
        with self.refusals():
            return Table(self.folder, name).load()

    def compact(self, after_commits: int = MERGE_EVERY) -> None:
        """Merge small files, if this ledger has made as many commits. Old files stay for readers at work."""
        if self._commits >= after_commits:
            self._merge(None)

    def refusals(self) -> AbstractContextManager[None]:
        """Say what is wrong with the store instead of what a library found."""
        return refusals(self.folder)

    def _merge(self, levels: int | None) -> None:
        """Merge the files of the last commits, as many as `levels` says; None: all small ones.

        A full disk, or somebody else at the same work, is no reason to end a scan whose rows are committed.
        """
        with suppress(DiskError), self.refusals(), suppress(CommitFailedError):
            self._scores.merge(None if levels is None else MERGE_EVERY**levels / 2)


def _ordered(runs: pl.DataFrame) -> list[Run]:
    """Rows of the table, the newest first."""
    if "sequence" not in runs.columns:
        runs = runs.with_columns(sequence=pl.lit(None, pl.Int64))
    ordered = runs.sort("sequence", "started", descending=True, nulls_last=True)
    found = ordered.select("scan_id", "started", "record").iter_rows()
    return [Run(scan_id, started, record.of_json(text)) for scan_id, started, text in found]


def levels(commits: int) -> int:
    """How often MERGE_EVERY divides a number of commits: each level merges what that many of the one below left.

    So a row is written a few times for each level, and some tens of files are left of any number of commits.
    """
    return 0 if commits == 0 or commits % MERGE_EVERY else 1 + levels(commits // MERGE_EVERY)
