"""What overscan answers to bad inputs, options, settings, bundles, stores and files: makes each and asks it.

`python -m tools.bad_inputs docs/bad-inputs.md` writes the document.
"""

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

What overscan answers to what is wrong; made by `python -m tools.bad_inputs docs/bad-inputs.md`, which asks the whole
program. `...` stands for `{MADE}`; before a colon stands what overscan.toml says. An answer is
what stderr says of an error, of rows and files left out, and in notes: without folders and hashes, and no more than
{LONGEST} characters. Exit codes: 2 is for arguments, settings and files to mend, 4 for the model and the machine.
"""


class Row(NamedTuple):
    """One line of the document; `said`: all of stderr."""

    section: str
    what: str
    command: str
    code: int
    answer: str
    said: str

    @property
    def beginning(self) -> str:
        """The line up to where the exit code is."""
        return f"| {self.what} | `{self.command}` | {self.code} | "


def rows() -> Iterator[Row]:
    """Ask for every case."""
    with sandbox() as original:
        site(original)
        for section, cases in SECTIONS.items():
            for case in cases:
                yield Row(section, case.what, case.shown, *answer(case, original))


def document() -> str:
    """All of docs/bad-inputs.md."""
    asked, lines = list(rows()), [HEAD]
    for section in SECTIONS:
        lines += [f"## {section}", "", "| what is wrong | command | exit code | answer |", "|---|---|---|---|"]
        lines += [row.beginning + f"{row.answer.replace('|', '¦')} |" for row in asked if row.section == section]
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"
