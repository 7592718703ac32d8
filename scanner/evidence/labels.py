"""Labelled lists: prompts that a model is known to have memorized, and others, as people have them."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import polars as pl

from scanner.dataset import captions
from scanner.dataset.captions import as_prompt
from scanner.errors import InputError, first_line

LABEL_READERS: Mapping[str, Callable[[Path], pl.DataFrame]] = {
    ".parquet": pl.read_parquet,
    ".csv": pl.read_csv,
    ".jsonl": pl.read_ndjson,
}


def read_labels(path: Path) -> pl.DataFrame:
    """A labelled list: [prompt, label, collapsed, cluster, similarity].

    Needed columns: `prompt` and `label` (true: memorized, false: not, null: left out). Optional: `collapsed` (all seeds
    give one image that is no copy), `cluster` (near duplicates share one), `similarity` (severity of memorization).
    Prompts are as a scan gives them to the model: two that differ in blanks around them are one. Raises InputError.
    """
    if path.suffix not in LABEL_READERS:
        known = ", ".join(LABEL_READERS)
        raise InputError(f"{path}: labels in {path.suffix or 'no known format'}; needed one of {known}")
    try:
        found = LABEL_READERS[path.suffix](path)
        given = {name: pl.col(name) for name in found.columns}
        labels = found.select(
            as_prompt(pl.col("prompt").cast(pl.String)),
            pl.col("label").cast(pl.Boolean),
            collapsed=given.get("collapsed", pl.lit(False)).cast(pl.Boolean).fill_null(False),
            cluster=given.get("cluster", pl.col("prompt")).cast(pl.String),
            similarity=given.get("similarity", pl.lit(None)).cast(pl.Float64),
        )
    except (pl.exceptions.PolarsError, OSError) as error:
        raise InputError(f"{path}: no labelled list ({first_line(error)}): needed prompt and label") from error
    if labels["prompt"].null_count() or labels["prompt"].n_unique() < len(labels):
        raise InputError(f"{path}: prompts that are null or appear twice: give each prompt one row")
    return labels


def of_lists(memorized: Sequence[str | Path], ordinary: Sequence[str | Path]) -> pl.DataFrame:
    """A labelled list, as `read_labels` gives it, of two kinds of files: any that a scan reads, however often a prompt
    stands there. Raises InputError, also for a prompt that is in both."""
    parts = []
    for files, label in ((memorized, True), (ordinary, False)):
        found = captions.unique_prompts(captions.read(files)).filter(status="to_score")
        parts.append(found.select(prompt="text", label=pl.lit(label)))
    prompts = pl.concat(parts)
    both = prompts.filter(pl.col("prompt").is_duplicated())["prompt"]
    if len(both):
        raise InputError(
            f"{both.n_unique():,} prompts are among the memorized and among the ordinary ones ({both[0]!r} first): "
            "give each one label"
        )
    return prompts.with_columns(collapsed=pl.lit(False), cluster="prompt", similarity=pl.lit(None, pl.Float64))
