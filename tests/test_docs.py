"""The README's claims, run."""

import re
from pathlib import Path

from scanner.cli import cli

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_the_python_example_runs(tmp_path, monkeypatch, capsys):
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(compile(example, "README.md", "exec"), {})
    printed = capsys.readouterr().out
    assert "shape: (165, 13)" in printed  # 200 rows hold 165 unique captions
    assert "agreement_v1" in printed


def test_every_command_is_in_the_readme():
    for name in cli.commands:
        assert f"overscan {name}" in README


def test_the_readme_names_only_options_that_exist():
    known = {option for command in cli.commands.values() for p in command.params for option in p.opts}
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", README))
    assert named <= known | {"--help"}


def test_ci_runs_the_readmes_test_command():
    assert "make test" in README
    assert "make test" in (ROOT / ".ci/run").read_text()
