"""Every way to spread a scan, with kill -9 on the way, beside one process on the same captions: equal bit for bit?

    python tools/equality.py BUNDLE CAPTIONS [--prompts 3000] [--backend cpu] [--batch-size 32] [--ways shard ray ...]

Each way fills a store of its own, in processes that have a core each, as the one process has: so threads and batch size
are the same, and rounding with them. What a model is prepared with is computed by the one process and found in the
cache by the others. Prints JSON; exit code 1 where a row differs, is missing or is there twice.

`devices` on a backend of the CPU: the devices are names that nobody reads, and the worker of each is what is tried.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import polars as pl
from deltalake import DeltaTable

from scanner.dataset import captions
from scanner.scanning.execute import DEVICES

PROGRAM = """
from scanner.cli import main
from scanner.scanning import execute, passes
passes.COMMIT_SECONDS = 0  # many commits, so that a kill hits the middle
execute.DEVICES = {devices!r}
main()
"""
NODE = {"object_store_memory": 80 << 20}  # bytes: the smallest that Ray takes
PATIENCE = 600.0  # seconds for anything


@dataclass(frozen=True)
class Scan:
    """One way's scan: its store, and what all ways ask."""

    store: Path
    asked: tuple[str, ...]
    backend: str
    prompts: int

    def start(self, *how: str, cores: int = 1, first: int = 0) -> subprocess.Popen[bytes]:
        """`overscan scan`, told how, on so many of this process's cores from the `first` on."""
        program = PROGRAM.format(devices=(*DEVICES, self.backend))
        command = [sys.executable, "-c", program, "scan", *self.asked, "--store", str(self.store), *how]
        with on_cores(cores, first):
            return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=(self.store.parent / "said").open("ab"))

    def rows(self) -> pl.DataFrame:
        """All rows that are committed, in order of their ids; a row that is stored twice is here twice."""
        return pl.read_delta(str(self.store / "scores")).sort("prompt_id")

    def said(self) -> str:
        """What its processes wrote to stderr."""
        return (self.store.parent / "said").read_text(encoding="utf-8")

    def committed(self) -> int:
        """How many rows that is."""
        table = str(self.store / "scores")
        return pl.scan_delta(table).select(pl.len()).collect().item() if DeltaTable.is_deltatable(table) else 0

    def until(self, share: float, *alive: subprocess.Popen[bytes]) -> None:
        """Wait until this share of the prompts is committed. Raises SystemExit where a process has ended before."""
        end = time.monotonic() + PATIENCE
        while self.committed() < share * self.prompts:
            if time.monotonic() > end or any(process.poll() is not None for process in alive):
                raise SystemExit(
                    f"{self.store}: a process ended early: {(self.store.parent / 'said').read_text(encoding='utf-8')}"
                )
            time.sleep(0.1)

    def finish(self, *processes: subprocess.Popen[bytes]) -> None:
        """Wait for them. Raises SystemExit where one fails."""
        for process in processes:
            if code := process.wait(PATIENCE):
                raise SystemExit(
                    f"{self.store}: exit code {code}: {(self.store.parent / 'said').read_text(encoding='utf-8')}"
                )


@dataclass(frozen=True)
class Found:
    """What a way left: what was killed, rows, different prompts among them, and whether all is as of one process."""

    way: str
    killed: list[str]
    seconds: float
    rows: int
    prompts: int
    scan_ids: int
    equal: bool


@contextmanager
def on_cores(count: int, first: int) -> Iterator[None]:
    """What is started inside has so many of this process's cores; they are taken in turn."""
    if not hasattr(os, "sched_setaffinity"):
        raise SystemExit("this system does not give cores to processes: run it on Linux")
    mine = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {mine[(first + i) % len(mine)] for i in range(count)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, mine)


def kill(pid: int) -> None:
    """With SIGKILL, which nothing can hear."""
    os.kill(pid, signal.SIGKILL)


def end(process: subprocess.Popen[bytes]) -> None:
    """Kill a scan. Raises SystemExit where it had come to its own end."""
    kill(process.pid)
    if process.wait() != -signal.SIGKILL:
        raise SystemExit("a scan was done before it was killed: ask for more --prompts")


def children(pid: int, of: str) -> list[int]:
    """Process ids of a process's children whose command holds a word."""
    found = subprocess.run(["pgrep", "-P", str(pid), "-f", of], capture_output=True, text=True, check=False)
    return [int(line) for line in found.stdout.split()]


