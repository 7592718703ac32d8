"""One Delta table of a store: made or found, grown by columns, appended to by many writers at once.

Columns are only ever added, and may hold nulls: what an older overscan wrote is read by a newer one, and what a newer
one has added is kept by an older one, which fills it with nulls. Nothing here knows what the columns mean.
"""

import errno
import math
import statistics
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import polars as pl
from deltalake import CommitProperties, DeltaTable, Schema, Transaction
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError

from scanner import places
from scanner.disk import refuses_links
from scanner.errors import DiskError, ScannerError, StoreError, disk_error, errno_of, first_line
from scanner.objects import Folder
from scanner.places import Place, failure, inside, is_url, options

KIND, FORMAT = "overscan store", 1
MERGED_BYTES = 100_000_000  # of a merged file
SMALLEST = 10  # files by whose size the others are measured
NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EINVAL, errno.EACCES)
ATTEMPTS = 50  # of a commit that others' changes made void
# What a checkpoint so old sums up is deleted from the log: every commit lists the log, so a long one makes each slower.
# Who reads the log needs its entries for seconds; files of rows are kept by another clock
KEEPS = {"delta.logRetentionDuration": "interval 1 hours"}
Columns = Mapping[str, pl.DataType]


class Table:
    """A table of a store, kept loaded: an append reads only what was committed since this handle's last one."""

    def __init__(self, folder: Place, name: str, keys: Collection[str] = ()):
        """`keys`: columns without which a table is none of ours."""
        self.folder, self.name, self.keys = folder, name, keys
        self.path = inside(folder, name)
        self._held: DeltaTable | None = None

    def load(self) -> DeltaTable:
        """The table as it is now."""
        return (
            DeltaTable(self.path, storage_options=options(self.path)) if is_url(self.path) else _Delta(str(self.path))
        )

    def verify(self) -> None:
        """Raises StoreError unless there is a table of this format."""
        try:
            found = self.load()
        except TableNotFoundError:
            raise StoreError(
                f"{self.folder}: no store there: `overscan scan ... --store {self.folder}` makes it"
            ) from None
        self._check(found)

    def create(self, columns: Columns, partition_by: list[str] | None) -> None:
        """Make the table, or add to it the columns that it lacks. Raises StoreError where it is none of ours."""
        try:
            found = self.load()
        except TableNotFoundError:
            begun = {"_delta_log"}  # all there is of a table that another scan creates just now, or was killed creating
            if self._others() - begun:
                raise StoreError(f"{self.path}: holds files that are no Delta table: name another --store") from None
            asked: dict[str, Any] = {"name": self.name, "description": f"{KIND} {FORMAT}", "partition_by": partition_by}
            asked |= {"commit_properties": CommitProperties(max_commit_retries=0)}  # a retry would create it again
            asked |= {"configuration": KEEPS}
            with suppress(CommitFailedError):  # another scan created it at the same moment
                pl.DataFrame(schema=columns).write_delta(
                    str(self.path), mode="ignore", storage_options=options(self.path), delta_write_options=asked
                )
            found = self.load()
        self._check(found)
        self.grow(columns)

    def _others(self) -> set[str]:
        """What lies in the table's folder."""
        if is_url(self.path):
            return {name.partition("/")[0] for name in Folder(self.path).names()}
        folder = Path(self.path)
        if Path(self.folder).is_file():
            return {folder.name}
        return {item.name for item in folder.iterdir()} if folder.exists() else set()

    def append(self, fill: Callable[[DeltaTable], tuple[pl.DataFrame, int | None]]) -> None:
        """Commit the rows that `fill` makes for the table as it is; columns that they lack are null.

        With a number, no other commit with a number can come between the reading and the writing: `fill` is then asked
        again.
        """

        def write(table: DeltaTable) -> None:
            rows, number = fill(table)
            numbered = None if number is None else [Transaction(self.name, number)]
            options = {"commit_properties": CommitProperties(max_commit_retries=200, app_transactions=numbered)}
            _fitted(rows, table).write_delta(table, mode="append", delta_write_options=options)

        self._attempt(write)

    def merge(self, commits: float | None = None) -> int:
        """Merge files smaller than so many of the smallest together, or than MERGED_BYTES; returns how many.

        The old files stay. A checkpoint follows.
        """
        table, target = self.load(), MERGED_BYTES
        if commits is not None:
            sizes = sorted(pl.Series(table.get_add_actions(flatten=True)["size_bytes"]).to_list())[:SMALLEST]
            target = min(target, math.ceil(commits * statistics.median(sizes))) if sizes else 0
        merged = int(table.optimize.compact(target_size=target)["numFilesRemoved"]) if target else 0
        if merged:
            checkpoint(table)
        return merged

    def _check(self, found: DeltaTable) -> None:
        description = found.metadata().description
        if description != f"{KIND} {FORMAT}":
            kind, _, number = (description or "").rpartition(" ")
            if kind == KIND and number.isdigit():
                raise StoreError(
                    f"{self.path}: store format {number}, this overscan reads {FORMAT}: upgrade it, or name another "
                    "--store"
                )
            raise StoreError(
                f"{self.path}: a Delta table described {description!r}, needed '{KIND} {FORMAT}': name another --store"
            )
        if lacking := set(self.keys) - {field.name for field in found.schema().fields}:
            raise StoreError(f"{self.path}: a table without {', '.join(sorted(lacking))}: name another --store")

    def grow(self, columns: Columns) -> None:
        """Add the columns, and the settings, that the table lacks; two scans may do so at once."""

        def add(table: DeltaTable) -> None:
            if not KEEPS.items() <= table.metadata().configuration.items():
                table.alter.set_table_properties(KEEPS)
            held = {field.name for field in table.schema().fields}
            lacking = {name: dtype for name, dtype in columns.items() if name not in held}
            if lacking:
                table.alter.add_columns(Schema.from_arrow(pl.Schema(lacking)).fields)

        self._attempt(add)

    def _attempt(self, commit: Callable[[DeltaTable], None]) -> None:
        """Commit upon the table as it is, again where another's change made that void."""
        for _ in range(ATTEMPTS - 1):
            table, self._held = self._current(), None
            with suppress(CommitFailedError):
                commit(table)
                self._held = table
                return
        commit(self.load())

    def _current(self) -> DeltaTable:
        if self._held is None:
            return self.load()
        self._held.update_incremental()
        return self._held


