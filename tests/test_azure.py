"""A store and all around it on Azure's blobs, as a local Azurite serves them."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import polars as pl
import pytest
from azure import COMMAND, Azure
from small import BUNDLE
from stores import by_id
from test_cli import run

from scanner import ScanConfig, scan
from scanner.config import Screen
from scanner.copies import change
from scanner.dataset.shards import Shard
from scanner.objects import Folder

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which(COMMAND) is None, reason=f"needs {COMMAND}: npm install -g azurite"),
]
ASKED = ("--backend", "cpu", "--batch-size", 16)


@pytest.fixture(autouse=True)
def azure(monkeypatch):
    """An empty container, `bucket`, and the environment that leads everybody there."""
    server = Azure()
    for name, value in server.settings.items():
        monkeypatch.setenv(name, value)
    yield server
    server.stop()


def test_a_night_whose_all_is_on_azure(listed, tmp_path):
    for file in BUNDLE.iterdir():
        Folder("az://bucket/model").put(file.name, file)
    Folder("az://bucket/data").put("captions.txt", listed)
    model, store = ("--model", "az://bucket/model", *ASKED), ("--store", "az://bucket/store")
    for command in (
        ("scan", "az://bucket/data/captions.txt", *model, *store),
        ("report", *store, "--out", "az://bucket/report", "--write-baseline", "az://bucket/baseline.json"),
        ("compact", *store),
        ("status", *store),
        ("doctor", *store, "--model", "az://bucket/model", "--backend", "cpu"),
    ):
        _, err, code = run(*command)
        assert code == 0, (command, err)
    assert run("scan", listed, "--model", BUNDLE, *ASKED, "--store", tmp_path / "store")[2] == 0
    assert by_id("az://bucket/store").equals(by_id(tmp_path / "store"))
    out, err, code = run("report", *store, "--out", "az://bucket/report", "--baseline", "az://bucket/baseline.json",
                         "--json")  # fmt: skip
    assert (code, json.loads(out)["findings"]["new"], json.loads(out)["prompts"]) == (0, 0, 40), err


def test_two_shards_at_once_with_a_screen_in_one_container(listed):
    asked = {"model": BUNDLE, "backend": "cpu", "config": ScanConfig(seeds=(0, 1, 2)), "screen": Screen(0.2)}
    with ThreadPoolExecutor(2) as threads:
        done = list(threads.map(lambda i: scan(listed, store="az://bucket/s", shard=Shard(i, 2), **asked), (1, 2)))
    assert len({part.scan_id for part in done}) == len({part.screening.threshold for part in done}) == 1
    assert by_id("az://bucket/s")["status"].null_count() == 0


def test_killed_on_the_way_nothing_is_lost_and_nothing_doubled(tmp_path):
    (tmp_path / "captions.txt").write_text("\n".join(f"caption number {i}" for i in range(400)))
    asked = [
        "scan",
        str(tmp_path / "captions.txt"),
        "--model",
        str(BUNDLE),
        *map(str, ASKED),
        "--store",
        "az://bucket/k",
    ]
    program = "from scanner.scanning import passes; passes.COMMIT_SECONDS = 0; from scanner.cli import main; main()"
    scanner = subprocess.Popen([sys.executable, "-c", program, *asked], stderr=subprocess.DEVNULL)
    log = Folder("az://bucket/k/scores/_delta_log")
    while len([name for name in log.names() if name.endswith(".json")]) < 4:
        time.sleep(0.1)
        assert scanner.poll() is None
    os.kill(scanner.pid, signal.SIGKILL)
    assert scanner.wait() == -signal.SIGKILL
    rest = scan(tmp_path / "captions.txt", model=BUNDLE, store="az://bucket/k", backend="cpu", batch_size=16)
    assert 0 < rest.scored < 400
    assert rest.scored + rest.already_scored == 400
    rows = pl.scan_delta("az://bucket/k/scores").select("prompt_id").collect()
    assert len(rows) == rows.n_unique() == 400


def test_places_that_are_not_there_or_refuse(listed, monkeypatch):
    place, texts = "az://bucket/changed", iter(("mine", "mine again"))

    def write(path):
        text = next(texts)
        if text == "mine":
            Folder("az://bucket").write("changed", b"theirs")
        path.write_text(text + (path.read_text() if path.exists() else ""))

    change(place, write)
    assert Folder("az://bucket").read("changed") == b"mine againtheirs"
    scanned = ("scan", listed, "--model", BUNDLE, *ASKED, "--store")
    _, err, code = run(*scanned, "az://nobucket/store")
    assert (code, "az://nobucket/store: no such bucket or container (" in err) == (2, True), err
    _, err, code = run("scan", listed, "--model", "az://bucket/none", "--store", "az://bucket/store")
    assert (code, err) == (2, "error: az://bucket/none: nothing is there: name another place\n")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "bm90IHRoZSBrZXk=")
    _, err, code = run(*scanned, "az://bucket/store")
    assert (code, "the object store refuses these credentials" in err) == (4, True), err
