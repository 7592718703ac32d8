"""What a commit costs as a store grows: milliseconds of an append and of the merging of files, and files left.

    python tools/bench_commits.py [--commits 900] [--rows 1000] [--every 100] [--json FILE]

Appends made-up scores to a new store, ROWS at a time, as a scan does every ten seconds, and prints means over every
EVERY commits. At the end the exponent of an append's cost in the number of commits: 0 is constant, 1 is proportional.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl

from scanner.diffusion.scores import SCORES
from scanner.store.ledger import Ledger
from scanner.store.tables import Table

SEEDS, FRAMES = 2, 20


def made_up(rows: int, random: np.random.Generator) -> pl.DataFrame:
    """Rows that look scored."""
    ids = pl.Series([random.bytes(16).hex() for _ in range(rows)])
    frame = pl.DataFrame({"prompt_id": ids, "status": "scored", "truncated": False})
    numbers = {name: pl.Series(random.random(rows, np.float32)) for name in SCORES}
    raw = {q: pl.Series(random.random((rows, SEEDS), np.float32)).arr.to_list() for q in ("q1", "q2", "q3")}
    return frame.with_columns(**numbers, **raw)


def measure(store: Path, commits: int, rows: int, every: int) -> list[dict[str, float]]:
    """A row for each `every` commits."""
    merging = [0.0, 0.0]  # CPU and wall seconds
    merge = Table.merge

    def timed(table: Table, smallest: float | None = None) -> int:
        cpu, wall = time.process_time(), time.perf_counter()
        merged = merge(table, smallest)
        merging[0] += time.process_time() - cpu
        merging[1] += time.perf_counter() - wall
        return merged

    Table.merge = timed  # type: ignore[method-assign]
    random = np.random.default_rng(0)
    frames = [made_up(rows, random) for _ in range(FRAMES)]
    ledger, found = Ledger(store, tuple(SCORES)), []
    for first in range(0, commits, every):
        merging[:] = [0.0, 0.0]
        cpu, wall = time.process_time(), time.perf_counter()
        for i in range(first, first + every):
            ledger.append("made up", frames[i % FRAMES])
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        found.append(
            {
                "commits": first + every,
                "append, CPU ms": 1000 * (cpu - merging[0]) / every,
                "append, ms": 1000 * (wall - merging[1]) / every,
                "merging, CPU ms": 1000 * merging[0] / every,
                "merging, ms": 1000 * merging[1] / every,
                "files": len(ledger.table("scores").file_uris()),
            }
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--commits", type=int, default=900)
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--every", type=int, default=100)
    parser.add_argument("--json", type=Path, help="also write the figures there")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="overscan-bench-") as folder:
        found = measure(Path(folder) / "store", arguments.commits, arguments.rows, arguments.every)
    print("  ".join(found[0]))
    for row in found:
        print(
            "  ".join(f"{value:{len(name)}.{0 if name in ('commits', 'files') else 1}f}" for name, value in row.items())
        )
    x, y = (np.log([row[name] for row in found]) for name in ("commits", "append, CPU ms"))
    print(f"exponent of an append's CPU time in commits: {np.polyfit(x, y, 1)[0]:.2f}")
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
