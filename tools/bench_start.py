"""What a scan takes before it scores: editions of Overscan beside each other, with an empty cache and with a warm one.

    python tools/bench_start.py CAPTIONS EDITION BUNDLE [EDITION BUNDLE ...] [--backend openvino] [--rounds 1]
        [--json FILE]

EDITION: a checkout, whose code runs by this Python; BUNDLE: what that edition's own `overscan export` made. A round
gives each edition, in the other order than the last, an empty cache folder of Overscan's (not of the system's) and has
it scan one caption by two seeds in a process of its own, and then once more, into another store: nearly all that
either takes is the start.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import polars as pl
from bench import texts_of

SEEDS = 2


def seconds(checkout: Path, bundle: Path, captions: Path, cache: Path, store: Path, backend: str) -> float:
    """What one `overscan scan` took, process and all. Raises CalledProcessError where it fails."""
    command = [
        sys.executable, "-c", "from scanner.cli import main; main()", "scan", str(captions), "--model", str(bundle),
        "--store", str(store), "--backend", backend, "--seeds", str(SEEDS),
    ]  # fmt: skip
    paths = {"PYTHONPATH": str(checkout), "XDG_CACHE_HOME": str(cache)}
    began = time.perf_counter()
    subprocess.run(command, cwd=checkout, env=os.environ | paths, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def start(checkout: Path, bundle: Path, text: str, backend: str) -> dict[str, float]:
    """Seconds of a scan of one caption with nothing in the cache, and after it."""
    with tempfile.TemporaryDirectory(prefix="overscan-start-") as name:
        folder = Path(name)
        pl.DataFrame({"caption": [text]}).write_parquet(folder / "one.parquet")
        return {
            kind: seconds(checkout, bundle, folder / "one.parquet", folder / "cache", folder / kind, backend)
            for kind in ("cold", "warm")
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("input", type=Path)
    parser.add_argument("editions", type=Path, nargs="+", metavar="EDITION BUNDLE")
    parser.add_argument("--backend", default="openvino")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    paths = [path.absolute() for path in asked.editions]
    if len(paths) % 2:
        parser.error("an EDITION and a BUNDLE each")
    text = texts_of(asked.input, 1)[0]
    rows = []
    for taken in range(asked.rounds):
        editions = list(zip(paths[::2], paths[1::2], strict=True))
        for checkout, bundle in reversed(editions) if taken % 2 else editions:
            row = {"round": taken, "edition": str(checkout)} | start(checkout, bundle, text, asked.backend)
            rows.append(row)
            print(f"{row['edition']}: cold {row['cold']:.1f} s, warm {row['warm']:.1f} s", flush=True)
    if asked.json:
        asked.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
