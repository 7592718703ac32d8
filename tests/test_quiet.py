"""Nothing is sent and nothing left behind, as the kernel sees it: processes under strace, with a home of their own."""

import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from importlib.metadata import distributions
from pathlib import Path

import pytest
from small import BUNDLE, CHECKPOINTS

from engines import quiet
from scanner.doctor import Asked, installation

ROOT = Path(__file__).parent.parent
CALLS = "connect,sendto,sendmsg,sendmmsg,open,openat,creat,mkdir,mkdirat,rename,renameat,renameat2,link,linkat"
MADE = re.compile(
    r'(?:open|openat)\(.*?"(?P<opened>[^"]+)", O_(?:WRONLY|RDWR)|(?:creat|mkdirat|mkdir)\(.*?"(?P<new>[^"]+)"'
)
ASKED = "from scanner.cli import main; main()"
LOUD = (  # as if `engines.quiet` were not there
    "import sys, types; fake = types.ModuleType('engines.quiet'); fake.silence = lambda: None; "
    f"sys.modules['engines.quiet'] = fake; {ASKED}"
)
HELD = {item.metadata["Name"] for item in distributions()}
TALKS = pytest.mark.skipif("openvino-telemetry" not in HELD, reason="needs openvino-telemetry")

pytestmark = pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")


class Observed:
    """A command line under strace, in a folder of its own; what it connected to and what it made elsewhere."""

    def __init__(self, folder: Path):
        self.folder, self.log = folder, folder / "strace.log"
        for name in ("home", "cache", "tmp", "work"):
            (folder / name).mkdir(exist_ok=True)

    def __call__(self, *arguments, program=ASKED):
        places = {
            "HOME": self.folder / "home", "XDG_CACHE_HOME": self.folder / "cache", "TMPDIR": self.folder / "tmp",
            "PYTHONPATH": ROOT, "PYTHONDONTWRITEBYTECODE": 1,
        }  # fmt: skip
        kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
        environment = kept | {name: str(value) for name, value in places.items()}
        traced = ["strace", "-f", "--seccomp-bpf", "-qq", "-o", self.log, "-e", f"trace={CALLS}"]
        command = [*traced, sys.executable, "-c", program, *map(str, arguments)]
        done = subprocess.run(command, cwd=self.folder / "work", env=environment, capture_output=True, text=True)
        if "PTRACE" in done.stderr or "ptrace" in done.stderr:
            pytest.skip("strace may not trace here")
        assert done.returncode == 0, done.stderr
        self.said = done.stderr
        return self

    @property
    def connected(self):
        """Lines with an address of the internet, or of a name server."""
        return [line for line in self.log.read_text().splitlines() if "AF_INET" in line]

    @property
    def elsewhere(self):
        """Files and folders made outside cache, work and temporary files."""
        made = set()
        for line in self.log.read_text().splitlines():
            if (found := MADE.search(line)) and " = -1 " not in line:
                path = self.folder / "work" / (found["opened"] or found["new"])
                inside = any(path.is_relative_to(self.folder / name) for name in ("cache", "tmp", "work"))
                if not inside and not path.is_relative_to("/dev") and not path.is_relative_to("/proc"):
                    made.add(str(path))
        return sorted(made)


@pytest.fixture
def observed(tmp_path):
    (tmp_path / "captions.txt").write_text("a dog\nthe moon\n")
    return Observed(tmp_path)


@pytest.mark.parametrize("backend", ["cpu", "openvino"])
def test_a_scan_and_its_report_send_nothing(observed, tmp_path, backend):
    scan = ("scan", tmp_path / "captions.txt", "--model", BUNDLE, "--store", "store", "--batch-size", 4)
    for command in ((*scan, "--backend", backend), ("report", "--store", "store", "--out", "report", "--top", 1)):
        observed(*command)
        assert observed.connected == []
        assert observed.elsewhere == []
    assert (tmp_path / "work/report/report.html").is_file()
    assert list((tmp_path / "home").iterdir()) == []


@pytest.mark.parametrize(
    ("backend", "left"), [("cpu", "onnxruntime"), pytest.param("openvino", "openvino_ga_cid", marks=TALKS)]
)
def test_the_runtimes_would_talk(observed, tmp_path, backend, left):
    """The control: without the silencing, the same command leaves an identity behind."""
    scan = ("scan", tmp_path / "captions.txt", "--model", BUNDLE, "--store", "store", "--batch-size", 4)
    observed(*scan, "--backend", backend, program=LOUD)
    made = [*observed.elsewhere, *(str(path) for path in (tmp_path / "cache").rglob("*"))]
    assert any(left in path for path in made), made


@pytest.mark.slow
def test_export_and_demo_send_nothing(observed, tmp_path):
    observed("export", CHECKPOINTS["v_prediction"], "bundle")
    assert observed.connected == []
    assert observed.elsewhere == []
    assert "Loading weights" not in observed.said
    observed("demo", "--out", "demo")
    assert observed.connected == []
    assert observed.elsewhere == []
    assert list((tmp_path / "home").iterdir()) == []


def test_what_was_imported_before_is_named(monkeypatch):
    assert quiet.spoken() == []
    monkeypatch.setitem(sys.modules, "openvino_telemetry", sys)
    assert quiet.spoken() == ["openvino_telemetry"]
    assert all(os.environ[name] == value for name, value in quiet.VARIABLES.items())


def test_doctor_says_so(monkeypatch):
    (finding,) = installation.silence(Asked())
    assert (finding.status, finding.found) == ("ok", "off, of every runtime: nothing is sent")
    monkeypatch.setenv("ORT_DISABLE_TELEMETRY", "0")
    monkeypatch.setitem(sys.modules, "openvino_telemetry", sys)
    (finding,) = installation.silence(Asked())
    assert (finding.status, finding.found) == (
        "note",
        "not all of it is off: openvino_telemetry, ORT_DISABLE_TELEMETRY",
    )


@pytest.fixture
def short():
    """A folder whose name leaves room for the sockets in it: their paths have at most 107 bytes."""
    folder = Path(tempfile.mkdtemp(prefix="o"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def own_address():
    """Of this machine in its network; connecting a datagram socket sends nothing."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("198.51.100.1", 9))
        return probe.getsockname()[0]


@pytest.mark.slow
def test_ray_talks_to_this_machine_and_asks_which_cloud_it_is_in(short):
    """Its statistics are off; whatever it is told, it looks for a cloud's metadata server (docs/fleet.md)."""
    pytest.importorskip("ray")
    seen = Observed(short)
    (short / "work/captions.txt").write_text("a red barn\ntwo boats\n")
    asked = ("scan", "captions.txt", "--model", BUNDLE, "--store", "store", "--backend", "cpu", "--executor", "ray")
    seen(*asked, "--workers", 1)
    assert "scored now      2" in seen.said
    assert seen.connected  # its processes do speak, with one another
    servers = re.findall(r"^nameserver\s+(\S+)", Path("/etc/resolv.conf").read_text(), re.MULTILINE)
    here = ("127.0.0.1", "::1", own_address())
    asks = ("169.254.169.254", *servers)  # the metadata server of clouds, and the name of Google's
    how = '"8.8.8.8")}, 16) = 0'  # a datagram socket, to learn the own address: nothing is sent
    assert [line for line in seen.connected if not any(known in line for known in (*here, *asks, how))] == []
