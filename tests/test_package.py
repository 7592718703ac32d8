"""What a wheel delivers beside modules."""

import tomllib
from pathlib import Path

import pytest

import engines
import scanner
from tools import release

ROOT = Path(__file__).parent.parent


def test_types_are_delivered():
    """Without the file `py.typed` (PEP 561), `scan(...)` is Any to everyone else's type checker."""
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"][
        "packages"
    ]
    assert packages == ["scanner", "engines"]
    for package in (scanner, engines):
        assert (Path(package.__file__).parent / "py.typed").read_text() == ""


def test_a_released_package_leads_to_its_repository():
    pyproject = (ROOT / "pyproject.toml").read_text()
    version = tomllib.loads(pyproject)["project"]["version"]
    urls = tomllib.loads(release.with_urls(pyproject, "https://host/o/n", f"v{version}"))["project"]["urls"]
    assert urls == {
        "Repository": "https://host/o/n",
        "Documentation": f"https://host/o/n/blob/v{version}/docs/index.md",
        "Changelog": f"https://host/o/n/blob/v{version}/CHANGELOG.md",
        "Issues": "https://host/o/n/issues",
        "Paper": "https://arxiv.org/abs/2509.25705",
    }
    with pytest.raises(SystemExit, match=r"tag v9: pyproject\.toml has version"):
        release.with_urls(pyproject, "https://host/o/n", "v9")


def test_a_released_page_has_no_relative_link():
    page = release.with_links((ROOT / "README.md").read_text(), "https://host/o/n", "v1")
    assert page.count("https://host/o/n/blob/v1/docs/") > 5
    assert not release.LINK.findall(page)
    assert not release.SOURCE.findall(page)
    shown = release.with_links('<img alt="x" src="docs/a.png"> [a](https://b) [c](#d)', "https://host/o/n", "v1")
    assert shown == '<img alt="x" src="https://host/o/n/raw/v1/docs/a.png"> [a](https://b) [c](#d)'
