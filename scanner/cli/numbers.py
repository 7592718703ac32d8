"""Options that take several numbers."""

import math
from collections.abc import Mapping
from typing import Any

import click


class Numbers(click.types.StringParamType):
    """Numbers by commas; `needed`: what they are, in words, with an example. `words`: what may stand for some."""

    name = "numbers"

    def __init__(
        self, kind: type[int] | type[float], needed: str, words: Mapping[str, tuple[float, ...]] | None = None
    ):
        self.kind, self.needed, self.words = kind, needed, words or {}

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The numbers, as a tuple."""
        if isinstance(value, str) and value in self.words:
            return self.words[value]
        parts = map(str, value) if isinstance(value, tuple | list) else str(value).split(",")
        try:
            numbers = tuple(map(self.kind, parts))
        except ValueError:
            numbers = (math.nan,)
        return (
            numbers if all(map(math.isfinite, numbers)) else self.fail(f"{value!r}: needed {self.needed}", param, ctx)
        )
