"""Shards: parts of all prompts of about equal size, each an interval of prompt_ids.

A prompt_id is a hash, so an interval is a random part of the captions. Which one a prompt is in depends on its text and
on the number of shards alone: no caption is in two, whatever files it stands in. The id's order also lets a shard pass
over files that hold none of its prompts, of captions as of scores.
"""

from dataclasses import dataclass

import polars as pl

from scanner.dataset.partitions import DIGITS
from scanner.errors import ScannerError

PLACES = 8  # hexadecimal digits of a prompt_id that tell its shard
MOST = 1 << 16  # shards: the largest and the smallest of so many still differ by 1 in 65,536 of their expected size


@dataclass(frozen=True)
class Shard:
    """Part `index`, counted from 1, of `count`. Raises ScannerError.

    >>> Shard(2, 3).bounds, str(Shard(2, 3))
    (('55555556', 'aaaaaaab'), '2/3')
    """

    index: int
    count: int

    def __post_init__(self) -> None:
        if not (1 <= self.index <= self.count <= MOST):
            raise ScannerError(f"shard {self}: needed I/N with I from 1 to N and N up to {MOST:,}, such as 1/8")

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    @property
    def bounds(self) -> tuple[str, str]:
        """The first digits of the ids: from the one, and below the other (`g` is above all digits)."""
        lower, upper = (-(-(16**PLACES) * i // self.count) for i in (self.index - 1, self.index))
        return f"{lower:0{PLACES}x}", "g" if self.index == self.count else f"{upper:0{PLACES}x}"

    @property
    def digits(self) -> str:
        """Those that its prompt_ids begin with."""
        lower, upper = self.bounds
        return "".join(
            digit for digit in DIGITS if digit.ljust(PLACES, "f") >= lower and digit.ljust(PLACES, "0") < upper
        )

    def of(self, frame: pl.LazyFrame) -> pl.LazyFrame:
        """The rows [prompt_id, ...] that are in the shard."""
        if self.count == 1:
            return frame
        lower, upper = self.bounds
        return frame.filter(pl.col("prompt_id") >= lower, pl.col("prompt_id") < upper)


WHOLE = Shard(1, 1)


def shard_of(count: int) -> pl.Expr:
    """Of each prompt_id, which of `count` shards it is in, from 1."""
    position: pl.Expr = pl.col("prompt_id").str.head(PLACES).str.to_integer(base=16, dtype=pl.Int64)
    return (position * count).floordiv(16**PLACES) + 1


def sampled(share: float) -> pl.Expr:
    """Whether a prompt_id is in a random sample: by its last digits, which have nothing to do with shards."""
    place: pl.Expr = pl.col("prompt_id").str.tail(PLACES).str.to_integer(base=16, dtype=pl.Int64)
    return place.lt(round(share * 16**PLACES))
