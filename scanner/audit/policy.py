"""Which flagged prompts are new, which are known or allowed, and whether a night breaks the policy.

A finding is a prompt_id, a hash of the caption's text: the same on every machine, and under every model.
"""

import csv
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import polars as pl

from scanner.audit.baseline import Baseline, is_id
from scanner.errors import ScannerError

ALLOW_COLUMNS = ["prompt_id", "reason", "expires"]
NAMED = 3  # ids that a sentence spells out


def read_allow(path: Path) -> pl.DataFrame:
    """Read an allow-list, CSV with the header `prompt_id,reason,expires`: [prompt_id, reason, expires].

    Every entry needs a reason and a date after which it no longer allows. Raises ScannerError, naming the line.
    """
    entries: dict[str, tuple[str, date]] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = csv.reader(file, strict=True)
            if (header := next(lines, [])) != ALLOW_COLUMNS:
                raise ScannerError(f"{path}: line 1: {','.join(header)!r}, needed the header prompt_id,reason,expires")
            for cells in lines:
                if cells:
                    prompt_id, entry = _allowed(cells, f"{path}: line {lines.line_num}")
                    if prompt_id in entries:
                        raise ScannerError(f"{path}: line {lines.line_num}: {prompt_id} is listed twice")
                    entries[prompt_id] = entry
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ScannerError(f"{path}: cannot be read ({error}): needed a CSV file in UTF-8") from error
    rows = [(prompt_id, *entry) for prompt_id, entry in entries.items()]
    schema = {"prompt_id": pl.String, "reason": pl.String, "expires": pl.Date}
    return pl.DataFrame(rows, schema=schema, orient="row")


def classify(
    ranked: pl.LazyFrame, baseline: Baseline | None, allow: pl.DataFrame | None, today: date
) -> tuple[pl.LazyFrame, list[str]]:
    """Add `finding` to flagged prompts (`allowed`, else `known`, else `new`), with what must be said of the lists."""
    known = [] if baseline is None else baseline.known(today)
    valid, notes = ([], []) if allow is None else _valid(ranked, allow, today)
    finding = (
        pl.when(~pl.col("flagged"))
        .then(None)
        .when(pl.col("prompt_id").is_in(valid))
        .then(pl.lit("allowed"))
        .when(pl.col("prompt_id").is_in(known))
        .then(pl.lit("known"))
        .otherwise(pl.lit("new"))
    )
    found = ranked.with_columns(finding=finding)
    if baseline is not None and (lapsed := [i for i in baseline.prompt_ids if i not in set(known)]):
        new = found.filter(pl.col("finding") == "new", pl.col("prompt_id").is_in(lapsed))
        again = new.select("prompt_id").collect(engine="streaming")["prompt_id"]
        if len(again):
            notes.append(f"baseline: {len(again):,} accepted until a day that has passed, so new again: {_some(again)}")
    return found, notes


@dataclass(frozen=True)
class FailOn:
    """When a night breaks the policy: at `least` this many findings that are new, or also `known` ones."""

    asked: str
    known: bool
    least: int

    @classmethod
    def parse(cls, asked: str) -> "FailOn":
        """`new`: any new finding; `any`: any not allowed; a number N: N or more new ones. Raises ScannerError."""
        if asked in ("new", "any"):
            return cls(asked, known=asked == "any", least=1)
        if not (asked.isascii() and asked.isdigit() and int(asked) > 0):
            raise ScannerError(f"fail-on {asked!r}: needed new, any, or a number from 1 up")
        return cls(asked, known=False, least=int(asked))

    def violation(self, flagged: pl.DataFrame) -> str | None:
        """The sentence that says how flagged prompts, [finding, ...], violate the policy, if they do."""
        kinds = ["new", "known"] if self.known else ["new"]
        found = len(flagged.filter(pl.col("finding").is_in(kinds)))
        if found < self.least:
            return None
        return f"policy violated: {found:,} {' or '.join(kinds)} findings, --fail-on {self.asked}"


def _allowed(cells: list[str], where: str) -> tuple[str, tuple[str, date]]:
    if len(cells) != len(ALLOW_COLUMNS):
        raise ScannerError(f"{where}: {len(cells)} cells, needed 3: prompt_id,reason,expires")
    prompt_id, reason, expires = (cell.strip() for cell in cells)
    if not is_id(prompt_id):
        raise ScannerError(f"{where}: prompt_id {prompt_id!r}, needed 32 hexadecimal digits, as in flagged.csv")
    if not reason:
        raise ScannerError(f"{where}: no reason: say why this caption may stay")
    try:
        return prompt_id, (reason, date.fromisoformat(expires))
    except ValueError:
        raise ScannerError(f"{where}: expires {expires!r}, needed a date like 2030-12-31") from None


def _valid(ranked: pl.LazyFrame, allow: pl.DataFrame, today: date) -> tuple[list[str], list[str]]:
    expired = allow.filter(pl.col("expires") < today)
    here = ranked.select("prompt_id").filter(pl.col("prompt_id").is_in(allow["prompt_id"].implode()))
    unknown = allow.join(here.collect(engine="streaming"), on="prompt_id", how="anti")
    notes = [
        f"allow-list: {len(entries):,} {what}: {_some(entries['prompt_id'])}"
        for entries, what in ((expired, "expired, so no longer allowed"), (unknown, "not in this dataset"))
        if len(entries)
    ]
    return allow.filter(pl.col("expires") >= today)["prompt_id"].to_list(), notes


def _some(ids: pl.Series) -> str:
    return ", ".join(ids.head(NAMED)) + (", ..." if len(ids) > NAMED else "")
