"""The folder that a package comes from. Imported before all else: it imports nothing of ours."""

from importlib.util import find_spec
from pathlib import Path


def elsewhere(package: str, beside: Path) -> str | None:
    """Where a package would be imported from, if that is not the folder `beside`; None where it is."""
    spec = find_spec(package)
    found = None if spec is None else spec.origin or next(iter(spec.submodule_search_locations or ()), None)
    if found is None:
        return "nowhere"
    return None if Path(found).resolve().is_relative_to(beside.resolve()) else found
