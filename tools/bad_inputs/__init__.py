"""What overscan answers to bad inputs, options, settings, bundles, stores and files: makes each and asks it.

`python -m tools.bad_inputs docs` writes the page bad-inputs.md and the answers, bad-inputs.csv.
"""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from tools.bad_inputs import bundles, decisions, inputs, options, stores
from tools.bad_inputs.case import LONGEST, MADE, Case, answer, sandbox, site

SECTIONS: Mapping[str, Sequence[Case]] = {
    "Inputs": inputs.CASES,
    "Arguments": options.ARGUMENTS,
    "Settings files": options.SETTINGS,
    "Environment": options.ENVIRONMENT,
    "Bundles and checkpoints": bundles.CASES,
    "Stores": stores.CASES,
    "Calibrations": decisions.CALIBRATIONS,
    "Baselines and allow-lists": decisions.LISTS,
    "Reports to compare": decisions.REPORTS,
    "Kept thresholds": decisions.THRESHOLDS,
    "Findings to accept": decisions.ACCEPTS,
    "Reports to do again": decisions.RECHECKS,
}
HEAD = f"""# Bad inputs

What overscan answers to what is wrong: [bad-inputs.csv](bad-inputs.csv) has a row for each case, made by
`python -m tools.bad_inputs docs`, which asks the whole program; a test asks again. `...` in a command stands for
`{MADE}`; before a colon stands what overscan.toml says. An answer is what stderr says of an error, of rows
and files left out, and in notes: without folders and hashes, and no more than {LONGEST} characters. Exit codes:
2 is for arguments, settings and files to mend, 4 for the model and the machine; 0 where the rest could be done.

| what is wrong with | cases | exit code 0 | 2 | 4 | an answer |
|---|---|---|---|---|---|
"""
COLUMNS = ("section", "what is wrong", "command", "exit code", "answer")


class Row(NamedTuple):
    """One row of the table; `said`: all of stderr."""

    section: str
    what: str
    command: str
    code: int
    answer: str
    said: str


def rows() -> Iterator[Row]:
    """Ask for every case."""
    with sandbox() as original:
        site(original)
        for section, cases in SECTIONS.items():
            for case in cases:
                yield Row(section, case.what, case.shown, *answer(case, original))


def page(asked: Sequence[Row]) -> str:
    """bad-inputs.md: of each section how many cases end how, and the first."""
    lines = []
    for section in SECTIONS:
        found = [row for row in asked if row.section == section]
        counts = [sum(row.code == code for row in found) for code in (0, 2, 4)]
        shown = f"`{found[0].command}`: {found[0].answer.replace('|', '¦')}"
        lines.append(f"| {section.lower()} | {len(found)} | {' | '.join(map(str, counts))} | {shown} |\n")
    return HEAD + "".join(lines)


def table(asked: Sequence[Row]) -> str:
    """bad-inputs.csv: COLUMNS."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(row[: len(COLUMNS)] for row in asked)
    return text.getvalue()
