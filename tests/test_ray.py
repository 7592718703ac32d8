"""The executor of a Ray cluster: equality with one process, also when actors, nodes or the driver are killed."""

import os
import signal
import subprocess
import sys
import time

import polars as pl
import pytest
from small import BUNDLE
from test_execute import CAPTIONS, chunks, never, table

from engines import EngineError
from scanner import ScanConfig, ScannerError, read_store, scan
from scanner.cli.options import executor
from scanner.model import Model
from scanner.scanning.execute import local
from scanner.scanning.on_ray import on_ray

ray = pytest.importorskip("ray")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::FutureWarning")]
MEMORY = 80 << 20  # bytes of a node's object store: the smallest that Ray takes


@pytest.fixture(scope="module")
def model():
    return Model(BUNDLE, "cpu", config=ScanConfig(seeds=(0,)), batch_size=8).prepare()


@pytest.fixture(scope="module")
def expected(model):
    return table(local(model, chunks(), never))


@pytest.fixture
def cluster():
    """A head without room for workers, and two nodes with room for one each."""
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": MEMORY})
    made.nodes = [made.add_node(num_cpus=1, object_store_memory=MEMORY) for _ in range(2)]
    yield made
    ray.shutdown()
    made.shutdown()


def actors():
    """Process ids of this machine's actors."""
    found = subprocess.run(["pgrep", "-f", "ray::_Actor"], capture_output=True, text=True, check=False)
    return [int(pid) for pid in found.stdout.split()]


def test_a_cluster_of_several_nodes_gives_what_this_process_gives_whatever_is_killed(model, expected, cluster):
    frames, killed = [], []
    for frame in on_ray(2, cluster.address)(model, chunks(), never):
        frames.append(frame)
        if len(frames) == 3:
            os.kill(actors()[0], signal.SIGKILL)
            killed.append("an actor")
        if len(frames) == 7:
            cluster.remove_node(cluster.nodes[0], allow_graceful=False)
            cluster.add_node(num_cpus=1, object_store_memory=MEMORY)
            killed.append("a node")
    assert killed == ["an actor", "a node"]
    assert table(frames).equals(expected)


def test_a_killed_driver_loses_nothing(tmp_path):
    (tmp_path / "captions.txt").write_text("\n".join(CAPTIONS))
    asked = ["scan", str(tmp_path / "captions.txt"), "--model", str(BUNDLE), "--store", str(tmp_path / "store"),
             "--backend", "cpu", "--batch-size", "8", "--executor", "ray", "--workers", "2"]  # fmt: skip
    program = f"import sys; from scanner.scanning import passes; passes.COMMIT_SECONDS = 0; sys.argv[1:] = {asked!r}; from scanner.cli import main; main()"  # noqa: E501
    driver = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    log = tmp_path / "store/scores/_delta_log"
    while not (log.exists() and len(list(log.glob("*.json"))) >= 4):
        time.sleep(0.05)
        assert driver.poll() is None
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    rest = scan(tmp_path / "captions.txt", model=BUNDLE, store=tmp_path / "store", backend="cpu", batch_size=8)
    assert 0 < rest.scored < len(CAPTIONS)
    assert rest.scored + rest.already_scored == len(CAPTIONS)
    whole = scan(tmp_path / "captions.txt", model=BUNDLE, store=tmp_path / "whole", backend="cpu", batch_size=8)
    assert read_store(tmp_path / "store").scores.sort("prompt_id").equals(whole.scores.sort("prompt_id"))
    rows = pl.scan_delta(str(tmp_path / "store/scores")).select("prompt_id").collect()
    assert len(rows) == rows.n_unique()


def test_actors_that_would_compute_other_scores_or_die_are_refused(model):
    wrong = model.prepared.canaries.with_columns(pl.col("low_noise_norm_v1") * 1.001)
    other = model.adapted(prepared=type(model.prepared)(**vars(model.prepared) | {"canaries": wrong}))
    with pytest.raises(EngineError, match=r"a worker computes other canaries \(low_noise_norm_v1\)"):
        list(on_ray(1)(other, chunks(), never))
    with pytest.raises(ScannerError, match="devices with the executor ray"):
        executor(2, "0,1", "ray")
