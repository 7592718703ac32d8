"""What grows with a dataset and with a fleet, and how: CPU seconds and peak memory by rows, commits and workers.

    python tools/bench_fleet.py BUNDLE [--rows 300000 1000000] [--commits 1000] [--prompts 2000] [--json FILE]

Growth: for each number of ROWS, all of them scored but for 10,000, a night without its engine, a report and the split
that shards share, each in a process of its own, with exponents: 1 is proportional, 0 constant. Commits: an append to a
store of COMMITS commits, ten seconds apart by their files' clock, against one to a fresh store, and what each commit of
others adds to the next of one's own. Executors: throughput against one process, and what a chunk costs beyond its
scores. A part is left out with `--rows 0`, `--commits 0`, `--prompts 0`; `--parts` names those of growth.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import bench_commits
import bench_executors
import bench_nights
import numpy as np
import polars as pl

from scanner.cli import cli
from scanner.config import ScanConfig
from scanner.dataset import captions
from scanner.dataset.shards import Shard
from scanner.demo import CAPTIONS
from scanner.diffusion.scores import SCORES
from scanner.diffusion.start import unwatched
from scanner.model import Model
from scanner.scanning.execute import Executor, local, processes
from scanner.scanning.on_ray import on_ray
from scanner.scanning.request import Request, dataset
from scanner.scanning.shared import Shared
from scanner.store.ledger import Ledger
from scanner.store.record import RunRecord

SEEDS, NEW = 2, 10_000
CONFIG = ScanConfig(seeds=tuple(range(SEEDS)))
APART = 10.0  # seconds between a scan's commits
MEANS = 20  # commits, of which the mean is taken
ROUNDS = 5  # of commits after others'
BATCH = 16  # small, so that there are many chunks
Row = dict[str, float | str]


def night(folder: Path, bundle: Path) -> None:
    """All of a scan but for the engine and its commits: reads the captions and finds the NEW ones."""
    request, ledger = Request(folder / "captions.parquet", bundle, folder / "store"), Ledger(folder / "store")
    with dataset(request, request.rows, lambda: False) as data:
        pending = data.pending(ledger, ledger.last_run()[0])
    assert (pending.unique, pending.left) == (pending.already_scored + NEW, NEW)


def report(folder: Path, bundle: Path) -> None:
    """A report over all of them."""
    cli.main(["report", "--store", str(folder / "store"), "--out", str(folder / "report")], standalone_mode=False)


def split(folder: Path, bundle: Path) -> None:
    """What one shard of 64 does for all: reads, hashes and splits the captions."""
    request = Request(folder / "captions.parquet", bundle, folder / "store", shard=Shard(1, 64))
    Shared.of(request, request.rows, lambda: False, unwatched).split()


PARTS: dict[str, Callable[[Path, Path], None]] = {"night": night, "report": report, "split": split}


def growth(rows: Sequence[int], parts: Sequence[str], bundle: Path) -> list[Row]:
    """A row for each part and number of rows."""
    scan_id = Model(bundle, "cpu", config=CONFIG).scan_id
    found: list[Row] = []
    for n in rows:
        with tempfile.TemporaryDirectory(prefix="overscan-bench-") as name:
            path, store = Path(name) / "captions.parquet", Path(name) / "store"
            bench_nights.write_captions(path, n)
            bench_nights.write_scores(path, store, n - NEW, scan_id, SEEDS)
            Ledger(store).begin(scan_id, record(path, bundle))
            for part in parts:
                command = [sys.executable, *sys.argv, "--measure", part, "--folder", name]
                done = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout.splitlines()[-1]
                found.append({"what": part, "rows": n, **json.loads(done)})
                say(found[-1])
    return found


def measured(part: str, folder: Path, bundle: Path) -> Row:
    """A part, run in this process."""
    started, cpu = time.perf_counter(), time.process_time()
    PARTS[part](folder, bundle)
    return {
        "CPU seconds": time.process_time() - cpu,
        "seconds": time.perf_counter() - started,
        "peak memory, MB": bench_nights.peak_memory(),
    }


def record(path: Path, bundle: Path) -> RunRecord:
    """Of the run that made the scores up."""
    return RunRecord(
        purpose="scan", inputs=(str(path),), column=None, limit=None, left_out=(), model=str(bundle), backend="cpu",
        precision="float32", passed_over=(), provider="made up", batch_size=16, config=CONFIG, reference=None,
        host=None, versions={},
    )  # fmt: skip


def exponents(found: Sequence[Row]) -> list[Row]:
    """Of CPU time and of memory in the number of rows, for each part."""
    fitted: list[Row] = []
    for part in dict.fromkeys(str(row["what"]) for row in found):
        rows = [row for row in found if row["what"] == part]
        x = np.log([float(row["rows"]) for row in rows])
        if len(rows) > 1:
            by = {
                name: float(np.polyfit(x, np.log([float(row[name]) for row in rows]), 1)[0])
                for name in ("CPU seconds", "peak memory, MB")
            }
            fitted.append({"exponents of": part, **by})
            say(fitted[-1])
    return fitted


def commits(count: int) -> list[Row]:
    """An append at the beginning and after so many commits, without and with merging, and after those of others."""
    frame = bench_commits.made_up(1000, np.random.default_rng(0)).with_columns(scan_id=pl.lit("made-up"))
    found: list[Row] = []

    def cost(ledger: Ledger) -> tuple[float, float]:
        cpu, wall = time.process_time(), time.perf_counter()
        ledger._scores.append(lambda _: (frame, None))  # without merging
        return 1000 * (time.process_time() - cpu), 1000 * (time.perf_counter() - wall)

    def told(what: str, costs: Sequence[tuple[float, float]]) -> float:
        cpu, wall = (float(value) for value in np.mean(costs, 0))
        found.append({"append": what, "CPU ms": cpu, "ms": wall})
        say(found[-1])
        return cpu

    with tempfile.TemporaryDirectory(prefix="overscan-bench-") as name:
        store = Path(name) / "store"
        ledger = Ledger(store, tuple(SCORES))
        fresh = told("to a fresh store", [cost(ledger) for _ in range(MEANS)])
        cpu, wall = time.process_time(), time.perf_counter()
        for i in range(count):
            ledger.append("made-up", frame)
            if i % bench_commits.FRAMES == 0:
                age(store, APART)
        spent = time.process_time() - cpu, time.perf_counter() - wall
        told("mean of all, with merging", [(1000 * spent[0] / count, 1000 * spent[1] / count)])
        later = told(f"after {count:,} commits", [cost(ledger) for _ in range(MEANS)])
        found.append({"append": "after them, times a fresh one", "CPU ms": later / fresh})
        say(found[-1])
        other = Ledger(store, tuple(SCORES))
        cost(other)
        for others in (0, 10, 100):
            costs = []
            for _ in range(1 if others == 100 else ROUNDS):
                for _ in range(others):
                    cost(ledger)
                costs.append(cost(other))
            told(f"after {others} of others", costs)
    return found


def age(store: Path, apart: float) -> None:
    """As if the commits of a log had been made so many seconds apart, the newest now."""
    now = time.time()
    for back, file in enumerate(sorted((store / "scores/_delta_log").glob("*.json"), reverse=True)):
        for entry in (file, file.with_name(f"{file.stem}.checkpoint.parquet")):
            if entry.exists():
                os.utime(entry, (now, now - apart * back))


def executors(bundle: Path, n: int, ray: bool) -> list[Row]:
    """One and two workers of each kind on the same captions, between two runs of this process alone.

    `chunk costs, ms`: what a chunk took beyond what it took here, with one worker. Rates begin with the first chunk.
    """
    prompts = captions.unique_prompts(captions.read([CAPTIONS])).filter(status="to_score").head(n)
    model = Model(bundle, "cpu", config=CONFIG, batch_size=BATCH).prepare()
    assert model.prepared is not None
    chunks = -(-len(prompts) // model.prepared.chunk)
    ways: list[tuple[str, Executor]] = [("local", local), *((f"{k} processes", processes(k)) for k in (1, 2))]
    ways += [(f"{k} Ray actors", on_ray(k)) for k in (1, 2)] if ray else []
    ran = [(label, *bench_executors.run(run, model, prompts)) for label, run in [*ways, ("local, again", local)]]
    steady = {label: (seconds - first) / (chunks - 1) for label, _, seconds, first in ran}
    here = (steady["local"] + steady["local, again"]) / 2
    found: list[Row] = []
    for label, scores, _, first in ran:
        found.append(
            {
                "executor": label,
                "prompts/s": model.prepared.chunk / steady[label],
                "ratio to local": here / steady[label],
                "chunk costs, ms": 1000 * (steady[label] - here) if label.startswith("1 ") else float("nan"),
                "first chunk after, s": first,
                "largest difference": difference(scores, ran[0][1]),
            }
        )
        say(found[-1])
    return found


def difference(scores: pl.DataFrame, other: pl.DataFrame) -> float:
    """The largest of any score."""
    return float(
        np.nanmax([np.abs((scores[name] - other[name]).to_numpy()).max() for name in SCORES if scores[name].count()])
    )


def say(row: Row) -> None:
    """A line of a table."""
    told = (
        f"{name} {value:,.3g}"
        if isinstance(value, float)
        else f"{name} {value:,}"
        if isinstance(value, int)
        else f"{value}"
        for name, value in row.items()
    )
    print("  ".join(told), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--rows", type=int, nargs="*", default=[100_000, 300_000, 1_000_000])
    parser.add_argument("--parts", nargs="*", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--commits", type=int, default=1000)
    parser.add_argument("--prompts", type=int, default=2000)
    parser.add_argument("--ray", action="store_true", help="Ray's actors too")
    parser.add_argument("--json", type=Path, help="also write the figures there")
    parser.add_argument("--measure", choices=list(PARTS), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)  # that the parent process filled
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measured(arguments.measure, arguments.folder, arguments.bundle)))
        return
    found: dict[str, list[Row]] = {"growth": [], "commits": [], "executors": []}
    if any(arguments.rows):
        found["growth"] = growth(arguments.rows, arguments.parts, arguments.bundle)
        found["exponents"] = exponents(found["growth"])
    if arguments.commits:
        found["commits"] = commits(arguments.commits)
    if arguments.prompts:
        found["executors"] = executors(arguments.bundle, arguments.prompts, arguments.ray)
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
