"""Names of scores on the command line: in full, or without the version where that leaves one."""

import re
from collections.abc import Collection
from difflib import get_close_matches
from typing import Any

import click

VERSION = re.compile(r"_v\d+$")


class ScoreName(click.ParamType[str]):
    """One of `names`, such as agreement_v1; agreement means it while that is the only version."""

    name = "score"

    def __init__(self, names: Collection[str]):
        self.names = names

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The full name. Raises click.UsageError."""
        asked = str(value)
        versions = [name for name in self.names if asked in (name, VERSION.sub("", name))]
        if len(versions) > 1:
            self.fail(f"{asked!r}: which version of it? There are {', '.join(versions)}", param, ctx)
        if not versions:
            near = get_close_matches(asked, self.names, 1)
            meant = f"; did you mean {near[0]}?" if near else "."
            self.fail(f"{asked!r} is no score here{meant} There are {', '.join(self.names)}", param, ctx)
        return versions[0]
