"""The store: an append-only Delta table of scores, and one of the runs that made them.

Rows are found by content (scan_id, prompt_id), never by position, so a scan resumes after any interruption, on a
reordered or grown dataset, and pays only for what is new. The store holds no captions.

Several scans may append at once. A row that two of them computed is stored twice and read once: it is a pure function
of (scan_id, prompt_id), while refusing the second copy would make every writer wait and read what others wrote.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

import polars as pl
from deltalake import CommitProperties, DeltaTable
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError

from scanner.errors import ScannerError, StoreError, disk_error, first_line
from scanner.identity import LEAST

KIND, FORMAT = "overscan store", 1
COMPACT_AFTER = 20  # commits of one run
Columns = dict[str, pl.DataType]
SCORE_KEYS: Columns = {
    "scan_id": pl.String(),
    "prompt_id": pl.String(),
    "status": pl.String(),
    "truncated": pl.Boolean(),
}
RAW: Columns = dict.fromkeys(("q1", "q2", "q3"), pl.List(pl.Float32))  # a number per seed
RUNS: Columns = {"scan_id": pl.String(), "started": pl.Datetime("us", "UTC"), "record": pl.String()}
FIRST_PASS: Final = "first pass"  # the purpose of a screened scan's first run; others are scan and calibration
PURPOSE = pl.col("record").str.json_path_match("$.purpose").fill_null("scan")


class Ledger:
    """A store folder, opened. `score_names` become columns; a store made with other columns is refused.

    Without `score_names` the store must exist. Every method raises StoreError where the store cannot be read and
    DiskError where it cannot be written.
    """

    def __init__(self, folder: str | Path, score_names: tuple[str, ...] = ()):
        self.folder = Path(folder)
        self._commits = 0
        path = str(self.folder.absolute())
        if unquote(path) != path or not {"[", "]"}.isdisjoint(path):
            raise StoreError(f"{self.folder}: deltalake cannot hold a path with %XX, [ or ]: name another --store")
        for table, columns, partition_by in (
            ("scores", SCORE_KEYS | dict.fromkeys(score_names, pl.Float32()) | RAW, ["scan_id"]),
            ("runs", RUNS, None),
        ):
            with self.refusals():
                if score_names:
                    self._create(table, columns, partition_by)
                else:
                    self._verify(table)

    def rows(self, scan_id: str) -> pl.LazyFrame:
        """Score rows of one scan, to be streamed; two scans at once may have stored a prompt_id twice."""
        with self.refusals():
            scores = pl.scan_delta(self.table("scores"))
            return scores.filter(pl.col("scan_id") == scan_id).drop("scan_id")

    def append(self, scan_id: str, rows: pl.DataFrame) -> None:
        """Commit rows: all of them, or, interrupted, none."""
        self._write("scores", rows.with_columns(scan_id=pl.lit(scan_id)))
        self._commits += 1

    def begin(self, scan_id: str, record: Mapping[str, Any]) -> None:
        """Note what a run was asked: inputs, settings, versions. A report reads the captions again from there."""
        row = {"scan_id": scan_id, "started": datetime.now(UTC), "record": json.dumps(dict(record))}
        self._write("runs", pl.DataFrame([row]).with_columns(pl.col("started").dt.cast_time_unit("us")))

    def runs(self) -> pl.DataFrame:
        """[scan_id, started, record as JSON] of every run, newest first."""
        with self.refusals():
            return pl.scan_delta(self.table("runs")).sort("started", descending=True).collect()

    def last_run(self, scan_id: str | None = None) -> tuple[str, dict[str, Any]]:
        """scan_id and record of the scan (no calibration, no first pass of a screened scan) that began last.

        `scan_id`: only a scan, or first pass, whose id begins so. Raises StoreError where there is none, or more than
        one.
        """
        asked = ("scan",) if scan_id is None else ("scan", FIRST_PASS)
        scans = self.runs().filter(PURPOSE.is_in(asked))
        if scans.is_empty():
            raise StoreError(f"{self.folder}: no scan in this store yet: run `overscan scan` first")
        if scan_id is not None:
            scans = self._one(scans, scan_id)
        return scans["scan_id"][0], json.loads(scans["record"][0])

    def _one(self, scans: pl.DataFrame, scan_id: str) -> pl.DataFrame:
        """The runs of the one scan whose id begins so."""
        if len(scan_id) < LEAST:
            raise StoreError(f"scan_id {scan_id!r}: needed {LEAST} or more of its first characters")
        found = scans.filter(pl.col("scan_id").str.starts_with(scan_id))
        if found["scan_id"].n_unique() == 1:
            return found
        held = (scans if found.is_empty() else found)["scan_id"].unique(maintain_order=True)
        said = "no scan" if found.is_empty() else f"{len(held)} scans"
        raise StoreError(f"{self.folder}: {said} of scan_id {scan_id}; there are {', '.join(held)}")

    def records(self, scan_id: str | None = None) -> list[dict[str, Any]]:
        """Records of all runs, newest first; `scan_id`: of one scan, calibrations among them."""
        runs = self.runs() if scan_id is None else self.runs().filter(scan_id=scan_id)
        return [json.loads(record) for record in runs["record"]]

    def read(self, scan_id: str) -> pl.DataFrame:
        """Score rows of one scan in memory, one per prompt_id."""
        with self.refusals():
            return self.rows(scan_id).unique("prompt_id", keep="any").collect(engine="streaming")

    def counts(self) -> pl.DataFrame:
        """[scan_id, status, rows] of the whole store, rows computed twice counted twice."""
        with self.refusals():
            counted = pl.scan_delta(self.table("scores")).group_by("scan_id", "status").agg(rows=pl.len())
            return counted.sort("scan_id", "status").collect(engine="streaming")

    def count_others(self, *scan_ids: str) -> int:
        """Rows under other scan_ids than these: other models, settings or backends."""
        with self.refusals():
            others = pl.scan_delta(self.table("scores")).filter(~pl.col("scan_id").is_in(scan_ids))
            return int(others.select(pl.len()).collect().item())

    def table(self, name: str) -> DeltaTable:
        """The Delta table `scores` or `runs`, freshly loaded."""
        with self.refusals():
            return _Table(str(self.folder / name))

    def compact(self, after_commits: int = COMPACT_AFTER) -> None:
        """Merge small files, if this ledger has made as many commits. Old files stay for readers at work."""
        if self._commits >= after_commits:
            with self.refusals(), suppress(CommitFailedError):  # somebody else is merging them
                self.table("scores").optimize.compact()

    @contextmanager
    def refusals(self) -> Iterator[None]:
        """Say what is wrong with the store instead of what a library found."""
        try:
            yield
        except ScannerError:
            raise
        except CommitFailedError as error:
            raise StoreError(
                f"{self.folder}: another process changed the store meanwhile ({first_line(error)}): run again"
            ) from error
        except (DeltaError, pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
            raise disk_error(self.folder, error) or _damaged(self.folder, error) from error

    def _write(self, table: str, frame: pl.DataFrame) -> None:
        path = self.folder / table
        with self.refusals():
            names = pl.scan_delta(self.table(table)).collect_schema().names()
            options = {"commit_properties": CommitProperties(max_commit_retries=200)}
            frame.select(names).write_delta(str(path), mode="append", delta_write_options=options)

    def _create(self, table: str, columns: Columns, partition_by: list[str] | None) -> None:
        path = self.folder / table
        try:
            found = _Table(str(path))
        except TableNotFoundError:
            begun = {"_delta_log"}  # all there is of a table that another scan creates just now, or was killed creating
            if self.folder.is_file() or (path.exists() and {item.name for item in path.iterdir()} - begun):
                raise StoreError(f"{path}: holds files that are no Delta table: name another --store") from None
            options = {"name": table, "description": f"{KIND} {FORMAT}", "partition_by": partition_by}
            options |= {"commit_properties": CommitProperties(max_commit_retries=0)}  # a retry would create it again
            with suppress(CommitFailedError):  # another scan created it at the same moment
                pl.DataFrame(schema=columns).write_delta(str(path), mode="ignore", delta_write_options=options)
            found = _Table(str(path))
        self._check(path, found)
        names = pl.scan_delta(found).collect_schema().names()
        if set(names) != set(columns):
            different = ", ".join(sorted(set(names) ^ set(columns)))
            raise StoreError(f"{path}: made by another version of overscan (columns {different}): name another --store")

    def _verify(self, table: str) -> None:
        path = self.folder / table
        try:
            found = _Table(str(path))
        except TableNotFoundError:
            raise StoreError(
                f"{self.folder}: no store there: `overscan scan ... --store {self.folder}` makes it"
            ) from None
        self._check(path, found)

    def _check(self, path: Path, found: DeltaTable) -> None:
        description = found.metadata().description
        if description == f"{KIND} {FORMAT}":
            return
        kind, _, number = (description or "").rpartition(" ")
        if kind == KIND and number.isdigit():
            raise StoreError(
                f"{path}: store format {number}, this overscan reads {FORMAT}: upgrade it, or name another --store"
            )
        raise StoreError(
            f"{path}: a Delta table described {description!r}, needed '{KIND} {FORMAT}': name another --store"
        )


class _Table(DeltaTable):  # type: ignore[misc]
    """A local table whose files Polars finds: it takes paths as they are, deltalake tells them percent-encoded."""

    def file_uris(self, *arguments: Any, **options: Any) -> list[str]:
        """Paths of the table's files."""
        return [unquote(uri) for uri in super().file_uris(*arguments, **options)]

    @property
    def table_uri(self) -> str:
        """The table's own, as the files' begin with it."""
        return unquote(super().table_uri)


def _damaged(folder: Path, error: BaseException) -> StoreError:
    return StoreError(
        f"{folder}: the store cannot be read ({first_line(error)}): restore it from a copy, or name another --store "
        "and scan again"
    )
