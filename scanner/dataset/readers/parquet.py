"""Parquet: LAION, img2dataset, DiffusionDB, Hugging Face."""

import polars as pl

from scanner.dataset.readers.columns import ROW, Batches, captions, scanned


def read(source: str, column: str | None) -> Batches:
    """A row is a row. The footer is at the end, so a truncated file shows on opening."""
    return scanned(captions(pl.scan_parquet(source, row_index_name=ROW, glob=False), column, source))
