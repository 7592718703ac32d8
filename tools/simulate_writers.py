"""Many writers of one store for a day, simulated: how long commits take, and from how many writers the log is full.

    python tools/simulate_writers.py [--writers 1 8 64 100 300] [--hours 24] [--alone 26] [--other 4] [--claim 6]
                                     [--listed 0.01] [--json FILE]

A writer commits once its interval has passed since its last commit. A commit takes ALONE milliseconds, OTHER more for
each commit of others since its own last one, which it reads, and LISTED for each entry of the log, which holds an hour.
At its end it claims the next number of the log; who finds that taken reads what came and claims again, CLAIM
milliseconds later. Each number of writers is simulated with the interval of one (`fixed`) and with that
of so many shards (`growing`, `scanner.scanning.passes.commit_seconds`). A writer that begins is late by up to LATE
seconds, as chunks do not end together. Nothing is measured here: costs are those of `tools/bench_fleet.py`, or assumed.
"""

import argparse
import heapq
import json
import random
from collections import deque
from dataclasses import dataclass
from pathlib import Path

from scanner.dataset.shards import Shard
from scanner.scanning.passes import COMMIT_SECONDS, commit_seconds

LATE = 2.0  # seconds: about a chunk
KEPT = 3600.0  # seconds of commits in the log
EVENTS = 3_000_000  # after which a simulation ends: nearly all claims fail
Row = dict[str, float | int | str]


@dataclass(frozen=True)
class Costs:
    """Seconds, as of the module."""

    alone: float
    other: float
    claim: float
    listed: float


def simulate(writers: int, interval: float, hours: float, costs: Costs, seed: int = 0) -> Row:
    """What commits cost when so many writers commit every `interval` seconds."""
    chance, end = random.Random(seed), 3600 * hours
    log: deque[float] = deque()  # when each commit of the last hour was made
    version, now, claims, events, busy, longest, done = 0, 0.0, 0, 0, 0.0, 0.0, 0
    seen = [0] * writers  # the version that each has read
    began = [interval * (i + 1) / writers + chance.uniform(0, LATE) for i in range(writers)]  # its commit in hand
    heap = [(at, i, False) for i, at in enumerate(began)]
    heapq.heapify(heap)
    while heap and events < EVENTS:
        now, i, claiming = heapq.heappop(heap)
        if now > end:
            break
        events += 1
        while log and log[0] < now - KEPT:
            log.popleft()
        if claiming and seen[i] == version:
            version, seen[i], claims, done = version + 1, version + 1, claims + 1, done + 1
            log.append(now)
            busy, longest = busy + now - began[i], max(longest, now - began[i])
            began[i] = now + interval + chance.uniform(0, LATE)
            heapq.heappush(heap, (began[i], i, False))
            continue
        claims += claiming
        read = costs.other * (version - seen[i])
        seen[i] = version
        before = 0.0 if claiming else costs.alone - costs.claim + costs.listed * len(log)
        heapq.heappush(heap, (now + before + read + costs.claim, i, True))
    took = min(now, end)
    return {
        "writers": writers,
        "interval, s": interval,
        "simulated, h": took / 3600,
        "commits a day": round(86_400 * done / took),
        "claims per commit": claims / max(1, done),
        "mean commit, s": busy / max(1, done),
        "longest, s": longest,
        "time in commits, %": 100 * busy / took / writers,
        "log full, %": 100 * costs.claim * done / took,
        "state": "saturated" if events >= EVENTS or busy > took * writers / 2 else "",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--writers", type=int, nargs="+", default=[1, 8, 64, 100, 300])
    parser.add_argument("--hours", type=float, default=24.0)
    for name, default in (("alone", 26.0), ("other", 4.0), ("claim", 6.0), ("listed", 0.01)):
        parser.add_argument(f"--{name}", type=float, default=default, help="milliseconds")
    parser.add_argument("--json", type=Path, help="also write the figures there")
    arguments = parser.parse_args()
    costs = Costs(*(getattr(arguments, name) / 1000 for name in ("alone", "other", "claim", "listed")))
    found: list[Row] = []
    for writers in arguments.writers:
        for how, interval in (("fixed", COMMIT_SECONDS), ("growing", commit_seconds(Shard(1, writers)))):
            found.append({"how": how} | simulate(writers, interval, arguments.hours, costs))
            if len(found) == 1:
                print("  ".join(found[0]))
            print("  ".join(cell(value, len(name)) for name, value in found[-1].items()), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps({"costs": vars(costs), "found": found}, indent=1) + "\n")


def cell(value: float | int | str, width: int) -> str:
    """A value under its heading."""
    return f"{value:{width}.2f}" if isinstance(value, float) else f"{value:>{width}}"


if __name__ == "__main__":
    main()
