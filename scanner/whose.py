"""Imported first: refuses to go on where another package is called `engines`, as whatever follows would fail oddly.

The command `overscan` imports before it can catch anything, so it is ended here, as `scanner.cli` ends it: with words
and the exit code of a broken installation.
"""

import sys
from importlib.util import find_spec
from pathlib import Path


def elsewhere(name: str, beside: Path) -> str | None:
    """Where a package would be imported from, if that is not the folder `beside`; None where it is."""
    spec = find_spec(name)
    found = None if spec is None else spec.origin or next(iter(spec.submodule_search_locations or ()), None)
    if found is None:
        return "nowhere"
    return None if Path(found).resolve().is_relative_to(beside.resolve()) else found


if other := elsewhere("engines", Path(__file__).parent.parent):
    said = (
        f"`engines` would come from {other}; overscan's own lies in {Path(__file__).parent.parent}: take the other's "
        "folder off PYTHONPATH, or rename it where it is the working directory's"
    )
    if Path(sys.argv[0]).stem != "overscan":
        raise ImportError(said)
    print(f"error: {said}", file=sys.stderr)
    sys.exit(4)
