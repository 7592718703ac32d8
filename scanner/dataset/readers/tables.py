"""Tables that are folders of files. Their logs say which rows are deleted, so none of their files is read alone."""

from pathlib import Path
from urllib.parse import unquote

from scanner.dataset.readers.names import DELTA
from scanner.places import is_url

DEPTH = 6  # folders between a table and its files


def of_folder(folder: str, names: set[str]) -> str | None:
    """The format whose table a folder is, by the names in it; None where it is none."""
    if "_delta_log" in names:
        return DELTA
    if ".hoodie" in names:
        return "a Hudi table"
    if "_versions" in names and any(Path(folder, "_versions").glob("*.manifest")):
        return "a Lance table"
    if "metadata" in names and any(Path(folder, "metadata").glob("*.metadata.json")):
        return "an Iceberg table"
    if {"snapshot", "schema"} <= names and any(Path(folder, "snapshot").glob("snapshot-*")):
        return "a Paimon table"
    return None


def is_readable(table: str) -> bool:
    """Whether deltalake can read a Delta table by its path; it panics where it cannot."""
    return is_url(table) or (unquote(table) == table and {"[", "]"}.isdisjoint(table))


def above(path: Path) -> tuple[Path, str] | None:
    """The table that a file or folder belongs to, in a partition's folder or not, and its format; None for none."""
    for folder in list(path.parents)[:DEPTH]:
        try:
            names = {item.name for item in folder.iterdir()} if (found := _marked(folder)) else set()
        except OSError:
            return None
        if found and (what := of_folder(str(folder), names)):
            return folder, what
        if "=" not in folder.name and folder.name != "data" and not folder.name.startswith("bucket-"):
            return None
    return None


def _marked(folder: Path) -> bool:
    return any((folder / name).is_dir() for name in ("_delta_log", ".hoodie", "_versions", "metadata", "snapshot"))
