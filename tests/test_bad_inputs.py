"""docs/bad-inputs.csv holds every case, with its exit code and how the answer begins."""

import csv
from pathlib import Path

import pytest

from tools.bad_inputs import COLUMNS, SECTIONS, rows

DOCUMENT = list(csv.DictReader((Path(__file__).parent.parent / "docs/bad-inputs.csv").read_text().splitlines(True)))


@pytest.fixture(scope="module")
def asked():
    return list(rows())


@pytest.mark.parametrize("section", SECTIONS)
def test_the_document_is_of_this_version(asked, section):
    written = [row for row in DOCUMENT if row["section"] == section]
    found = [row for row in asked if row.section == section]
    for row, line in zip(found, written, strict=True):
        assert [line[name] for name in COLUMNS[1:4]] == [row.what, row.command, str(row.code)], row.said
        assert line["answer"].startswith(row.answer[:20]), row.said  # libraries change the rest of their words


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
