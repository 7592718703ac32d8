import fcntl
import os
import shutil
import subprocess
import tempfile

import pytest
from s3 import S3
from small import BUNDLE, CHECKPOINTS, first

if worker := os.environ.get("PYTEST_XDIST_WORKER"):  # gw0, gw1, ...: a core each, before a runtime counts them
    usable = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {usable[int(worker.removeprefix("gw")) % len(usable)]})
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="overscan-cache-")  # baselines are kept there

import engines
from engines import open_bundle
from engines.bundle import read_manifest
from scanner.model import batch_size

ROUNDS = batch_size.ROUNDS
batch_size.ROUNDS = 1  # of a trial of batch sizes: many tests begin with an empty cache
AUTO = engines.AUTO
engines.AUTO = ("cpu",)  # whole texts and golden numbers are ONNX Runtime's, whatever else is installed


def pytest_sessionfinish():
    shutil.rmtree(os.environ["XDG_CACHE_HOME"], ignore_errors=True)


@pytest.fixture
def listed(tmp_path):
    """A file of forty captions, a line each."""
    (tmp_path / "captions.txt").write_text("\n".join(first(40)))
    return tmp_path / "captions.txt"


@pytest.fixture(scope="session")
def bundle():
    return open_bundle(BUNDLE)


@pytest.fixture(scope="session")
def epsilon_bundle_path(tmp_path_factory):
    """Half a minute's work: the worker that needs it first makes it, the others wait for it or find it."""
    from engines.export import export

    base = tmp_path_factory.getbasetemp()
    path = (base.parent if worker else base) / "epsilon"
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():  # it appears whole
            export(CHECKPOINTS["epsilon"], path)
    return path


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """A checkpoint of 100 kB, to copy and spoil."""
    import tiny

    return tiny.write(tmp_path_factory.mktemp("checkpoints") / "tiny")


@pytest.fixture(scope="session")
def made():
    """The small bundle's manifest."""
    return read_manifest(BUNDLE)


@pytest.fixture
def linked(tmp_path):
    """A bundle of links to the small one's files."""
    folder = tmp_path / "bundle"
    folder.mkdir()
    for file in BUNDLE.iterdir():
        (folder / file.name).symlink_to(file)
    return folder


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 200 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(folder)]
    if os.getuid() or not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small disk needs root")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)  # Polars' threads may still hold a file open


@pytest.fixture(scope="session")
def s3_server():
    """One local S3 server for all tests that do not end it."""
    pytest.importorskip("moto.server")
    server = S3()
    yield server
    server.stop()


@pytest.fixture
def s3(s3_server, monkeypatch):
    """A client of a local S3 server with an empty bucket, `bucket`, and the environment that leads everybody there."""
    boto3 = pytest.importorskip("boto3")
    for name, value in s3_server.settings.items():
        monkeypatch.setenv(name, value)
    client = boto3.client("s3", region_name="us-east-1")
    client.create_bucket(Bucket="bucket")
    yield client
    bucket = boto3.resource("s3", region_name="us-east-1").Bucket("bucket")
    bucket.objects.all().delete()
    bucket.delete()
