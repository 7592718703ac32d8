"""What a night costs on a dataset that is mostly scored already: seconds outside the engine, memory, disk.

    python tools/bench_nights.py BUNDLE --scored 1000000 --new 10000 [--seeds 2] [--json FILE]

Writes N made-up captions to a parquet file and made-up scores of the first of them into a store, under the scan_id that
the scan will have; then runs the scan in a process of its own and prints a table.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path

import numpy as np
import polars as pl

from scanner import ScanConfig
from scanner.dataset import captions
from scanner.diffusion.scores import SCORES
from scanner.model import Model, Scorer
from scanner.scanning.run import scan
from scanner.store.ledger import Ledger

COMMIT = 100_000  # rows of one made-up commit


def write_captions(path: Path, n: int) -> None:
    """Captions of about seventy bytes, all different, a few of them not ASCII, in random order of nothing."""
    i = pl.int_range(n, eager=True)
    place = pl.Series(["the old harbour", "a café à Paris", "a narrow street", "北京"])
    places = place.gather(i % len(place))
    frame = pl.DataFrame({"i": i, "place": places}).lazy()
    text = pl.format(
        "a photograph of item {} in front of {}, in soft evening light, {}", "i", "place", pl.col("i") * 7919
    )
    frame.select(caption=text).sink_parquet(path)


def write_scores(path: Path, store: Path, scored: int, scan_id: str, seeds: int) -> None:
    """Rows that look scored, for the first captions of the file."""
    ledger = Ledger(store, tuple(SCORES))
    random = np.random.default_rng(0)
    read = captions.read([path]).head(scored).select("text")
    for batch in read.collect_batches(chunk_size=COMMIT, maintain_order=True):
        ids = captions.prompt_ids(batch["text"])
        rows = pl.DataFrame({"prompt_id": ids, "status": "scored", "truncated": False})
        numbers = {name: pl.Series(random.random(len(rows), np.float32)) for name in SCORES}
        raw = {q: pl.Series(random.random((len(rows), seeds), np.float32)).arr.to_list() for q in ("q1", "q2", "q3")}
        ledger.append(scan_id, rows.with_columns(**numbers, **raw))


def measure(path: Path, bundle: Path, store: Path, seeds: int) -> dict[str, float]:
    """Run the scan here: what it did, and where its time went."""
    spent = {"engine": 0.0, "engine CPU": 0.0, "find": 0.0, "find CPU": 0.0}

    def timed(owner: object, method: str, name: str) -> None:
        original = getattr(owner, method)

        def wrapper(*args: object, **kwargs: object) -> object:
            started, cpu = time.perf_counter(), time.process_time()
            try:
                return original(*args, **kwargs)
            finally:
                spent[name] += time.perf_counter() - started
                spent[f"{name} CPU"] += time.process_time() - cpu

        setattr(owner, method, wrapper)

    timed(Scorer, "__call__", "engine")
    timed(Model, "prepare", "engine")
    timed(import_module("scanner.scanning.request"), "split_captions", "find")
    timed(import_module("scanner.scanning.request"), "compare", "find")
    cpu = time.process_time()
    result = scan(path, model=bundle, store=store, config=ScanConfig(seeds=tuple(range(seeds))))
    cpu = time.process_time() - cpu
    return {
        "rows": result.rows,
        "already scored": result.already_scored,
        "scored now": result.scored,
        "seconds in all": result.seconds,
        "seconds in the engine": spent["engine"],
        "seconds outside the engine": result.seconds - spent["engine"],
        "of them finding what is pending": spent["find"],
        "CPU seconds outside the engine": cpu - spent["engine CPU"],
        "peak memory, MB": peak_memory(),
    }


def peak_memory() -> float:
    """Megabytes of this program at the most; what `getrusage` tells begins with those of who started it."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--scored", type=int, default=1_000_000)
    parser.add_argument("--new", type=int, default=10_000)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--json", type=Path, help="also write the figures there")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)  # the folder that the parent process filled
    arguments = parser.parse_args()
    if arguments.measure:
        folder = arguments.measure
        figures = measure(folder / "captions.parquet", arguments.bundle, folder / "store", arguments.seeds)
        print(json.dumps(figures))
        return
    with tempfile.TemporaryDirectory(prefix="overscan-bench-") as name:
        path, store = Path(name) / "captions.parquet", Path(name) / "store"
        scan_id = Model(arguments.bundle, config=ScanConfig(seeds=tuple(range(arguments.seeds)))).scan_id
        write_captions(path, arguments.scored + arguments.new)
        write_scores(path, store, arguments.scored, scan_id, arguments.seeds)
        command = [sys.executable, *sys.argv, "--measure", name]
        figures = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
        figures["store on disk, MB"] = sum(f.stat().st_size for f in store.rglob("*") if f.is_file()) / 1e6
    for label, value in figures.items():
        print(f"{label:32} {value:14,.1f}" if isinstance(value, float) else f"{label:32} {value:14,}")
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
