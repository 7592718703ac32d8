"""Every option that takes a place, with URLs of a local S3 server: what comes of it is what comes of paths."""

import json
import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from s3 import S3
from small import BUNDLE, first
from test_cli import run
from test_readers import write_tar

from scanner import places, scan
from scanner.audit import calibrate
from scanner.audit.baseline import Accepted, accept, read_baseline
from scanner.copies import change, check, here, is_file, written
from scanner.dataset import readers
from scanner.errors import PlaceError, RemoteError, ScannerError
from scanner.objects import Folder

CAPTION = first(40)
MADE = ("--backend", "cpu", "--batch-size", 16)
WHEN = re.compile(r"\d{4}-\d\d-\d\d(T[\d:.]+(Z|\+00:00)?)?|(?<=_timestamp_seconds )[\d.e+]+")
NULL = [f"a benign caption {i}" for i in range(30)]


def put(base, name, text):
    """A text at a name below a folder or a URL."""
    Folder(base).write(name, text.encode())


@pytest.fixture
def inputs(tmp_path):
    """Captions with an image each, on this disk."""
    image = pytest.importorskip("PIL.Image")
    draw = np.random.default_rng(0)
    paths = [str(tmp_path / f"{i}.png") for i in range(len(CAPTION))]
    for path in paths:
        image.fromarray(draw.integers(0, 256, (32, 32, 3), np.uint8)).save(path)
    pl.DataFrame({"caption": CAPTION, "image": paths}).write_parquet(tmp_path / "captions.parquet")
    (tmp_path / "null.txt").write_text("\n".join(NULL))
    return tmp_path


def nights(base, inputs):
    """Two nights and all that follows them, at a place: what each command says on stdout, in order."""
    for file in BUNDLE.iterdir():
        Folder(f"{base}/model").put(file.name, file)
    put(base, "reference.txt", "\n".join(f"an ordinary caption {i}" for i in range(6)))
    model = ("--model", f"{base}/model", "--reference", f"{base}/reference.txt", *MADE)
    store = ("--store", f"{base}/store")
    kept = {name: f"{base}/kept/{name}" for name in ("calibration.parquet", "threshold.json", "baseline.json")}
    calibration, threshold, baseline = kept.values()
    monday, tuesday = (f"{base}/reports/{day}" for day in ("monday", "tuesday"))
    said = {}

    def do(name, *command, code=0):
        out, err, found = run(*command)
        assert found == code, err
        said[name] = WHEN.sub("WHEN", out.replace(str(base), "BASE"))

    do("scan", "scan", inputs / "captions.parquet", *model, *store)
    do("calibrate", "calibrate", inputs / "null.txt", *model, *store, "--out", calibration)
    do("calibrate again", "calibrate", inputs / "null.txt", *model, *store, "--out", calibration)
    do("threshold", "threshold", *store, "--calibration", calibration, "--fpr", 0.1, "--out", threshold, "--json")
    first = [("--" + name, f"{base}/handed/{name}") for name in ("metrics", "junit", "sarif")]
    do("monday", "report", *store, "--calibration", calibration, "--fpr", 0.1, "--out", monday,
       "--write-baseline", baseline, *(word for pair in first for word in pair))  # fmt: skip
    flagged = json.loads(Folder(monday).read("summary.json"))["flagged"]
    ids = read_baseline(here(baseline)).prompt_ids
    assert len(ids) == flagged > 1
    put(base, "kept/allow.csv", f"prompt_id,reason,expires\n{ids[0]},ours,2999-01-01\n")
    do("tuesday", "report", *store, "--threshold", threshold, "--out", tuesday, "--baseline", baseline,
       "--allow", f"{base}/kept/allow.csv", "--nights", f"{base}/reports", "--fail-on", "new", "--json")  # fmt: skip
    do("accept", "accept", "--report", tuesday, "--baseline", baseline, "--reason", "seen", "--json")
    do("diff", "diff", "--from", monday, "--to", tuesday)
    do("evidence", "evidence", tuesday, *store, "--out", f"{base}/evidence.json")
    do("check", "evidence", tuesday, "--check", f"{base}/evidence.json")
    do("explain", "explain", "--report", tuesday, *model, "--top", 1, "--out", f"{base}/edits.jsonl", "--json")
    do("images", "images", *store, *model[:2], *MADE, "--images", "image", "--top", 5, "--out", f"{base}/images")
    do("verify", "verify", "--report", tuesday, *model[:2], *MADE, "--top", 1, "--seeds", 2, "--out",
       f"{base}/verified", "--num-inference-steps", 3, "--image", inputs / "0.png", "--prompt", CAPTION[0])  # fmt: skip
    do("recheck", "recheck", "--report", monday, *model[:2], *store, "--out", f"{base}/again", "--baseline", baseline)
    do("gate", "gate", *model, "--threshold", threshold, CAPTION[0], "another caption")
    named = ("--calibration", calibration, "--threshold", threshold, "--baseline", f"{base}/kept/none.json")
    out, err, code = run("status", *store, *named, "--json")
    assert code == 0, err
    said["files"] = json.loads(out.replace(str(base), "BASE"))["files"]
    out, err, code = run("doctor", "--model", f"{base}/model", *store, "--backend", "cpu", "--json")
    assert code == 0, err
    found = {item["name"]: item for item in json.loads(out.replace(str(base), "BASE"))["findings"]}
    said["doctor"] = found["model"], found["a scan"], re.sub(r"[\d.]+ MB", "", found["store"]["found"])
    do("compact", "compact", *store)
    return said


