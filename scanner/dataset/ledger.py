"""The store: an append-only Delta table of scores, and one of the runs that made them.

Rows are found by content (scan_id, prompt_id), never by position, so a scan resumes after any interruption, on a
reordered or grown dataset, and pays only for what is new. The store holds no captions.
"""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
from deltalake import CommitProperties, DeltaTable
from deltalake.exceptions import TableNotFoundError

from scanner.errors import StoreError

FORMAT = "overscan store 1"
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
PURPOSE = pl.col("record").str.json_path_match("$.purpose")  # scan or calibration


class Ledger:
    """A store folder, opened. `score_names` become columns; a store made with other columns is refused."""

    def __init__(self, folder: str | Path, score_names: tuple[str, ...] = ()):
        self.folder = Path(folder)
        self._commits = 0
        if not score_names:
            self._verify("scores")
            self._verify("runs")
            return
        self._create("scores", SCORE_KEYS | dict.fromkeys(score_names, pl.Float32()) | RAW, ["scan_id"])
        self._create("runs", RUNS, None)

    def pending(self, scan_id: str, prompts: pl.DataFrame) -> pl.DataFrame:
        """The prompts that have no row under this scan_id yet, in their order."""
        done = self._of(scan_id).select("prompt_id").unique().collect(engine="streaming")
        return prompts.join(done, on="prompt_id", how="anti", maintain_order="left")

    def append(self, scan_id: str, rows: pl.DataFrame) -> None:
        """Commit rows: all of them, or, interrupted, none."""
        frame = rows.with_columns(scan_id=pl.lit(scan_id))
        self._write("scores", frame)
        self._commits += 1

    def begin(self, scan_id: str, record: Mapping[str, Any]) -> None:
        """Note what a run was asked: inputs, settings, versions. A report reads the captions again from there."""
        row = {"scan_id": scan_id, "started": datetime.now(UTC), "record": json.dumps(dict(record))}
        self._write("runs", pl.DataFrame([row]).with_columns(pl.col("started").dt.cast_time_unit("us")))

    def last_run(self) -> tuple[str, dict[str, Any]]:
        """scan_id and record of the newest scan (no calibration). Raises StoreError where there is none."""
        runs = pl.scan_delta(str(self.folder / "runs")).filter(PURPOSE.ne_missing("calibration"))
        rows = runs.sort("started", descending=True).head(1).collect().rows(named=True)
        if not rows:
            raise StoreError(f"{self.folder}: no scan in this store yet: run `overscan scan` first")
        return rows[0]["scan_id"], json.loads(rows[0]["record"])

    def records(self, scan_id: str) -> list[dict[str, Any]]:
        """Records of all runs of one scan, calibrations among them."""
        runs = pl.scan_delta(str(self.folder / "runs")).filter(scan_id=scan_id)
        return [json.loads(record) for record in runs.sort("started").collect()["record"]]

    def read(self, scan_id: str) -> pl.DataFrame:
        """Score rows of one scan, one per prompt_id (two scans at once may have computed the same row twice)."""
        return self._of(scan_id).unique("prompt_id", keep="any").drop("scan_id").collect(engine="streaming")

    def count_others(self, scan_id: str) -> int:
        """Rows under other scan_ids: other models, settings or backends."""
        others = pl.scan_delta(str(self.folder / "scores")).filter(pl.col("scan_id") != scan_id)
        return int(others.select(pl.len()).collect().item())

    def compact(self) -> None:
        """Merge this run's small files, if they are many. Old files stay for readers at work."""
        if self._commits >= COMPACT_AFTER:
            DeltaTable(str(self.folder / "scores")).optimize.compact()

    def _of(self, scan_id: str) -> pl.LazyFrame:
        return pl.scan_delta(str(self.folder / "scores")).filter(pl.col("scan_id") == scan_id)

    def _write(self, table: str, frame: pl.DataFrame) -> None:
        path = self.folder / table
        names = pl.scan_delta(str(path)).collect_schema().names()
        options = {"commit_properties": CommitProperties(max_commit_retries=200)}
        frame.select(names).write_delta(str(path), mode="append", delta_write_options=options)

    def _create(self, table: str, columns: Columns, partition_by: list[str] | None) -> None:
        path = self.folder / table
        try:
            found = DeltaTable(str(path))
        except TableNotFoundError:
            if self.folder.is_file() or (path.exists() and any(path.iterdir())):
                raise StoreError(f"{path}: holds files that are no Delta table: name another --store") from None
            options: dict[str, Any] = {"name": table, "description": FORMAT, "partition_by": partition_by}
            pl.DataFrame(schema=columns).write_delta(str(path), mode="ignore", delta_write_options=options)
            return
        self._check(path, found)
        names = pl.scan_delta(str(path)).collect_schema().names()
        if set(names) != set(columns):
            different = ", ".join(sorted(set(names) ^ set(columns)))
            raise StoreError(f"{path}: made by another version of overscan (columns {different}): name another --store")

    def _verify(self, table: str) -> None:
        path = self.folder / table
        try:
            found = DeltaTable(str(path))
        except TableNotFoundError:
            raise StoreError(
                f"{self.folder}: no store there: `overscan scan ... --store {self.folder}` makes it"
            ) from None
        self._check(path, found)

    def _check(self, path: Path, found: DeltaTable) -> None:
        if (description := found.metadata().description) != FORMAT:
            raise StoreError(
                f"{path}: a Delta table described {description!r}, needed {FORMAT!r}: name another --store"
            )
