"""Which files an input names: paths, globs, folders and object-store URLs."""

import glob
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import polars as pl

from scanner.errors import InputError, first_line

SCHEMES = ("s3://", "gs://", "hf://")
PACKED = (".gz", ".zst", ".bz2", ".xz", ".lz4", ".zip", ".7z")
NO_DATASET = ("dataset_info.json", "dataset_dict.json", "state.json")  # Hugging Face's notes beside the data


def is_url(source: str | Path) -> bool:
    """Whether this names an object of a store rather than a path."""
    return re.match(r"[a-z][a-z0-9]*://", str(source)) is not None


def absolute(inputs: Sequence[str | Path]) -> list[str]:
    """The inputs as they can be read from any folder: absolute paths; URLs as they are."""
    return [str(item) if is_url(item) else str(Path(item).absolute()) for item in inputs]


def suffix(source: str, known: Sequence[str]) -> str:
    """The longest known suffix of a file's name. Raises InputError where there is none."""
    path = Path(source)
    fitting = [end for end in known if path.name.lower().endswith(end)]
    if fitting:
        return max(fitting, key=len)
    if path.is_dir():
        raise InputError(f"{source}: this folder cannot be listed: check its permissions")
    if _known(path, known):
        raise InputError(f"{source}: packed as {path.suffix}; needed one of {_named(known)}: unpack it")
    raise InputError(f"{source}: format {path.suffix or 'without suffix'}; needed one of {_named(known)}")


def _named(known: Sequence[str]) -> str:
    plain = ", ".join(end for end in known if not end.endswith(PACKED))
    return f"{plain} (text also .gz, .zst)"


def _known(path: Path, known: Sequence[str]) -> bool:
    """Whether a file is of a known format, or would be if it were not packed in a way that cannot be streamed."""
    name = path.name.lower()
    return name.endswith(tuple(known)) or (name.endswith(PACKED) and Path(name).stem.endswith(tuple(known)))


def sources(inputs: Sequence[str | Path], known: Sequence[str]) -> list[str]:
    """Files named by paths, globs, folders and URLs, sorted within each, each once. Raises InputError.

    img2dataset's parquet stands for the tar (or folder) of its name: they hold the same captions.
    """
    found: dict[str, None] = {}
    for item in inputs:
        files = _objects(str(item)) if is_url(item) else [str(file) for file in _paths(item, known)]
        if not files:
            raise InputError(f"{item}: no such file, or none of {_named(known)} in it")
        found.update(dict.fromkeys(files))
    return list(found)


def _paths(item: str | Path, known: Sequence[str]) -> list[Path]:
    path = Path(item)
    if path.exists():
        named = [path]
    else:
        named = sorted(Path(match) for match in glob.glob(str(item), recursive=True))  # noqa: PTH207 (absolute patterns)
        named = [match for match in named if match.is_file()] or named
    files: list[Path] = []
    for name in named:
        if name.exists() and not name.is_file() and not name.is_dir():
            raise InputError(f"{name}: a pipe or device; needed a file: write the captions to one")
        files += _walk(name, known) if name.is_dir() else [_table_of(name)]
    return files


def _walk(folder: Path, known: Sequence[str]) -> Iterator[Path]:
    """A folder's files of known formats; hidden ones (`.x`, `_SUCCESS`) and folders, and notes, are left out."""
    try:
        entries = sorted(folder.iterdir())
    except OSError:
        yield folder  # opening it says why
        return
    if (state := folder / "state.json") in entries:
        yield from _shards(state)
        return
    for path in entries:
        if path.name.startswith((".", "_")) or path.name in NO_DATASET or path.name.endswith("_stats.json"):
            continue
        if path.is_dir() and not path.is_symlink():
            if not path.with_name(path.name + ".parquet").exists():
                yield from _walk(path, known)
        elif _known(path, known) and not path.is_dir():
            yield _table_of(path)


def _table_of(path: Path) -> Path:
    """img2dataset's table of a tar, if it is there; else the file itself."""
    table = path.with_suffix(".parquet")
    return table if path.suffix.lower() == ".tar" and table.exists() else path


def _shards(state: Path) -> list[Path]:
    """The files of a Hugging Face dataset on disk: those it lists, not the caches beside them."""
    try:
        return [state.parent / entry["filename"] for entry in json.loads(state.read_text())["_data_files"]]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{state}: not the state of a Hugging Face dataset: repair it or name its files") from error


def _objects(url: str) -> list[str]:
    """The objects that a URL names; a glob or a folder (`/` at its end) is listed."""
    if not url.startswith(SCHEMES):
        raise InputError(f"{url}: needed a path or one of {', '.join(SCHEMES)}")
    pattern = url + "**/*" if url.endswith("/") else url
    if not re.search(r"[*?\[]", pattern):
        return [url]
    # Polars expands globs of object stores, but has no public call that says to what
    try:
        plan = pl.scan_lines(pattern)._ldf.visit().view_current_node()
    except (pl.exceptions.PolarsError, OSError) as error:
        reason = first_line(error)
        raise InputError(f"{url}: cannot be listed ({reason}): check the address and the credentials") from error
    return sorted(getattr(plan, "paths", []))
