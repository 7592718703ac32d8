"""Inputs, model, store and report on an object store: a local S3 server of moto."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import polars as pl
import pytest
from s3 import S3
from small import BUNDLE, first
from stores import by_id
from test_cli import run
from test_readers import write_tar

from scanner import ScanConfig, places, read_store, scan
from scanner.config import Screen
from scanner.copies import here
from scanner.dataset import captions, readers
from scanner.dataset.shards import Shard
from scanner.errors import PlaceError, RemoteError
from scanner.objects import Folder, opened
from scanner.scanning.execute import local

CAPTION = first(40)
ASKED = ("--model", BUNDLE, "--backend", "cpu", "--batch-size", 16)
STORE = "s3://bucket/a/store"


def test_what_lies_in_a_folder_of_an_object_store(s3, tmp_path):
    for folder in (Folder("s3://bucket/some/folder"), Folder(tmp_path / "some folder")):
        assert (folder.read("x"), folder.names()) == (None, [])
        assert [folder.create("d=1/x y", b"one"), folder.create("d=1/x y", b"two")] == [True, False]
        folder.write("z", b"\0" * 10)
        assert (folder.read("d=1/x y"), folder.names(), folder.names("d=1/")) == (b"one", ["d=1/x y", "z"], ["d=1/x y"])
        assert sorted(found["size"] for found in folder.listed()) == [3, 10]
        folder.remove("d=1/")
        assert folder.names() == ["z"]
        folder.remove()
        assert folder.names() == []
    assert list(tmp_path.iterdir()) == []


def test_an_object_is_read_as_a_file_is(s3):
    content = random.Random(0).randbytes(9_000_000)
    s3.put_object(Bucket="bucket", Key="d/x", Body=content)
    with opened("s3://bucket/d/x") as file:
        assert file.read(5) == content[:5]
        file.seek(-7, 2)
        assert (file.read(), file.read()) == (content[-7:], b"")
        file.seek(4_000_000)
        assert file.read(4_500_000) == content[4_000_000:8_500_000]


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "json", "json.gz", "arrow", "stream.arrow", "txt"])
def test_inputs_that_stream_from_an_object_store(s3, tmp_path, kind):
    frame, path = pl.DataFrame({"caption": CAPTION}), tmp_path / f"a.{kind}"
    if "tar" in kind:
        write_tar(path, [(f"{i:03}.txt", text.encode()) for i, text in enumerate(CAPTION)])
    elif kind == "json.gz":
        import gzip

        path.write_bytes(gzip.compress(json.dumps(frame.to_dicts()).encode()))
    elif kind == "json":
        path.write_text(json.dumps(frame.to_dicts(), indent=1))
    elif kind == "arrow":
        frame.write_ipc(path)
    elif kind == "txt":
        path.write_text("\n".join(CAPTION))
    else:
        frame.write_ipc_stream(path)
    s3.upload_file(str(path), "bucket", f"d/{path.name}")
    there = captions.read([f"s3://bucket/d/{path.name}"]).collect(engine="streaming")
    assert there.drop("file").equals(captions.read([path]).collect(engine="streaming").drop("file"))
    assert there["text"].to_list() == CAPTION


def test_tars_that_are_damaged_on_an_object_store(s3, tmp_path):
    write_tar(tmp_path / "a.tar", [(f"{i}.txt", b"text " * 300) for i in range(10)])
    s3.put_object(Bucket="bucket", Key="d/a.tar", Body=(tmp_path / "a.tar").read_bytes()[:15_000])
    s3.put_object(Bucket="bucket", Key="d/b.json", Body=b'[{"caption": "one"}, {"capt')
    for name, said in (("a.tar", "a truncated tar, its end is missing"), ("b.json", "broken or truncated JSON")):
        with pytest.raises(readers.InputError, match=said):
            captions.read([f"s3://bucket/d/{name}"]).collect(engine="streaming")


def upload(s3, folder, prefix):
    for file in Path(folder).iterdir():
        s3.upload_file(str(file), "bucket", f"{prefix}/{file.name}")


def test_a_night_whose_all_is_on_an_object_store(s3, listed, tmp_path):
    upload(s3, BUNDLE, "models/demo")
    s3.upload_file(str(listed), "bucket", "data/captions.txt")
    (tmp_path / "reference.txt").write_text("\n".join(f"an ordinary caption {i}" for i in range(6)))
    s3.upload_file(str(tmp_path / "reference.txt"), "bucket", "data/reference.txt")
    urls = ("--model", "s3://bucket/models/demo", "--reference", "s3://bucket/data/reference.txt", "--backend", "cpu",
            "--base-model", "s3://bucket/models/demo")  # fmt: skip
    scanned = run("scan", "s3://bucket/data/captions.txt", *urls, "--store", STORE, "--batch-size", 16)
    assert scanned[2] == 0, scanned[1]
    here_ = run("scan", listed, "--model", BUNDLE, "--reference", tmp_path / "reference.txt", "--backend", "cpu",
                "--base-model", BUNDLE, "--store", tmp_path / "store", "--batch-size", 16)  # fmt: skip
    assert here_[0] == scanned[0]  # the scan_id
    assert by_id(STORE).equals(by_id(tmp_path / "store"))
    record = read_store(STORE).record
    assert (record.model, record.inputs) == ("s3://bucket/models/demo", ("s3://bucket/data/captions.txt",))
    assert record.reference.path == "s3://bucket/data/reference.txt"
    assert record.base.path == "s3://bucket/models/demo"

    (tmp_path / "benign.txt").write_text("\n".join(f"a benign caption {i}" for i in range(30)))
    calibrated = run("calibrate", tmp_path / "benign.txt", *urls, "--store", STORE, "--batch-size", 16,
                     "--out", tmp_path / "calibration.parquet")  # fmt: skip
    assert calibrated[2] == 0, calibrated[1]
    s3.upload_file(str(tmp_path / "calibration.parquet"), "bucket", "kept/calibration.parquet")
    report = ("report", "--store", STORE, "--calibration", "s3://bucket/kept/calibration.parquet", "--fpr", 0.1)
    first = run(
        *report, "--out", "s3://bucket/reports/monday", "--write-baseline", tmp_path / "baseline.json", "--json"
    )
    assert first[2] == 0, first[1]
    assert "s3://bucket/reports/monday/report.html" in first[1]
    s3.upload_file(str(tmp_path / "baseline.json"), "bucket", "kept/baseline.json")
    s3.put_object(Bucket="bucket", Key="reports/monday/notes.txt", Body=b"mine")
    again = run(
        *report, "--out", "s3://bucket/reports/monday", "--baseline", "s3://bucket/kept/baseline.json", "--json"
    )
    assert again[2] == 0, again[1]
    assert json.loads(again[0])["findings"]["new"] == 0 < json.loads(first[0])["flagged"]
    held = Folder("s3://bucket/reports/monday")
    assert {"report.html", "scores.parquet", "flagged.csv", "summary.json", "notes.txt"} <= set(held.names())
    assert json.loads(held.read("summary.json")) == json.loads(again[0])

    out, err, code = run("status", "--store", STORE, "--calibration", "s3://bucket/kept/calibration.parquet", "--json")
    assert code == 0, err
    found = json.loads(out)
    assert (found["store"], found["scans"][0]["rows"]) == (STORE, {"scored": 70})
    assert found["tables"]["scores"]["bytes"] > 10_000
    out, err, code = run("compact", "--store", STORE)
    assert (code, out.startswith("scores: ")) == (0, True), err
    assert by_id(STORE).equals(by_id(tmp_path / "store"))


def test_two_shards_at_once_with_a_screen_in_one_bucket(s3, listed):
    asked = {"model": BUNDLE, "backend": "cpu", "config": ScanConfig(seeds=(0, 1, 2)), "screen": Screen(0.2)}
    with ThreadPoolExecutor(2) as threads:
        done = list(threads.map(lambda i: scan(listed, store=STORE, shard=Shard(i, 2), **asked), (1, 2)))
    assert len({part.scan_id for part in done}) == len({part.screening.threshold for part in done}) == 1
    assert len({part.batch_size for part in done}) == 1
    assert by_id(STORE)["status"].null_count() == 0
    assert all(name.endswith(".done") for name in Folder(f"{STORE}.split").names())


def test_killed_on_the_way_nothing_is_lost_and_nothing_doubled(s3, tmp_path):
    texts = [f"caption number {i}" for i in range(400)]
    (tmp_path / "captions.txt").write_text("\n".join(texts))
    command = [sys.executable, "-m", "scanner", "scan", tmp_path / "captions.txt", *ASKED, "--store", STORE]
    program = f"import sys; from scanner.scanning import passes; passes.COMMIT_SECONDS = 0; sys.argv = {[*map(str, command[2:])]!r}; from scanner.cli import main; main()"  # noqa: E501
    for commits in (3, 6):
        scanner = subprocess.Popen(
            [sys.executable, "-c", program], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )
        log = Folder(f"{STORE}/scores/_delta_log")
        while len([name for name in log.names() if name.endswith(".json")]) < commits:
            time.sleep(0.05)
            assert scanner.poll() is None
        os.kill(scanner.pid, signal.SIGKILL)
        assert scanner.wait() == -signal.SIGKILL
    rest = scan(tmp_path / "captions.txt", model=BUNDLE, store=STORE, backend="cpu", batch_size=16)
    assert 0 < rest.scored < 400
    assert rest.scored + rest.already_scored == 400
    rows = pl.scan_delta(f"{STORE}/scores").select("prompt_id").collect()
    assert len(rows) == rows.n_unique() == 400


def test_a_bucket_that_is_not_there_is_exit_2(s3, listed):
    _, err, code = run("scan", listed, *ASKED, "--store", "s3://nobucket/store")
    assert (code, err.startswith("error: s3://nobucket/store: no such bucket or container (")) == (2, True), err
    _, err, code = run("report", "--store", "s3://bucket/none", "--out", "s3://bucket/report")
    assert (code, "error: s3://bucket/none: no store there: " in err) == (2, True), err
    _, err, code = run("scan", listed, "--model", "s3://bucket/no/model", "--store", STORE)
    assert (code, err) == (2, "error: s3://bucket/no/model: nothing is there: name another place\n")
    _, err, code = run("report", "--store", STORE, "--out", "x", "--calibration", "s3://bucket/no.parquet")
    assert (code, err) == (2, "error: s3://bucket/no.parquet: nothing is there: name another place\n")
    s3.put_object(Bucket="bucket", Key="other/scores/x.parquet", Body=b"")
    _, err, code = run("scan", listed, *ASKED, "--store", "s3://bucket/other")
    assert (code, "s3://bucket/other/scores: holds files that are no Delta table: name another --store" in err) == (
        2,
        True,
    )


def test_refused_keys_are_exit_4(listed, monkeypatch):
    server = S3(INITIAL_NO_AUTH_ACTION_COUNT="0")
    try:
        for name, value in server.settings.items():
            monkeypatch.setenv(name, value)
        for command in (
            ("scan", listed, *ASKED, "--store", STORE), ("report", "--store", STORE, "--out", "s3://bucket/report"),
            ("scan", listed, "--model", "s3://bucket/model", "--store", STORE),
        ):  # fmt: skip
            _, err, code = run(*command)
            assert code == 4, err
            assert "the object store refuses these credentials, or there are none (" in err
            assert "\x1b" not in err
    finally:
        server.stop()


def test_a_network_that_vanishes_is_exit_4_and_what_is_committed_stays(listed, tmp_path, monkeypatch):
    import boto3

    server = S3()
    monkeypatch.setattr(places, "RETRIES", 1)
    for name, value in server.settings.items():
        monkeypatch.setenv(name, value)
    boto3.client("s3", region_name="us-east-1").create_bucket(Bucket="bucket")

    def vanishing(model, chunks, stop):
        for i, frame in enumerate(local(model, chunks, stop)):
            if i == 1:
                server.stop()
            yield frame

    try:
        with pytest.raises(RemoteError, match=f"{STORE}: the object store cannot be reached .*what is committed stays"):
            scan(listed, model=BUNDLE, store=STORE, backend="cpu", batch_size=8, executor=vanishing)
    finally:
        server.stop()
    _, err, code = run("status", "--store", STORE)
    assert (code, f"error: {STORE}: the object store cannot be reached (" in err) == (4, True), err


def test_a_bundle_is_fetched_once_and_again_when_it_changes(s3):
    upload(s3, BUNDLE, "m/demo")
    first = here("s3://bucket/m/demo")
    assert {path.name for path in first.iterdir()} == {path.name for path in BUNDLE.iterdir()}
    assert here("s3://bucket/m/demo/") == first
    assert here("s3://bucket/m/demo/engine.json").read_bytes() == (BUNDLE / "engine.json").read_bytes()
    s3.put_object(Bucket="bucket", Key="m/demo/engine.json", Body=b"{}")
    assert here("s3://bucket/m/demo") != first
    for wrong in ("https://host/x", "hf://a/b", Path("s3:/bucket/x")):
        with pytest.raises(
            PlaceError, match="needed a local path or a URL that begins with one of s3://, gs://, az://"
        ):
            here(wrong)