def test_two_nights_and_all_that_follows_them_are_those_of_a_disk(s3, inputs, tmp_path):
    there, on_disk = nights("s3://bucket/all", inputs), nights(tmp_path / "all", inputs)
    assert list(there) == list(on_disk)
    for command, said in on_disk.items():
        assert there[command] == said, command
    assert there["files"][2] == {
        "what": "baseline", "file": "BASE/kept/none.json", "of": None, "holds": False, "remedy": "not there",
    }  # fmt: skip
    assert [file["holds"] for file in there["files"]] == [True, True, False]
    held = Folder("s3://bucket/all")
    mine = {str(path.relative_to(tmp_path / "all")) for path in (tmp_path / "all").rglob("*") if path.is_file()}
    parts = re.compile(r"(store|store\.split)/.*")
    assert {name for name in held.names() if not parts.match(name)} == {name for name in mine if not parts.match(name)}
    nulls = [calibrate.read(here(f"{base}/kept/calibration.parquet"), "low_noise_norm_v1")
             for base in ("s3://bucket/all", tmp_path / "all")]  # fmt: skip
    np.testing.assert_array_equal(*(null.null for null in nulls))
    assert nulls[0].scan_id == nulls[1].scan_id
    here_all = tmp_path / "all"
    for name in ("handed/junit", "handed/metrics", "handed/sarif", "edits.jsonl", "kept/threshold.json"):
        both = {base: Folder(base).read(name).decode().replace(str(base), "BASE") for base in (held.place, here_all)}
        assert len({WHEN.sub("WHEN", text) for text in both.values()}) == 1, name
        assert both[here_all]
    for name in ("images/images.parquet", "verified/verify.parquet", "again/scores.parquet"):
        assert pl.read_parquet(held.read(name)).equals(pl.read_parquet(tmp_path / "all" / name)), name
    stated = json.loads(held.read("evidence.json"))["predicate"]["model"]
    assert [file["name"] for file in stated["files"]] == ["s3://bucket/all/model/engine.json"]
    assert stated["name"] == "model"


def test_evidence_of_a_model_that_changed_on_an_object_store(s3, inputs):
    base = "s3://bucket/e"
    for file in BUNDLE.iterdir():
        Folder(f"{base}/model").put(file.name, file)
    store = ("--store", f"{base}/store")
    for command in (
        ("scan", inputs / "captions.parquet", "--model", f"{base}/model", *store, *MADE),
        ("report", *store, "--out", f"{base}/report"),
        ("evidence", f"{base}/report", *store, "--out", f"{base}/evidence.json"),
    ):
        assert run(*command)[2] == 0
    checked = ("evidence", f"{base}/report", "--check", f"{base}/evidence.json")
    assert run(*checked)[2] == 0
    Folder(f"{base}/model").write("engine.json", b"{}")
    _, err, code = run(*checked)
    assert (code, f"model file {base}/model/engine.json: another content" in err) == (2, True), err
    Folder(f"{base}/model").delete("engine.json")
    _, err, code = run(*checked)
    assert (code, f"model file {base}/model/engine.json: {base}/model/engine.json: nothing is there" in err) == (
        2,
        True,
    )


