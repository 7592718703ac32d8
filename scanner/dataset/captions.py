"""Caption rows -> unique prompts with stable ids.

A caption's exact words are what triggers memorization, so it is NFC-normalised and stripped, and nothing more.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from scanner.dataset import readers

REPLACEMENT = "\ufffd"  # what is left of bytes that were not UTF-8


def read(inputs: Sequence[str | Path], column: str | None = None, limit: int | None = None) -> pl.LazyFrame:
    """Caption rows of a dataset: [file, row, text], `text` being the normalised caption. Raises InputError."""
    rows = readers.read(inputs, column, limit)
    return rows.select("file", "row", text=pl.col("caption").str.normalize("NFC").str.strip_chars())


def unique_prompts(captions: pl.LazyFrame) -> pl.DataFrame:
    """Unique prompts in order of first appearance: [prompt_id, text, n_rows, status].

    `status` is `pending`, or why a prompt cannot be scored: `null` (no caption), `empty`, `undecodable` (bytes that
    were not UTF-8: the exact words are unknown). All three are rows like any other. Raises InputError.
    """
    counted = (
        captions.with_row_index("first")
        .group_by("text")
        .agg(pl.len().cast(pl.Int64).alias("n_rows"), pl.col("first").min())
        .sort("first")
        .drop("first")
    )
    try:
        prompts = counted.collect(engine="streaming")
    except (pl.exceptions.PolarsError, OSError) as error:
        raise readers.unreadable("the input", error) from error
    status = (
        pl.when(pl.col("text").is_null())
        .then(pl.lit("null"))
        .when(pl.col("text") == "")
        .then(pl.lit("empty"))
        .when(pl.col("text").str.contains(REPLACEMENT, literal=True))
        .then(pl.lit("undecodable"))
        .otherwise(pl.lit("pending"))
    )
    ids = pl.Series("prompt_id", [prompt_id(text) for text in prompts["text"]], pl.String)
    return prompts.select(ids, "text", "n_rows", status=status)


def prompt_id(text: str | None) -> str:
    """blake2b-128 of the normalised text, in hexadecimal: the same on every machine and version; 32 zeros for null."""
    return "0" * 32 if text is None else hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
