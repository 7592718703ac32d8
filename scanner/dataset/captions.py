"""Caption rows -> unique prompts with stable ids.

A caption's exact words are what triggers memorization, so it is NFC-normalised and stripped, and nothing more.
"""

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from scanner.dataset import readers
from scanner.errors import InputError
from scanner.identity import prompt_id_of_bytes

REPLACEMENT = "\ufffd"  # what is left of bytes that were not UTF-8
IDENTIFIED: dict[str, pl.DataType] = {
    "prompt_id": pl.String(),
    "text": pl.String(),
    "n_rows": pl.Int64(),
    "first_row": pl.Int64(),
}


def read(inputs: Sequence[str | Path], column: str | None = None, limit: int | None = None) -> pl.LazyFrame:
    """Captions of a dataset, every file of which must be readable: [file, row, text]. Raises InputError."""
    return texts(readers.read(inputs, column, limit, strict=True))


def texts(rows: readers.Rows) -> pl.LazyFrame:
    """Captions as the model gets them: lazy [file, row, text]."""
    return texts_of(rows.frame)


def texts_of(rows: pl.LazyFrame) -> pl.LazyFrame:
    """Rows [file, row, caption] as the model gets them: lazy [file, row, text]."""
    return rows.select("file", "row", text=as_prompt(pl.col("caption")))


def as_prompt(caption: pl.Expr) -> pl.Expr:
    """A caption's text as the model gets it."""
    return caption.str.normalize("NFC").str.strip_chars()


def unique_prompts(captions: pl.LazyFrame) -> pl.DataFrame:
    """Unique prompts in order of first appearance: [prompt_id, text, n_rows, status]; all in memory.

    `status` is `to_score`, or why a prompt cannot be scored: `null` (no caption), `empty`, `undecodable` (bytes that
    were not UTF-8: the exact words are unknown). All three are rows like any other. Raises InputError.
    """
    try:
        return merge(identify(captions)).sort("first_row").drop("first_row").collect(engine="streaming")
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        raise readers.unreadable("the input", error) from error


def identify(captions: pl.LazyFrame) -> pl.LazyFrame:
    """Captions with their ids, streamed: [prompt_id, text, n_rows, first_row], unique within each batch."""
    rows = captions.select("text").with_row_index("first_row")
    return rows.map_batches(_identify, schema=IDENTIFIED, streamable=True)


def merge(identified: pl.LazyFrame) -> pl.LazyFrame:
    """Each prompt once: [prompt_id, text, n_rows, status, first_row], the last being where the dataset first has it."""
    text = pl.col("text")
    prompts = identified.group_by("prompt_id").agg(text.first(), pl.col("n_rows").sum(), pl.col("first_row").min())
    return prompts.select("prompt_id", "text", "n_rows", status_of(text).alias("status"), "first_row")


def status_of(text: pl.Expr) -> pl.Expr:
    """Of a prompt without a row: `to_score`, or why it cannot be, as of `unique_prompts`."""
    return (
        pl.when(text.is_null())
        .then(pl.lit("null"))
        .when(text == "")
        .then(pl.lit("empty"))
        .when(text.str.contains(REPLACEMENT, literal=True))
        .then(pl.lit("undecodable"))
        .otherwise(pl.lit("to_score"))
    )


def _identify(batch: pl.DataFrame) -> pl.DataFrame:
    first_row = pl.col("first_row").min().cast(pl.Int64)
    unique = batch.group_by("text", maintain_order=True).agg(pl.len().cast(pl.Int64).alias("n_rows"), first_row)
    return unique.select(prompt_ids(unique["text"]), "text", "n_rows", "first_row")


def prompt_ids(texts: pl.Series) -> pl.Series:
    """`prompt_id` of every text."""
    return pl.Series("prompt_id", map(prompt_id_of_bytes, texts.cast(pl.Binary)), pl.String)


def reference(path: str | Path) -> list[str]:
    """The unique captions of a reference file, without those that cannot be scored. Raises InputError."""
    found = unique_prompts(read([path])).filter(status="to_score")["text"].to_list()
    if len(found) < 2:
        raise InputError(f"{path}: {len(found)} captions in it; needed a list of ordinary captions, a hundred or more")
    return found
