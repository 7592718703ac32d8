"""docs/bad-inputs.md holds every case, with its exit code and how the answer begins."""

import re
from pathlib import Path

import pytest

from tools.bad_inputs import SECTIONS, rows

DOCUMENT = (Path(__file__).parent.parent / "docs/bad-inputs.md").read_text()


@pytest.fixture(scope="module")
def asked():
    return list(rows())


@pytest.mark.parametrize("section", SECTIONS)
def test_the_document_is_of_this_version(asked, section):
    (lines,) = re.findall(rf"## {section}\n\n.*?\|---\|\n(.*?)(?:\n\n|\Z)", DOCUMENT, re.DOTALL)
    found = [row for row in asked if row.section == section]
    # libraries change the rest of their words
    for row, line in zip(found, lines.strip().splitlines(), strict=True):
        assert line.startswith(row.beginning + row.answer[:20]), row.said


def test_nothing_bad_is_a_bug_a_violated_policy_or_without_an_answer(asked):
    for row in asked:
        assert row.code in (0, 2, 4), row
        assert row.answer, row
        assert "Traceback" not in row.said, row.said


def test_bundles_and_checkpoints_are_the_engines_affair(asked):
    assert {row.code for row in asked if row.section == "Bundles and checkpoints"} == {4}


def test_a_bad_file_is_named_first(asked):
    for row in asked:
        if row.section == "Inputs" and row.code:
            assert row.answer.startswith(f"{row.command.split()[1]}: ")
