"""Which prompts to verify: named ones, with images or without, or those of a report folder."""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import polars as pl

from scanner.dataset.captions import as_prompt, prompt_id
from scanner.errors import InputError, first_line

RANKED = "scores.parquet"  # of a report folder: each unique prompt with its rank
SHORTEST_ID = 8  # characters


class Chosen(NamedTuple):
    """A prompt and the file of the image to compare with, if any."""

    prompt: str
    image: Path | None


@dataclass(frozen=True)
class Source:
    """What the command line asks: `prompts` and their `images` in the same order, the `top` of a `report`, or `ids`."""

    prompts: tuple[str, ...] = ()
    images: tuple[Path, ...] = ()
    report: Path | None = None
    top: int = 10
    ids: str | None = None

    def read(self) -> list[Chosen]:
        """The chosen prompts, each once. Raises InputError."""
        if self.images and len(self.images) != len(self.prompts):
            found = f"{len(self.images)} images for {len(self.prompts)} prompts"
            raise InputError(f"{found}: give each --prompt one --image")
        if self.ids is not None and self.report is None:
            raise InputError("--ids names prompts of a report: name its folder with --report")
        asked = pl.Series(self.prompts, dtype=pl.String).to_frame("text").select(as_prompt(pl.col("text")))["text"]
        paths = self.images or (None,) * len(asked)
        chosen = {prompt: Chosen(prompt, path) for prompt, path in zip(asked, paths, strict=True)}
        for prompt in [] if self.report is None else self._of_report(self.report):
            chosen.setdefault(prompt, Chosen(prompt, None))
        if not chosen:
            raise InputError("no prompt to verify: name some with --prompt, or a report folder with --report")
        return list(chosen.values())

    def _of_report(self, folder: Path) -> list[str]:
        try:
            ranked = pl.read_parquet(folder / RANKED).select("rank", "prompt_id", "text").drop_nulls().sort("rank")
        except (pl.exceptions.PolarsError, OSError) as error:
            raise InputError(
                f"{folder / RANKED}: no ranked prompts ({first_line(error)}): name a folder of `overscan report`"
            ) from error
        rows = ranked.head(self.top) if self.ids is None else pl.concat([self._named(ranked, i) for i in self._ids()])
        for id_, text in rows.select("prompt_id", "text").iter_rows():
            if prompt_id(text) != id_:
                raise InputError(f"{folder}: a redacted report, its texts are no prompts: report without --redact")
        return rows["text"].to_list()

    def _ids(self) -> list[str]:
        return [part.strip() for part in (self.ids or "").split(",")]

    def _named(self, ranked: pl.DataFrame, start: str) -> pl.DataFrame:
        found = ranked.filter(pl.col("prompt_id").str.starts_with(start), pl.lit(len(start) >= SHORTEST_ID))
        if len(found) != 1:
            raise InputError(
                f"prompt_id {start!r} names {len(found)} prompts of {self.report}; "
                f"needed {SHORTEST_ID} or more first characters of one"
            )
        return found
