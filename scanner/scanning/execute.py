"""Executors: the same map of a scorer over chunks, here in one process."""

from collections.abc import Callable, Iterable, Iterator

import polars as pl


def local(scorer: Callable[[pl.DataFrame], pl.DataFrame], chunks: Iterable[pl.DataFrame]) -> Iterator[pl.DataFrame]:
    """Score chunk after chunk in this process."""
    return map(scorer, chunks)
