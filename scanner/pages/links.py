"""Pages of one folder link to each other by their names, so that the folder can be moved, zipped and mailed."""

from pathlib import Path

PAGES = {
    "report.html": "Report",
    "verified.html": "Pictures",
    "verify.html": "Verification",
    "images.html": "Paired images",
    "explain.html": "Words",
    "evaluation.html": "Evaluation",
}


def siblings(folder: Path, own: str, written: tuple[str, ...] = ()) -> dict[str, str]:
    """Title -> link of the pages in a folder, the one called `own` among them, and those about to be `written` there.

    Nothing where there is no other.
    """
    there = {title: name for name, title in PAGES.items() if name in (own, *written) or (folder / name).is_file()}
    return there if len(there) > 1 else {}
