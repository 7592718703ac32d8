"""Streams that cannot be written, and signals: the exit code tells of the work, and 1 of the policy alone."""

import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest
from small import BUNDLE

from scanner.store.ledger import Ledger

OVERSCAN = f"{sys.executable} -m scanner"
MADE = f"--model {BUNDLE} --store store --backend cpu"
REPORT = "report --store store --out report"


def sh(folder, command, **environment):
    """(exit code, stdout, stderr) of a shell's command, in which `overscan` is the program."""
    script = command.replace("overscan", OVERSCAN)
    environment = os.environ | {"TMPDIR": str(folder)} | environment
    done = subprocess.run(
        ["bash", "-c", script], cwd=folder, capture_output=True, text=True, check=False, env=environment
    )
    return done.returncode, done.stdout, done.stderr


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("streams")
    (folder / "captions.txt").write_text("a red barn\ntwo boats\nmale sign\n")
    code, _, said = sh(folder, f"overscan scan captions.txt {MADE}")
    assert code == 0, said
    return folder


@pytest.mark.parametrize(
    ("command", "code", "lost", "encoding"),
    [
        (f"{REPORT} --fail-on any", 1, "2>/dev/full", "utf-8"),
        (f"{REPORT} --json", 0, "2>/dev/full", "ascii"),
        (f"{REPORT} --fail-on any", 1, "2>&- <&-", "ascii"),
        ("status --stor store", 2, "2>/dev/full", "utf-8"),
        ("status --store nowhere", 2, "2>&-", "utf-8"),
    ],
)
def test_lost_words_change_no_exit_code(folder, command, code, lost, encoding):
    assert sh(folder, f"overscan {command} {lost}", PYTHONIOENCODING=encoding)[0] == code


@pytest.mark.parametrize(
    ("command", "encoding"), [(REPORT, "utf-8"), ("status --store store --json", "ascii"), ("--version", "utf-8")]
)
def test_lost_data_is_the_machines_fault_and_said(folder, command, encoding):
    code, _, said = sh(folder, f"overscan {command} >/dev/full", PYTHONIOENCODING=encoding)
    assert code == 4
    assert "error: stdout cannot be written (No space left on device): the work is done and kept" in said
    assert "Traceback" not in said
    assert sh(folder, f"overscan {command} >/dev/full 2>/dev/full")[0] == 4
    if command == REPORT:
        assert pl.read_parquet(folder / "report/scores.parquet")["rank"].to_list() == [1, 2, 3]


def test_a_scan_whose_words_are_lost_is_committed(folder):
    code, out, _ = sh(folder, f"overscan scan captions.txt {MADE} --seeds 1 --workers 2 2>/dev/full")
    assert code == 0
    assert len(Ledger(folder / "store").read(out.strip())) == 3


def test_a_closed_stderr_never_gets_into_a_file_of_the_store(tmp_path):
    """Its number would be the next opened file's, to which a library's words would then go."""
    (tmp_path / "captions.txt").write_text("a red barn\n")
    assert sh(tmp_path, f"overscan scan captions.txt {MADE} 2>&- >&- <&-")[0] == 0
    code, _, said = sh(tmp_path, REPORT.replace("report", "overscan report", 1))
    assert code == 0, said


def test_a_closed_pipe_is_no_finding(folder):
    for command in (REPORT, "status --store store"):
        assert sh(folder, f"overscan {command} | true; exit ${{PIPESTATUS[0]}}")[0] in (0, 4)


LONG = "\n".join(f"a caption, {i}" for i in range(30_000))
COMMANDS = {
    "scan": f"overscan scan long.txt {MADE}",
    "workers": f"overscan scan long.txt {MADE} --seeds 1 --workers 2",
    "calibrate": f"overscan calibrate long.txt {MADE} --out calibration.parquet",
}


def started(folder, command):
    """A command that has begun to score."""
    (folder / "long.txt").write_text(LONG)
    script = f"exec {command.replace('overscan', OVERSCAN)}"
    process = subprocess.Popen(
        ["bash", "-c", script], cwd=folder, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env=os.environ | {"TMPDIR": str(folder)},
    )  # fmt: skip
    while not (folder / "store/runs/_delta_log/00000000000000000001.json").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    time.sleep(2)
    return process


@pytest.mark.parametrize("name", COMMANDS)
def test_a_hang_up_stops_as_ctrl_c_does(tmp_path, name):
    process = started(tmp_path, COMMANDS[name])
    process.send_signal(signal.SIGHUP)
    time.sleep(0.01)
    process.send_signal(signal.SIGHUP)  # shell and system both send one
    _, said = process.communicate(timeout=120)
    assert process.returncode == 3, said
    assert "interrupted: what was computed is committed (" in said
    if name != "workers":  # which take seconds to begin
        assert Ledger(tmp_path / "store").counts()["rows"].sum() > 0
    assert not list(tmp_path.glob("overscan-work-*"))


def test_a_hang_up_under_nohup_is_ignored(tmp_path):
    (tmp_path / "captions.txt").write_text("a red barn\n")
    code, out, said = sh(tmp_path, f"trap '' HUP; overscan scan captions.txt {MADE} & sleep 0.5; kill -HUP $!; wait $!")
    assert (code, len(out.strip())) == (0, 32), said


def test_a_closed_terminal_stops_a_scan_in_order(tmp_path):
    (tmp_path / "long.txt").write_text(LONG)
    child, terminal = pty.fork()
    if not child:
        os.chdir(tmp_path)
        os.environ["TMPDIR"] = str(tmp_path)
        os.execvp("bash", ["bash", "-c", f"{COMMANDS['scan'].replace('overscan', OVERSCAN)}; echo $? > code"])
    deadline = time.monotonic() + 120
    while not (tmp_path / "store/runs/_delta_log/00000000000000000001.json").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(2)
    os.close(terminal)
    os.waitpid(child, 0)
    while list(tmp_path.glob("overscan-work-*")):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert Ledger(tmp_path / "store").counts()["rows"].sum() > 0


@pytest.mark.parametrize("what", ["scan", "evaluate"])
def test_a_hang_up_while_preparing(tmp_path, what):
    """Before anything is scored: a reference of many captions is predicted first."""
    (tmp_path / "captions.txt").write_text("a red barn\n")
    (tmp_path / "reference.txt").write_text("\n".join(f"an ordinary caption {i}" for i in range(3000)))
    (tmp_path / "labels.csv").write_text("prompt,label\na,true\nb,false\n")
    made = f"--model {BUNDLE} --backend cpu --batch-size 4 --reference reference.txt"
    command = {
        "scan": f"scan captions.txt {made} --store store",
        "evaluate": f"evaluate labels.csv {made} --out out",
    }[what]
    process = subprocess.Popen(
        [sys.executable, "-c", "import scanner.cli; print('ready', flush=True); scanner.cli.main()", *command.split()],
        cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env=os.environ | {"XDG_CACHE_HOME": str(tmp_path / "cache")},
    )  # fmt: skip
    assert process.stdout.readline() == "ready\n"
    while not list((tmp_path / "cache").rglob("*prior*")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    process.send_signal(signal.SIGHUP)
    _, said = process.communicate(timeout=120)
    assert (process.returncode, "interrupted while preparing" in said) == (3, True), said
    assert not Path(tmp_path / "out").exists()
