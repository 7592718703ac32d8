"""Parquet files, and Delta tables, whose deletions count."""

import polars as pl

from scanner.dataset.readers.columns import ROW, Source, captions, refusal
from scanner.dataset.readers.tables import is_readable


def read(source: str, column: str | None) -> Source:
    """A row is a row. The footer is at the end, so a truncated file shows on opening."""
    return captions(pl.scan_parquet(source, row_index_name=ROW, glob=False), column, source)


def delta(source: str, column: str | None) -> Source:
    """A row is a row of the table's newest version, deleted ones left out."""
    if not is_readable(source):
        raise refusal(source, "a Delta table whose path holds %XX, [ or ], which deltalake cannot read: rename it")
    return captions(pl.scan_delta(source).with_row_index(ROW), column, source)
