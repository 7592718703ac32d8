"""The recipes, run: their commands are taken from the files themselves."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from scanner.cli import cli
from scanner.config import load
from scanner.demo import BUNDLE, CAPTIONS

ROOT = Path(__file__).parent.parent
RECIPES = ROOT / "recipes"


@pytest.fixture
def site(tmp_path):
    """A folder as the recipes want it, with a little of the bundled captions, and `overscan` on the PATH."""
    (tmp_path / "bin").mkdir()
    program = f"#!{sys.executable}\nfrom scanner.cli import main\nmain()\n"
    (tmp_path / "bin/overscan").write_text(program)
    (tmp_path / "bin/overscan").chmod(0o755)
    (tmp_path / "captions").mkdir()
    shutil.copy(CAPTIONS, tmp_path / "captions")
    (tmp_path / "bundle").symlink_to(BUNDLE)
    shutil.copy(RECIPES / "nightly.sh", tmp_path)
    settings = (RECIPES / "overscan.toml").read_text()
    (tmp_path / "overscan.toml").write_text(settings.replace("[scan]\n", "[scan]\nlimit = 60\n"))
    return tmp_path


def bash(site, command, **environment):
    """Exit code of a command in that folder."""
    environment = os.environ | {"PATH": f"{site / 'bin'}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)} | environment
    return subprocess.run(["bash", "-e", "-c", command], cwd=site, env=environment, check=False).returncode


def test_the_settings_are_known():
    known = {name: [str(item.name) for item in command.params] for name, command in cli.commands.items()}
    assert load(RECIPES / "overscan.toml", known)["scan"]["inputs"] == ["captions/"]


def test_cron(site):
    (line,) = re.findall(r"^30 2 \* \* \* (.*)$", (RECIPES / "crontab").read_text(), re.MULTILINE)
    command = line.replace("/srv/overscan", str(site))
    assert bash(site, command) == 0
    assert "scored now" in (site / "nightly.log").read_text()
    assert (site / "report/flagged.csv").is_file()
    shutil.rmtree(site / "captions")
    assert bash(site, f"{command} | tee said") == 0  # cron mails what is said
    assert (site / "said").read_text() == "overscan: exit code 2\n"


def test_a_window_that_closes_is_no_failure(site):
    """Exit code 3 of the scan: the report still runs, here on a night that was stopped before it began."""
    assert bash(site, "./nightly.sh") == 0
    (site / "bin/timeout").write_text("#!/bin/sh\nexit 3\n")
    (site / "bin/timeout").chmod(0o755)
    shutil.rmtree(site / "report")
    assert bash(site, "./nightly.sh") == 0
    assert (site / "report/flagged.csv").is_file()
    (site / "bin/timeout").write_text("#!/bin/sh\nexit 4\n")
    assert bash(site, "./nightly.sh") == 4


def test_github_actions(site):
    steps = re.findall(r"^        run: (.*)$", (RECIPES / "github-actions.yml").read_text(), re.MULTILINE)
    assert steps == ["overscan scan --json > scan.json", "overscan report"]
    for step in steps:
        assert bash(site, step) == 0
    assert json.loads((site / "scan.json").read_text())["rows"] == 60
    assert (site / "report/flagged.csv").is_file()


def test_airflow(site):
    tree = ast.parse((RECIPES / "airflow_dag.py").read_text())
    keywords = (word for node in ast.walk(tree) if isinstance(node, ast.Call) for word in node.keywords)
    commands = [ast.literal_eval(word.value) for word in keywords if word.arg == "bash_command"]
    assert sorted(commands) == ["overscan report", "overscan scan --json"]
    for command in sorted(commands, reverse=True):
        assert bash(site, command) == 0


def test_docker_images_take_extras_and_commands_that_exist():
    for name in ("Dockerfile", "Dockerfile.gpu"):
        text = (RECIPES / name).read_text()
        assert "STOPSIGNAL SIGTERM" in text
        assert "not built by our tests" in text or "NOT RUN" in text
