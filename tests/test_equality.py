"""Every way to spread a scan, killed on the way, equals one process; and the tool that shows it sees a difference."""

import json
import os
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from small import BUNDLE

from tools import equality
from tools.equality import Scan, bits, measured, on_cores

ROOT = Path(__file__).parent.parent
MANY = 2_000
ROWS = pl.DataFrame(
    {"prompt_id": ["a", "b", "c"], "scan_id": ["s"] * 3, "score": pl.Series([0.0, 1.5, None], dtype=pl.Float32)}
)


def changed(score):
    return ROWS.with_columns(score=pl.Series(score, dtype=pl.Float32))


@pytest.mark.parametrize(
    ("stored", "rows", "prompts", "equal"),
    [
        (ROWS[::-1], 3, 3, True),
        (changed([-0.0, 1.5, None]), 3, 3, False),
        (changed([0.0, 1.5000001, None]), 3, 3, False),
        (changed([0.0, 1.5, float("nan")]), 3, 3, False),
        (ROWS[:2], 2, 2, False),
        (pl.concat([ROWS, ROWS[:1]]), 4, 3, False),
    ],
)
def test_a_row_that_differs_is_missing_or_is_there_twice_is_seen(tmp_path, monkeypatch, stored, rows, prompts, equal):
    def way(scan):
        stored.write_delta(str(scan.store / "scores"))
        return ["nobody"]

    (tmp_path / "store").mkdir()
    monkeypatch.setitem(equality.WAYS, "shard", way)
    found = measured("shard", Scan(tmp_path / "store", (), "cpu", 3), ROWS)
    assert (found.killed, found.rows, found.prompts, found.scan_ids) == (["nobody"], rows, prompts, 1)
    assert found.equal is equal
    assert bits(ROWS)["score"].to_list() == [0, 0x3FC00000, None]


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs a system that gives cores to processes")
def test_a_core_for_each():
    mine = os.sched_getaffinity(0)
    for first in range(3):
        with on_cores(1, first):
            assert os.sched_getaffinity(0) == {sorted(mine)[first % len(mine)]}
        assert os.sched_getaffinity(0) == mine


@pytest.mark.slow
def test_every_way_equals_one_process_whatever_is_killed(tmp_path):
    """So many captions that no scan is done before it is killed."""
    pytest.importorskip("ray")
    (tmp_path / "captions.txt").write_text("\n".join(f"a drawing of {i} foxes" for i in range(MANY)))
    command = [sys.executable, "tools/equality.py", BUNDLE, tmp_path / "captions.txt", "--batch-size", "16"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(list(map(str, command)), cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["one process"]["rows"], found["one process"]["prompts"]) == (MANY, MANY)
    killed = {way["way"]: way["killed"] for way in found["ways"]}
    workers = ["a worker", "the driver"]
    assert killed == {
        "shard": ["shard 1/2"], "workers": workers, "devices": workers, "ray": ["an actor", "a node", "the driver"],
    }  # fmt: skip
    for way in found["ways"]:
        assert (way["rows"], way["prompts"], way["scan_ids"], way["equal"]) == (MANY, MANY, 1, True), way
