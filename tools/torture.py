"""Kill scans and compactions at random moments; check after each that nothing committed is lost and nothing doubled.

    python tools/torture.py BUNDLE [--kill 20] [--term 10] [--prompts 4000] [--seed 0]

Each round starts one action (a scan, two scans at once, compactions, a scan beside compactions, a calibration by other
captions, one beside a scan) on one store, sends SIGKILL or SIGTERM to all its processes at a random moment and reads
the store and the calibration. At the end an undisturbed scan and calibration finish the work, and every score is
compared with those of a store that nobody disturbed. Exit code 1 if anything is wrong.
"""

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import numpy as np
import polars as pl

from scanner import ScannerError
from scanner.audit.calibrate import read
from scanner.diffusion.scores import ABSOLUTE, DEFAULT_SCORE, RELATIVE, SCORES
from scanner.store.ledger import Ledger

PROGRAM = """
import sys, scanner
from scanner.cli import main
sys.modules["scanner.scanning.passes"].COMMIT_SECONDS = 0.1  # many commits, so that signals hit them
for _ in range({times}):
    try:
        main()
    except SystemExit as end:
        if end.code:
            raise
"""
CALIBRATION = "calibration.parquet"  # beside the store
Command = list[str]
ACTIONS: dict[str, tuple[str, ...]] = {
    "scan": ("scan",),
    "two scans": ("scan", "scan"),
    "compact": ("compact",),
    "scan and compact": ("scan", "compact"),
    "calibrate": ("calibrate",),
    "scan and calibrate": ("scan", "calibrate"),
}


@dataclass(frozen=True)
class Round:
    """What one round did and what was found after it."""

    action: str
    signal: str
    after_s: float
    exit_codes: str
    committed_before: int
    committed_after: int
    lost: int
    doubled: int
    stored_twice: int
    readable: bool

    @property
    def fine(self) -> bool:
        """Whether nothing went wrong; a row stored twice is read once and no harm."""
        return self.readable and not self.lost and not self.doubled


def program(times: int, *arguments: str | Path) -> Command:
    """The command line, run again and again in one process until it fails."""
    return [sys.executable, "-c", PROGRAM.format(times=times), *map(str, arguments)]


def committed(store: Path) -> pl.DataFrame:
    """[prompt_id, scores...] of the newest scan, as every reader of the store sees them."""
    ledger = Ledger(store)
    return ledger.read(ledger.last_run()[0]).select("prompt_id", *SCORES).sort("prompt_id")


def whole(calibration: Path) -> bool:
    """Whether the calibration is not there yet, or can be read."""
    return not calibration.exists() or len(read(calibration, DEFAULT_SCORE).null) > 0


def disturb(action: str, number: signal.Signals, seconds: float, commands: Mapping[str, Command], store: Path) -> Round:
    """One round."""
    before = committed(store)
    processes = [
        subprocess.Popen(commands[name], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for name in ACTIONS[action]
    ]
    time.sleep(seconds)
    for process in processes:
        process.send_signal(number)
    codes = ", ".join(str(process.wait(timeout=120)) for process in processes)
    try:
        after, raw = committed(store), pl.read_delta(str(store / "scores"))
        readable = whole(store.with_name(CALIBRATION))
    except ScannerError as error:
        print(error, file=sys.stderr)
        after, raw, readable = before.clear(), before.clear(), False
    lost = len(before.join(after, on="prompt_id", how="anti"))
    doubled = len(after) - after["prompt_id"].n_unique()
    twice = len(raw) - raw["prompt_id"].n_unique()
    return Round(action, number.name, seconds, codes, len(before), len(after), lost, doubled, twice, readable)


def same(found: pl.DataFrame, expected: pl.DataFrame) -> bool:
    """Whether two stores hold one scan's prompts and scores, to float32 rounding (see tests/test_end_to_end.py)."""
    if found["prompt_id"].to_list() != expected["prompt_id"].to_list():
        return False
    return all(
        np.allclose(found[name], expected[name], rtol=RELATIVE, atol=ABSOLUTE, equal_nan=True) for name in SCORES
    )


def torture(folder: Path, bundle: Path, kills: int, terms: int, prompts: int, seed: int) -> tuple[list[Round], bool]:
    """All rounds, and whether the finished store equals an undisturbed one."""
    moments = random.Random(seed)
    store, calibration = folder / "store", folder / CALIBRATION
    captions, benign = folder / "captions.txt", folder / "benign.txt"
    captions.write_text("\n".join(f"a drawing of animal number {i}" for i in range(prompts)))
    benign.write_text("\n".join(f"a plain sentence number {i}" for i in range(prompts)))
    options = ("--model", bundle, "--backend", "cpu", "--batch-size", "8", "--store")  # float32, as `same` takes it
    scan = program(1, "scan", captions, *options, store)
    commands = {
        "scan": scan,
        "compact": program(1000, "compact", "--store", store),
        "calibrate": program(1, "calibrate", benign, *options, store, "--out", calibration),
    }
    subprocess.run([*scan, "--limit", "50"], check=True, capture_output=True)
    signals = [signal.SIGKILL] * kills + [signal.SIGTERM] * terms
    moments.shuffle(signals)
    rounds = []
    for i, number in enumerate(signals):
        action = list(ACTIONS)[i % len(ACTIONS)]
        rounds.append(disturb(action, number, moments.uniform(0.5, 5.0), commands, store))
        print(table(rounds[-1:], header=i == 0), flush=True)
    for name in ("scan", "calibrate"):
        subprocess.run(commands[name], check=True, capture_output=True)
        subprocess.run([*commands[name], "--store", str(folder / "undisturbed")], check=True, capture_output=True)
    return rounds, same(committed(store), committed(folder / "undisturbed"))


def table(rounds: list[Round], header: bool) -> str:
    """Rounds as lines of a Markdown table."""
    names = [item.name.replace("_", " ") for item in fields(Round)]
    lines = [f"| {' | '.join(names)} |", f"|{'---|' * len(names)}"] if header else []
    for item in rounds:
        cells = [f"{value:.1f}" if isinstance(value, float) else str(value) for value in astuple(item)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--kill", type=int, default=20)
    parser.add_argument("--term", type=int, default=10)
    parser.add_argument("--prompts", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="overscan-torture-") as folder:
        rounds, equal = torture(
            Path(folder), arguments.bundle, arguments.kill, arguments.term, arguments.prompts, arguments.seed
        )
    fine = sum(item.fine for item in rounds)
    print(f"\n{fine} of {len(rounds)} rounds without loss; finished store equal to an undisturbed one: {equal}")
    sys.exit(0 if equal and fine == len(rounds) else 1)


if __name__ == "__main__":
    main()
