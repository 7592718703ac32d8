"""Executors: the same map of a scorer over chunks, here in one process."""

from collections.abc import Iterable, Iterator

import polars as pl

from scanner.scorer import Scorer


def local(scorer: Scorer, chunks: Iterable[pl.DataFrame]) -> Iterator[pl.DataFrame]:
    """Score chunk after chunk in this process."""
    return map(scorer, chunks)
