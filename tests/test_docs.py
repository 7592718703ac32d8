"""What the README and the pages claim, run."""

import re
import shlex
from pathlib import Path

import click
import pytest
from test_cli import resolved

from engines import BACKENDS
from scanner.cli import cli
from scanner.cli.settings import load
from tools import first_screen

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_the_python_example_runs(tmp_path, monkeypatch, capsys):
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/get-started.md").read_text(), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(compile(example, "get-started.md", "exec"), {})
    printed = capsys.readouterr().out
    assert "shape: (184, " in printed  # 200 rows hold 184 unique captions
    assert "low_noise_norm_v1" in printed


def test_the_readme_is_short():
    assert len(README.split()) < 700


PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_line_of_a_page_parses(page):
    shells = re.findall(r"```sh\n(.*?)```", page.read_text(), re.DOTALL)
    lines = [line for shell in shells for line in shell.replace("\\\n", " ").splitlines()]
    for line in lines:
        for part in re.split(r"&&|\|\||[|;<>]|&$", line.partition("  #")[0].replace("...", "")):
            words = shlex.split(part, comments=True)
            if words[:1] == ["overscan"] and len(words) > 1 and words[1] != "--config":
                command, arguments = resolved(words)
                context = click.Context(command, **command.context_settings)
                command.make_parser(context).parse_args(arguments)  # raises where an option is none


@pytest.mark.parametrize("page", ["README.md", "docs/detecting.md"])
def test_the_table_of_results_is_what_was_measured(page):
    text = (ROOT / page).read_text()
    measured = first_screen.table(first_screen.measured(), (ROOT / "docs/performance.md").read_text())
    assert first_screen.between_marks(text, "results", measured) == text, "run tools/first_screen.py"


def test_the_readme_names_only_options_that_exist():
    known = {option for command in cli.commands.values() for p in command.params for option in p.opts}
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", README))
    assert named <= known | {"--help"}


def test_ci_runs_the_readmes_test_command():
    assert "make test" in README
    assert "make test" in (ROOT / ".ci/run").read_text()


def test_the_page_on_nights_names_only_options_and_settings_that_exist(tmp_path):
    page = (ROOT / "docs/nights.md").read_text()
    known = {name: command.params for name, command in cli.commands.items()}
    options = {option for command in (cli, *cli.commands.values()) for p in command.params for option in p.opts}
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", page)) <= options | {"--json"}
    (settings,) = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    (tmp_path / "overscan.toml").write_text(settings)
    by_command = load(tmp_path / "overscan.toml", {name: [str(p.name) for p in ps] for name, ps in known.items()})
    assert by_command["scan"]["seeds"] == 4
    variables = re.findall(r"OVERSCAN_(SCAN|REPORT)_([A-Z_]+)=", page)
    assert variables
    for command, option in variables:
        assert option.lower() in [p.name for p in known[command.lower()]]


def test_the_page_on_gpus_names_only_options_backends_and_files_that_exist():
    page = (ROOT / "docs/gpu.md").read_text()
    options = {option for command in cli.commands.values() for p in command.params for option in p.opts}
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", page)) <= options | {
        "--index-url",
        "--force-reinstall",
        "--checkpoint",
        "--variants",
    }
    backends = set(re.findall(r"^\| `([a-z][a-z-]+)` \|", page, re.MULTILINE))
    assert backends == {"tensorrt", "cuda", "torch-cuda"}
    assert backends <= set(BACKENDS)
    for path in re.findall(r"(?:tools|tests|scanner|engines)/[\w./-]+", page):
        assert (ROOT / path).exists(), path
