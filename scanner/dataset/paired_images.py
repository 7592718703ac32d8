"""The images that a dataset pairs with its captions: provenance (file, row) -> image, or why there is none."""

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

from scanner.dataset import images
from scanner.dataset.readers import tar, values
from scanner.diffusion.prediction import Array
from scanner.errors import InputError
from scanner.places import is_url

MEMBERS = "members"  # of webdataset tars, where others name a column of paths


class PairedImage(NamedTuple):
    """One row's image. `status`: paired, no_image (the row names none), unreadable (missing, damaged, not local)."""

    row: int
    image: str | None
    status: str
    problem: str | None = None
    pixels: Array | None = None


def paired_images(file: str, rows: Collection[int], column: str, height: int, width: int) -> Iterator[PairedImage]:
    """Each of `rows` of a captions' file once, with its image, float32 [3, height, width] in [-1, 1].

    `column`: of local paths, relative ones from the file's folder; or `members`: the image member of a webdataset
    sample, in the tar itself or, for img2dataset's table, the tar beside it. What is wrong with a row, or with
    the rest of a tar, is its status. Raises InputError for a column or tar that is not there or readable.
    """
    found = _members(file, rows, height, width) if column == MEMBERS else _paths(file, rows, column, height, width)
    left = set(rows)
    for paired in found:
        if paired.row in left:
            left.discard(paired.row)
            yield paired
    yield from (PairedImage(row, None, "no_image", "no such row or sample") for row in sorted(left))


def _paths(file: str, rows: Collection[int], column: str, height: int, width: int) -> Iterator[PairedImage]:
    for row, name in _column(file, rows, column):
        if not name:
            yield PairedImage(row, None, "no_image", f"{column} is empty")
            continue
        try:
            if is_url(name) or is_url(file):
                raise InputError(f"{name}: not a local file; needed images on this machine: download them first")
            yield PairedImage(row, name, "paired", None, images.read(Path(file).parent / name, height, width))
        except InputError as error:
            yield PairedImage(row, name, "unreadable", str(error))


def _members(file: str, rows: Collection[int], height: int, width: int) -> Iterator[PairedImage]:
    archive, of_key = _archive(file, rows)
    seen = set()
    try:
        for number, key, data in tar.images(archive):
            row = number if of_key is None else of_key.get(key)
            if row is None or row not in rows:
                continue
            seen.add(row)
            yield _member(row, f"{archive}:{key}", data, height, width)
    except InputError as error:
        for row in sorted(set(rows) - seen):
            yield PairedImage(row, None, "unreadable", str(error))


def _member(row: int, name: str, data: bytes | None, height: int, width: int) -> PairedImage:
    if data is None:
        return PairedImage(row, None, "no_image", f"{name}: no .{', .'.join(tar.IMAGES)} in the sample")
    try:
        return PairedImage(row, name, "paired", None, images.decode(data, height, width))
    except InputError as error:
        return PairedImage(row, name, "unreadable", f"{name}: {error}")


def _archive(file: str, rows: Collection[int]) -> tuple[str, dict[str, int] | None]:
    """The tar of a captions' file; the rows of its keys where the file is img2dataset's table of it."""
    if file.lower().endswith((".tar", ".tgz", ".tar.gz")):
        return file, None
    archive = Path(file).with_suffix(".tar")
    if is_url(file) or not archive.exists():
        raise InputError(f"{file}: no tar, nor {archive.name} beside it; needed one for --images {MEMBERS}")
    return str(archive), {key: row for row, key in _column(file, rows, "key") if key is not None}


def _column(file: str, rows: Collection[int], column: str) -> Iterator[tuple[int, str | None]]:
    """(row, value as text) of `rows`. Raises InputError where the file has no such column."""
    try:
        yield from ((row, value) for row, value in values(file, column) if row in rows)
    except InputError as error:
        raise InputError(str(error).replace("--column", "--images")) from error
