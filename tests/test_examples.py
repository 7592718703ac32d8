"""The example in the docstring of each public name, run where a first user would: beside a bundle and captions."""

import doctest

import pytest
from small import BUNDLE, CAPTIONS

import scanner

NAMES = {name: getattr(scanner, name) for name in scanner.__all__}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Captions, a bundle, and a store in which they are scanned."""
    folder = tmp_path_factory.mktemp("examples")
    (folder / "captions.parquet").symlink_to(CAPTIONS)
    (folder / "bundle").symlink_to(BUNDLE)
    scanner.scan(folder / "captions.parquet", model=folder / "bundle", store=folder / "store", limit=40, batch_size=16)
    return folder


@pytest.mark.parametrize("name", NAMES)
def test_the_example_of_each_public_name_runs(name, folder, monkeypatch):
    monkeypatch.chdir(folder)
    found = doctest.DocTestParser().get_doctest(NAMES[name].__doc__, dict(NAMES), name, None, None)
    assert found.examples
    said: list[str] = []
    doctest.DocTestRunner(verbose=False).run(found, out=said.append)
    assert not said, "".join(said)
