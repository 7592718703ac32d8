"""Files that appear whole or not at all, and the folder that a package comes from."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a path to write to, in the folder of `path`, which it makes; when written, it takes the place of `path`.

    Several processes may do so at once: the last one's file stays. What fails leaves `path` as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}-") as folder:
        partial = Path(folder) / path.name
        yield partial
        partial.replace(path)


def elsewhere(package: str, beside: Path) -> str | None:
    """Where a package would be imported from, if that is not the folder `beside`; None where it is."""
    spec = find_spec(package)
    found = None if spec is None else spec.origin or next(iter(spec.submodule_search_locations or ()), None)
    if found is None:
        return "nowhere"
    return None if Path(found).resolve().is_relative_to(beside.resolve()) else found
