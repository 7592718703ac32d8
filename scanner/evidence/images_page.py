"""Paired images as files: a page, the numbers as parquet and as lines of JSON, and the parquet read back."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import polars as pl

from scanner.errors import ScannerError, first_line
from scanner.evidence.cards_page import Card, Word, render
from scanner.evidence.images import PICTURES, ROWS, SCHEMA
from scanner.files import reading, replacing_folder
from scanner.identity import shown
from scanner.pages import safe

PAGE, DATA = "images.html", "images.parquet"
FILES = (DATA, "images.jsonl", PAGE)
CHARACTERS = 500
NUMBERS = ("injection_prior", "injection_cosine_prior", "E_rel")
HEADS = ("image", "injection", "cosine", "E_rel")
LEAD = (
    "Injection is how much of an image the first step already holds, by the model's own prior: it tends to the "
    "guidance scale for a memorized pair. The cosine is 1 where the estimate points at the image. E_rel is how far "
    "what the caption changes lies from what the image would: 0 for a memorized pair, 1 where it changes nothing."
)
NOTE = (
    "The nearest is that of all images looked at: a caption may be memorized with another image than its own. A high "
    "value is strong evidence, and still not a picture: overscan verify generates it."
)


def write(out: Path, found: pl.DataFrame, scan_id: str) -> list[Path]:
    """The page and both files of numbers in the folder `out`, all together; returns the paths. Raises ScannerError."""
    try:
        with replacing_folder(out, FILES.__contains__) as partial:
            found.write_parquet(partial / DATA, metadata={"scan_id": scan_id})
            found.drop(PICTURES).write_ndjson(partial / "images.jsonl")
            (partial / PAGE).write_bytes(page(found, out, scan_id).encode())
    except (OSError, pl.exceptions.ComputeError) as error:
        raise ScannerError(f"{out}: cannot be written ({first_line(error)}): needed a folder to write to") from error
    return [out / name for name in FILES]


def read(folder: Path, scan_id: str) -> pl.DataFrame:
    """For each prompt the row that has pictures, as `write` left it in a folder, of this scan; no rows without."""
    try:
        with reading(folder):
            if pl.read_parquet_metadata(folder / DATA).get("scan_id") == scan_id:
                return pl.read_parquet(folder / DATA).filter(pl.col("picture").is_not_null())
    except (OSError, pl.exceptions.PolarsError):  # none there, or of an older overscan
        pass
    return pl.DataFrame(schema=SCHEMA)


def page(found: pl.DataFrame, folder: Path, scan_id: str) -> str:
    """A card per prompt: its best image beside the nearest of all, and every image of its rows in numbers."""
    prompts = found.partition_by("prompt_id", maintain_order=True)
    chosen = [part.filter(pl.col("picture").is_not_null()) for part in prompts]
    kicker = f"Overscan, paired images of scan {shown(scan_id)}"
    cards = [_card(part, best) for part, best in zip(prompts, chosen, strict=True)]
    return render(PAGE, folder, kicker, headline(found), LEAD, (NOTE,), HEADS, cards)


def headline(found: pl.DataFrame) -> str:
    """How many captions point at the image that the dataset gives them, in one sentence."""
    best = found.filter(pl.col("picture").is_not_null())
    own = len(best.filter(pl.col("image") == pl.col("nearest_image")))
    return f"{own:,} of {len(best):,} captions point at their own image more than at any other looked at"


def pictures(row: Mapping[str, Any]) -> Iterator[tuple[str, bytes]]:
    """(words, PNG) of a prompt's own image, and of the nearest where that is another."""
    yield f"dataset's image, cosine {_number(row['injection_cosine_prior'])}", row["picture"]
    if row["nearest_picture"] is not None and row["nearest_image"] != row["image"]:
        yield f"nearest image, cosine {_number(row['nearest_cosine_prior'])}", row["nearest_picture"]


def measures(row: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(name, value) of what the first step holds of its image."""
    return [("injection", _number(row["injection_prior"])), ("its cosine", _number(row["injection_cosine_prior"]))]


def _card(part: pl.DataFrame, best: pl.DataFrame) -> Card:
    rows = [
        [_name(row["image"]) or row["problem"] or row["status"], *(_number(row[name]) for name in NUMBERS)]
        for row in part.iter_rows(named=True)
    ]
    text = safe.visible_text(part["text"][0], CHARACTERS)
    first = next(best.iter_rows(named=True), None)
    nearest = part.row(0, named=True)
    foot = f"nearest of all: {_name(nearest['nearest_image'])}, cosine {_number(nearest['nearest_cosine_prior'])}"
    found = [] if first is None else list(pictures(first))
    more = f"; the first {ROWS} of its rows are shown" if len(part) == ROWS else ""
    return Card(part["prompt_id"][0][:12], [Word(text)], pictures=found, rows=rows, foot=foot + more)


def _name(image: str | None) -> str:
    return "" if image is None else safe.visible_text(image.rpartition("/")[2], CHARACTERS)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