def by_shards(scan: Scan) -> list[str]:
    """Two at once; one is killed and started again."""
    first, second = (scan.start("--shard", f"{i}/2", first=i) for i in (1, 2))
    scan.until(1 / 4, first, second)
    end(first)
    scan.finish(second, scan.start("--shard", "1/2"))
    return ["shard 1/2"]


def by_workers(scan: Scan, *how: str) -> list[str]:
    """Two workers; one is killed, then the driver, and the scan started again."""
    driver = scan.start("--workers", "2", *how, cores=2)
    scan.until(1 / 4, driver)
    kill(children(driver.pid, "spawn_main")[0])
    scan.until(1 / 2, driver)
    end(driver)
    scan.finish(scan.start("--workers", "2", *how, cores=2))
    return ["a worker", "the driver"]


def by_devices(scan: Scan) -> list[str]:
    """A worker for each of two devices; killed as workers are."""
    return by_workers(scan, "--devices", "0,1")


def by_ray(scan: Scan) -> list[str]:
    """Two nodes of a core each, and a head; an actor is killed, a node, and then the driver."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **NODE})
    try:
        nodes = [_node(cluster, i) for i in range(2)]
        how = ("--executor", "ray", "--ray-address", cluster.address, "--workers", "2")
        driver = scan.start(*how)
        scan.until(1 / 5, driver)
        kill(next(pid for node in nodes for pid in children(_raylet(node), "ray::_Actor")))
        scan.until(2 / 5, driver)
        cluster.remove_node(nodes[0], allow_graceful=False)
        _node(cluster, 0)
        scan.until(3 / 5, driver)
        end(driver)
        scan.finish(scan.start(*how))
    finally:
        cluster.shutdown()
    return ["an actor", "a node", "the driver"]


def _node(cluster: object, first: int) -> object:
    with on_cores(1, first):
        return cluster.add_node(num_cpus=1, **NODE)  # type: ignore[attr-defined]


def _raylet(node: object) -> int:
    return int(node.all_processes["raylet"][0].process.pid)  # type: ignore[attr-defined]


WAYS: dict[str, Callable[[Scan], list[str]]] = {
    "shard": by_shards,
    "workers": by_workers,
    "devices": by_devices,
    "ray": by_ray,
}


def bits(rows: pl.DataFrame) -> pl.DataFrame:
    """The same rows with every float as its bits: -0.0 is not 0.0, and null is null."""
    return rows.with_columns(
        pl.col(pl.Float32).reinterpret(dtype=pl.UInt32), pl.col(pl.Float64).reinterpret(dtype=pl.UInt64)
    )


def measured(way: str, scan: Scan, expected: pl.DataFrame) -> Found:
    """Fill a store in one way and compare it."""
    started = time.monotonic()
    killed = WAYS[way](scan)
    seconds, rows = round(time.monotonic() - started, 1), scan.rows()
    distinct = {name: rows[name].n_unique() for name in ("prompt_id", "scan_id")}
    equal = bits(rows).equals(bits(expected))
    return Found(way, killed, seconds, len(rows), distinct["prompt_id"], distinct["scan_id"], equal)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("bundle", "input"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--prompts", type=int, default=3000)
    parser.add_argument("--backend", default="cpu")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="overscan-equality-") as made:
        folder = Path(made)
        os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
        found = captions.unique_prompts(captions.read([arguments.input])).filter(status="to_score")
        prompts = found.head(arguments.prompts)["text"].to_list()
        pl.DataFrame({"caption": prompts}).write_parquet(folder / "captions.parquet")
        asked = (str(folder / "captions.parquet"), "--model", str(arguments.bundle), "--backend", arguments.backend)
        asked = (*asked, "--batch-size", str(arguments.batch_size))

        def scan(way: str) -> Scan:
            (folder / way).mkdir()
            return Scan(folder / way / "store", asked, arguments.backend, len(prompts))

        here, started = scan("local"), time.monotonic()
        here.finish(here.start())
        seconds, expected = round(time.monotonic() - started, 1), here.rows()
        ways = [measured(way, scan(way), expected) for way in arguments.ways]
    facts = {"backend": arguments.backend, "batch_size": arguments.batch_size, "cores": len(os.sched_getaffinity(0))}
    one = {"rows": len(expected), "prompts": expected["prompt_id"].n_unique(), "seconds": seconds}
    print(json.dumps(facts | {"one process": one, "ways": [asdict(way) for way in ways]}, indent=1))
    whole = one["rows"] == one["prompts"] == len(prompts)
    sys.exit(0 if whole and all(way.equal for way in ways) else 1)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        main()
