"""Which files an input names: paths, globs, folders and object-store URLs."""

import glob
import re
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from scanner.dataset.readers import folders
from scanner.dataset.readers.names import Found, named, suffix
from scanner.errors import InputError, first_line, printable
from scanner.places import SCHEMES as OBJECTS
from scanner.places import absolute as absolute_place
from scanner.places import is_url, unread

__all__ = ["absolute", "sources", "suffix"]

SCHEMES = (*OBJECTS, "hf://")
SHOWN = 5  # files passed over that a message names


def absolute(inputs: Sequence[str | Path]) -> list[str]:
    """The inputs as they can be read from any folder: absolute paths; URLs as they are."""
    return [absolute_place(item) for item in inputs]


def sources(inputs: Sequence[str | Path], known: Sequence[str]) -> Found:
    """Files named by paths, globs, folders and URLs, sorted within each, each once. Raises InputError.

    img2dataset's parquet stands for the tar (or folder) of its name: they hold the same captions.
    """
    found = Found()
    for item in inputs:
        here = Found()
        if is_url(item):
            folders.objects(_objects(str(item)), known, here)
        else:
            for path in _paths(item):
                folders.named(path, known, here)
        if not here:
            raise InputError(f"{printable(str(item))}: no such file, or none of {named(known)} in it{_left(here)}")
        _merge(found, here)
    return found


def _left(found: Found) -> str:
    passed_over = list(found.passed_over.items())[:SHOWN]
    return "".join(f"; passed over: {printable(Path(file).name)} ({why})" for file, why in passed_over)


def _merge(into: Found, found: Found) -> None:
    into.walked |= found.walked - into.files.keys()
    into.files |= {file: kind for file, kind in found.files.items() if file not in into.files}
    into.passed_over |= found.passed_over
    into.refused |= found.refused


def _paths(item: str | Path) -> list[Path]:
    path = Path(item)
    if path.exists():
        matches = [path]
    else:
        matches = sorted(Path(match) for match in glob.glob(str(item), recursive=True))  # noqa: PTH207 (absolute patterns)
        matches = [match for match in matches if match.is_file()] or matches
    for match in matches:
        if match.exists() and not match.is_file() and not match.is_dir():
            raise InputError(f"{printable(str(match))}: a pipe or device; needed a file: write the captions to one")
    return matches


def _objects(url: str) -> list[str]:
    """The objects that a URL names; a glob or a folder (`/` at its end) is listed."""
    if not url.startswith(SCHEMES):
        raise InputError(f"{printable(url)}: needed a path or one of {', '.join(SCHEMES)}")
    pattern = url + "**/*" if url.endswith("/") else url
    if not re.search(r"[*?\[]", pattern):
        return [url]
    # Polars expands globs of object stores, but has no public call that says to what
    try:
        lines = pl.scan_lines(pattern)._ldf.visit().view_current_node()
    except (pl.exceptions.PolarsError, OSError) as error:
        if of_store := unread(url, error):
            raise of_store from error
        reason = printable(first_line(error))
        raise InputError(
            f"{printable(url)}: cannot be listed ({reason}): check the address and the credentials"
        ) from error
    return sorted(getattr(lines, "paths", []))