def test_files_that_are_gone_from_a_folder_are_gone_from_its_place(s3, tmp_path):
    for out in ("s3://bucket/out", tmp_path / "out"):
        for name in ("a", "b", "deep/c"):
            Folder(out).write(name, name.encode())
        with written(out) as folder:
            assert (folder / "deep/c").read_bytes() == b"deep/c"
            (folder / "a").unlink()
            (folder / "d").write_bytes(b"d")
        assert Folder(out).names() == ["b", "d", "deep/c"]
        with pytest.raises(ScannerError, match=f"^{out}/x: no$"), written(out) as folder:  # noqa: PT012
            (folder / "b").write_bytes(b"other")
            raise ScannerError(f"{folder}/x: no")
        assert Folder("s3://bucket/out").read("b") == b"b"


def entry(reason):
    return Accepted("2026-01-01", "s" * 32, "text_noise_norm_v1", reason)


def test_two_who_accept_at_once_lose_nothing_of_each_other(s3):
    first, second = "0" * 32, "1" * 32
    place, asked = "s3://bucket/kept/baseline.json", []

    def mine(path):
        asked.append(path.exists())
        if len(asked) == 1:  # somebody is faster
            change(place, lambda other: accept(other, [second], entry("theirs")))
        return accept(path, [first], entry("mine"))

    grown, added = change(place, mine)
    assert asked == [False, True]
    assert (grown.prompt_ids, added) == ((first, second), 1)
    found = read_baseline(here(place))
    assert [found.entry(i).reason for i in (first, second)] == ["mine", "theirs"]


def test_another_file_in_the_place_stays(s3, inputs):
    s3.put_object(Bucket="bucket", Key="mine.parquet", Body=b"mine")
    _, err, code = run("calibrate", inputs / "null.txt", "--model", BUNDLE, *MADE, "--store", inputs / "store",
                       "--out", "s3://bucket/mine.parquet")  # fmt: skip
    said = "error: s3://bucket/mine.parquet: another file is there, and no calibration: move it away"
    assert (code, said in err, (inputs / "store").exists()) == (2, True, False), err
    with pytest.raises(ScannerError, match=r"^s3://bucket/mine\.parquet: not a baseline"):
        check("s3://bucket/mine.parquet", read_baseline)
    check("s3://bucket/none.json", read_baseline)
    assert not is_file("s3://bucket/mine")
    with pytest.raises(PlaceError, match=r"^s3://none: no such bucket or container"):
        is_file("s3://none/x")
    assert s3.get_object(Bucket="bucket", Key="mine.parquet")["Body"].read() == b"mine"


def commands(url, inputs):
    """Each command with a place at that URL where it writes or reads first."""
    report = inputs / "report"
    scanned = ("--model", BUNDLE, *MADE, "--store", inputs / "store")
    return [
        ("scan", inputs / "null.txt", "--model", BUNDLE, *MADE, "--store", url),
        ("scan", inputs / "null.txt", *scanned, "--reference", f"{url}/reference.txt"),
        ("calibrate", inputs / "null.txt", *scanned, "--out", f"{url}/calibration.parquet"),
        ("threshold", "--store", inputs / "store", "--out", f"{url}/threshold.json"),
        ("report", "--store", inputs / "store", "--out", url),
        ("report", "--store", inputs / "store", "--out", report, "--write-baseline", f"{url}/baseline.json"),
        ("report", "--store", inputs / "store", "--out", report, "--metrics", f"{url}/metrics"),
        ("accept", "--report", report, "--baseline", f"{url}/baseline.json"),
        ("accept", "--report", url, "--baseline", inputs / "baseline.json"),
        ("diff", "--from", report, "--to", url),
        ("evidence", report, "--store", inputs / "store", "--out", f"{url}/evidence.json"),
        ("status", "--store", url),
        ("status", "--store", inputs / "store", "--calibration", f"{url}/calibration.parquet"),
        ("compact", "--store", url),
        ("gate", "--model", url, "--threshold", 1, "--score", "text_noise_norm_v1", "a"),
        ("explain", "--model", BUNDLE, *MADE, "--prompt", "a b", "--out", f"{url}/edits.jsonl"),
        ("images", "--store", inputs / "store", "--model", BUNDLE, *MADE, "--images", "image", "--out", url),
        ("verify", "--model", BUNDLE, *MADE, "--prompt", "a", "--seeds", 2, "--num-inference-steps", 2, "--out", url),
        ("recheck", "--report", report, "--model", BUNDLE, "--store", inputs / "store", "--out", url),
    ]


@pytest.fixture
def reported(inputs):
    """A store and a report on this disk."""
    assert run("scan", inputs / "captions.parquet", "--model", BUNDLE, *MADE, "--store", inputs / "store")[2] == 0
    assert run("report", "--store", inputs / "store", "--out", inputs / "report")[2] == 0
    return inputs


