"""The papers for developers: their examples run, and what they name is there."""

import pkgutil
import re
from pathlib import Path

import pytest
from small import BUNDLE, CAPTIONS

import scanner

ROOT = Path(__file__).parent.parent
PAPERS = ("CONTRIBUTING.md", "SECURITY.md", "docs/design.md")


def test_the_examples_of_contributing_run(tmp_path, monkeypatch):
    (tmp_path / "captions.parquet").symlink_to(CAPTIONS)
    (tmp_path / "bundle").symlink_to(BUNDLE)
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    examples = re.findall(r"```python\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL)
    for example in examples:
        exec(compile(example, "CONTRIBUTING.md", "exec"), names)
    assert len(examples) == 11


@pytest.mark.parametrize("paper", PAPERS)
def test_files_that_a_paper_names_are_there(paper):
    text = (ROOT / paper).read_text()
    named = set(re.findall(r"(?<![\w/])(?:docs|tools|tests|scanner|engines)/[\w./-]*[\w/]", text))
    assert named
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


def test_the_design_has_every_room():
    rooms = {module.name for module in pkgutil.iter_modules(scanner.__path__) if module.ispkg}
    described = set(re.findall(r"`scanner/(\w+)/`", (ROOT / "docs/design.md").read_text()))
    assert described == rooms


def test_each_word_of_the_glossary_is_explained_once():
    glossary = (ROOT / "docs/design.md").read_text().partition("## Glossary")[2].partition("\n## ")[0]
    words = [line.split("|")[1].strip() for line in glossary.splitlines() if line.startswith("|")][2:]
    assert len(words) > 40
    assert len(words) == len(set(words))


def test_names_that_moved_are_where_the_changelog_says():
    moved = re.findall(r"^- `([\w.]+)`.* -> `([\w.]+)`$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert len(moved) > 30
    for _, name in moved:
        assert pkgutil.resolve_name(name) is not None


def test_the_citation_is_of_this_version():
    citation = (ROOT / "CITATION.cff").read_text()
    project = (ROOT / "pyproject.toml").read_text()
    (version,) = re.findall(r'^version = "(.*)"$', project, re.MULTILINE)
    assert f"\nversion: {version}\n" in citation


@pytest.mark.parametrize("room", ["diffusion", "audit"])
def test_each_module_of_the_core_has_tests_of_its_name(room):
    modules = {path.stem for path in (ROOT / "scanner" / room).glob("*.py")} - {"__init__"}
    assert modules - {path.stem.removeprefix("test_") for path in (ROOT / "tests").glob("test_*.py")} == set()


@pytest.mark.parametrize(("page", "least"), [("faults", 30), ("inputs-faults", 40), ("decisions-faults", 20)])
def test_a_table_of_faults_names_tests_that_exist(page, least):
    table = (ROOT / f"docs/{page}.md").read_text(encoding="utf-8")
    cells = [line.rstrip("| ").rpartition("|")[2] for line in table.splitlines() if line.startswith("| ")]
    named = {name for cell in cells for name in re.findall(r"`(\w+)`", cell)}
    code = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").glob("test_*.py"))
    assert len(named) > least
    assert [name for name in sorted(named) if f"def test_{name}(" not in code] == []
