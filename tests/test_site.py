"""The documentation as a site: built without a warning, whole, and loading nothing from other servers."""

import os
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

from scanner.cli import COMMANDS
from tools.docs_site import check

pytest.importorskip("mkdocs")
ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    return folder


def test_no_page_loads_anything_from_another_server(site):
    assert list(check.findings(site)) == []
    assert len(list(site.glob("*.html"))) > 30


@pytest.mark.parametrize(
    ("page", "found"),
    [
        ('<script src="https://cdn.test/a.js"></script>', ["https://cdn.test/a.js"]),
        ('<link rel="stylesheet" href="//fonts.test/a.css">', ["//fonts.test/a.css"]),
        ('<img src="a.png" srcset="https://b.test/2x.png 2x">', ["https://b.test/2x.png 2x"]),
        ("<style>@import 'https://c.test/a.css'; b { background: url(//d.test/x.png) }</style>", None),
        ('<a href="https://e.test">x</a><link rel="canonical" href="https://e.test"><img src="/x.png">', []),
    ],
)
def test_what_a_page_loads_is_found(page, found):
    expected = ["https://c.test/a.css", "//d.test/x.png"] if found is None else found
    assert check.loaded(page) == expected


def test_links_to_pages_are_called_by_their_titles(site):
    pages = {page.name: page.read_text() for page in site.glob("*.html")}
    assert {name: found for name, page in pages.items() if (found := re.findall(r">[\w./-]+\.md</a>", page))} == {}
    assert '<a href="errors.html">Errors by kind</a>' in pages["detecting.html"]


def test_the_reference_has_every_command_with_its_options_and_examples(site):
    page = re.sub(r"<[^>]+>", "", (site / "cli.html").read_text())
    for command in COMMANDS:
        assert f"overscan {command.name}" in page
        for option in command.params:
            assert not isinstance(option, click.Option) or option.opts[-1] in page, option
    assert "overscan scan captions.parquet -m bundle -s store" in page


def test_the_reference_has_every_public_name(site):
    import scanner

    page = (site / "api.html").read_text()
    for name in scanner.__all__:
        assert re.search(rf'id="(scanner|engines)\.{name}"', page), name
    assert "&gt;&gt;&gt; " in page or 'class="gp"' in page  # examples are code, and no quotations
    assert "<blockquote>" not in page


def test_files_of_the_repository_are_pages_whose_links_hold(site):
    design, contributing = ((site / f"{name}.html").read_text() for name in ("design", "contributing"))
    assert 'href="contributing.html"' in design
    assert 'href="inputs.html"' in contributing
    assert (site / "NOTICE.txt").read_text() == (ROOT / "NOTICE").read_text()
    assert 'id="nightlysh"' in (site / "recipes.html").read_text()
