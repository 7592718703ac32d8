"""What a wheel delivers beside modules."""

import tomllib
from pathlib import Path

import engines
import scanner

ROOT = Path(__file__).parent.parent


def test_types_are_delivered():
    """Without the file `py.typed` (PEP 561), `scan(...)` is Any to everyone else's type checker."""
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"][
        "packages"
    ]
    assert packages == ["scanner", "engines"]
    for package in (scanner, engines):
        assert (Path(package.__file__).parent / "py.typed").read_text() == ""