def test_a_bucket_that_is_not_there_is_usage_wherever_it_is_named(s3, reported):
    for command in commands("s3://nobucket/x", reported):
        _, err, code = run(*command)
        assert (code, "no such bucket or container (" in err) == (2, True), (command, err)
        assert "s3://nobucket" in err.splitlines()[-1], command


@pytest.mark.slow
def test_refused_keys_and_a_vanished_network_are_exit_4_wherever_they_happen(reported, monkeypatch):
    server = S3(INITIAL_NO_AUTH_ACTION_COUNT="0")
    monkeypatch.setattr(places, "RETRIES", 0)
    for name, value in server.settings.items():
        monkeypatch.setenv(name, value)
    try:
        for said in ("refuses these credentials, or there are none (", "cannot be reached ("):
            for command in commands("s3://bucket/x", reported):
                _, err, code = run(*command)
                assert (code, f"the object store {said}" in err) == (4, True), (command, err)
            server.stop()
        out, _, code = run("doctor", "--store", "s3://bucket/x", "--backend", "cpu", "--json")
    finally:
        server.stop()
    (found,) = (item for item in json.loads(out)["findings"] if item["name"] == "store")
    assert (code, found["status"]) == (4, "problem")
    assert "s3://bucket/x: the object store cannot be reached (" in found["found"]


def test_inputs_on_an_object_store_that_vanishes_are_not_left_out(tmp_path, monkeypatch):
    """The files that could still be read would be a dataset without its rest, and a night that seems whole."""
    boto3 = pytest.importorskip("boto3")
    server = S3()
    monkeypatch.setattr(places, "RETRIES", 0)
    for name, value in server.settings.items():
        monkeypatch.setenv(name, value)
    client = boto3.client("s3", region_name="us-east-1")
    client.create_bucket(Bucket="bucket")
    for i in range(3):
        write_tar(
            tmp_path / f"{i}.tar", [(f"{j}.txt", text.encode()) for j, text in enumerate(CAPTION[i * 9 : i * 9 + 9])]
        )
        client.upload_file(str(tmp_path / f"{i}.tar"), "bucket", f"d/{i}.tar")
    batches, seen = readers.Rows.batches, []

    def vanishing(self, file, *rest):
        seen.append(file)
        if len(seen) == 2:
            server.stop()
        return batches(self, file, *rest)

    asked = {"model": BUNDLE, "store": tmp_path / "store", "backend": "cpu", "batch_size": 16}
    try:
        with monkeypatch.context() as patched:
            patched.setattr(readers.Rows, "batches", vanishing)
            with pytest.raises(RemoteError, match=r"s3://bucket/d/\d\.tar: the object store cannot be reached"):
                scan("s3://bucket/d/*.tar", **asked)
        with pytest.raises(RemoteError, match=r"s3://bucket/d/\*\.tar: the object store cannot be reached"):
            scan("s3://bucket/d/*.tar", **asked)
    finally:
        server.stop()
    assert list((tmp_path / "store").glob("scores/*.parquet")) == []


def test_doctor_says_of_an_object_store_what_it_lacks(s3, monkeypatch):
    def look():
        out, _, code = run("doctor", "--store", "s3://bucket/d", "--backend", "cpu", "--json")
        (found,) = (item for item in json.loads(out)["findings"] if item["name"] == "store")
        return code, found["status"], found["found"]

    assert look() == (0, "note", "s3://bucket/d: no store there yet")
    assert Folder("s3://bucket/d").names() == []
    monkeypatch.setattr(Folder, "create", lambda self, name, data: self.write(name, data) or True)
    code, status, found = look()
    assert (code, status) == (4, "problem")
    assert (
        found
        == "s3://bucket/d: an object store without conditional puts (If-None-Match), so scans at once would lose rows"
    )
    out, _, code = run("doctor", "--model", "s3://bucket/none", "--backend", "cpu", "--json")
    found = {item["name"]: item["found"] for item in json.loads(out)["findings"]}
    assert (code, found["model"]) == (4, "s3://bucket/none: nothing is there: name another place")
    assert found["backend cpu"] == "not tried: the model cannot be read"


def test_a_change_that_others_void_again_and_again_is_given_up(s3):
    count = iter(range(1000))

    def write(path: Path):
        path.write_text("mine")
        Folder("s3://bucket").write("contended", str(next(count)).encode())

    with pytest.raises(RemoteError, match="s3://bucket/contended: other processes change it again and again"):
        change("s3://bucket/contended", write)
    assert Folder("s3://bucket").read("contended") == b"19"
