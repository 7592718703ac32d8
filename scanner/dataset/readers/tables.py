"""Tables that are folders of files. Their logs say which rows are deleted, so none of their files is read alone."""

from pathlib import Path
from urllib.parse import unquote

from scanner.dataset.readers.names import DELTA, is_url


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


def table_above(path: Path) -> Path | None:
    """The Delta table that a file belongs to, in a partition's folder or not; None where it belongs to none."""
    for folder in list(path.parents)[:6]:
        if _has_log(folder):
            return folder
        if "=" not in folder.name:
            return None
    return None


def _has_log(folder: Path) -> bool:
    return (folder / "_delta_log").is_dir()