def checkpoint(table: DeltaTable) -> None:
    """Sum up the log, so that who loads the table need not read all its commits, and delete what that makes useless."""
    table.create_checkpoint()
    table.cleanup_metadata()


def scanned(table: DeltaTable) -> pl.LazyFrame:
    """The rows of a table, wherever it lies, to be streamed."""
    # Polars takes deltalake's options for its own, and a number of retries as a number
    return pl.scan_delta(table, storage_options=None if isinstance(table, _Delta) else {"max_retries": places.RETRIES})


class _Delta(DeltaTable):  # type: ignore[misc]
    """A local table whose files Polars finds: it takes paths as they are, deltalake tells them percent-encoded."""

    def file_uris(self, *arguments: Any, **options: Any) -> list[str]:
        """Paths of the table's files."""
        return [unquote(uri) for uri in super().file_uris(*arguments, **options)]

    @property
    def table_uri(self) -> str:
        """The table's own, as the files' begin with it."""
        return unquote(super().table_uri)


@contextmanager
def refusals(folder: Place) -> Iterator[None]:
    """Say what is wrong with the store in `folder` instead of what a library found."""
    try:
        yield
    except ScannerError:
        raise
    except CommitFailedError as error:
        raise StoreError(
            f"{folder}: another process changed the store meanwhile ({first_line(error)}): run again"
        ) from error
    except (DeltaError, pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        raise failure(folder, error) or _of_a_disk(folder, error) or _damaged(folder, error) from error


def _of_a_disk(folder: Place, error: BaseException) -> DiskError | None:
    return None if is_url(folder) else _without_links(Path(folder), error) or disk_error(folder, error)


def _fitted(rows: pl.DataFrame, table: DeltaTable) -> pl.DataFrame:
    """Rows with the columns of the table, in its order."""
    schema = pl.Schema(table.schema())
    assert set(rows.columns) <= set(schema), "a Ledger adds the columns that its rows have when it is opened"
    absent = {name: pl.lit(None, dtype) for name, dtype in schema.items() if name not in rows.columns}
    return rows.with_columns(**absent).select(schema.names())


def _without_links(folder: Path, error: BaseException) -> DiskError | None:
    """A commit is a hard link to a name that nobody has yet: where the disk refuses it, that is what must be said."""
    if errno_of(error) not in NO_LINKS or not folder.is_dir() or not refuses_links(folder):
        return None
    return DiskError(
        f"{folder}: that disk has no hard links, which make a commit whole or not at all ({first_line(error)}): name a "
        "--store on another one (FAT, exFAT and some network and cloud mounts have none)"
    )


def _damaged(folder: Place, error: BaseException) -> StoreError:
    return StoreError(
        f"{folder}: the store cannot be read ({first_line(error)}): restore it from a copy, or name another --store "
        "and scan again"
    )
