"""docs/bad-inputs.md holds every case, with its exit code and what the message begins with."""

from pathlib import Path

from tools.bad_inputs import table

DOCUMENT = (Path(__file__).parent.parent / "docs/bad-inputs.md").read_text()


def test_the_table_is_of_this_version():
    for what, file, code, said in table():
        assert f"| {what} | `{file}` | {code} | {said[:20]}" in DOCUMENT, said
        assert code == 0 or said.startswith(f"{file}: ")
