"""One bad thing, and what the command line answers to it."""

import contextlib
import io
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from scanner.cli import main

BUNDLE = Path(__file__).parents[2] / "tests/small/bundle"
ANSWER = re.compile(
    r"(error: |Error: |note: |left out |passed over |no caption |note  |skipped |scored now |policy violated)"
)
HASH = re.compile(r"\b[0-9a-f]{12,}\b")
TIMING = re.compile(r" in [\d.]+ s \(.*?\)")
MADE = "--model bundle --store store"
LONGEST = 240  # characters of an answer in the table


@dataclass(frozen=True)
class Case:
    """`command`: as typed, in a folder made by `site` and then changed by `spoil`; `...` stands for MADE.

    `settings`: what overscan.toml says.
    """

    what: str
    command: str
    spoil: Callable[[Path], object] = lambda folder: None
    environment: Mapping[str, str] = field(default_factory=dict)
    settings: str | None = None

    @property
    def shown(self) -> str:
        """What is typed or set, in one line."""
        variables = [f"{name}={value} " for name, value in self.environment.items()]
        settings = [] if self.settings is None else [" ".join(self.settings.split()), ": "]
        return "".join([*settings, *variables, self.command])


def overscan(command: str, environment: Mapping[str, str] = os.environ) -> tuple[int, str]:
    """(exit code, stderr) of the whole program in this process. Arguments have no spaces."""
    err, saved = io.StringIO(), (sys.argv, dict(os.environ))
    sys.argv = ["overscan", *command.replace("...", MADE).split()]
    os.environ.update(environment)
    code: object = 0
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(err):
            main()
    except SystemExit as ended:
        code = ended.code or 0
    finally:
        sys.argv = saved[0]
        os.environ.clear()
        os.environ.update(saved[1])
    assert isinstance(code, int)
    return code, err.getvalue()


@contextlib.contextmanager
def sandbox(original: Path | None = None):
    """A temporary working folder, a copy of `original` where there is one."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve() / "site"
        if original is None:
            folder.mkdir()
        else:
            shutil.copytree(original, folder, symlinks=True)
        with contextlib.chdir(folder):
            yield folder


def site(folder: Path) -> None:
    """Fill the working folder: captions, a bundle, a scanned store, a calibration, a baseline and two reports."""
    (folder / "captions.txt").write_text("a red barn\ntwo boats\nmale sign\n")
    (folder / "benign.txt").write_text("\n".join(f"a plain sentence number {n}" for n in range(19)))
    (folder / "bundle").mkdir()
    for file in BUNDLE.iterdir():
        (folder / "bundle" / file.name).symlink_to(file)
    for command in (
        "scan captions.txt --model bundle --store store",
        "calibrate benign.txt --model bundle --store store --out calibration.parquet",
        "report --store store --out report --write-baseline baseline.json",
    ):
        code, said = overscan(command)
        assert code == 0, said


def answer(case: Case, original: Path) -> tuple[int, str, str]:
    """(exit code, shortened answer, all of stderr)."""
    with sandbox(original) as folder:
        case.spoil(folder)
        if case.settings is not None:
            (folder / "overscan.toml").write_text(case.settings)
        code, said = overscan(case.command, case.environment)
        return code, shortened(said, folder, original), said


def shortened(said: str, *folders: Path) -> str:
    """The lines that answer, without folders' names, hashes, timings and what lies beyond 240 characters."""
    lines = [line.strip() for line in said.splitlines() if ANSWER.match(line)]
    words = HASH.sub("HASH", TIMING.sub("", "; ".join(lines)))
    words = " ".join(words.removeprefix("error: ").removeprefix("Error: ").split())
    for folder in folders:
        words = words.replace(f"{folder}/", "")
    return words if len(words) <= LONGEST else words[:LONGEST].rsplit(" ", 1)[0] + " ..."
