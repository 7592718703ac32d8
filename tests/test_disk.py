"""What is said, and what is left, where a disk or a folder does not do what is needed: in the right words and class."""

import ctypes
import errno
import os
import platform
import re
import resource
import signal
import struct
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import pytest
from small import BUNDLE

from engines import EngineError, left_behind
from engines.manifest import new_folder
from engines.partial import partial_folder, prefix
from scanner import disk, scan
from scanner.disk import work_folder
from scanner.errors import DiskError, ScannerError, StoreError, disk_error, errno_of
from scanner.files import replacing, replacing_folder
from scanner.store.stored import read_store

OVERSCAN = [sys.executable, "-m", "scanner"]
SCAN = ["scan", "captions.txt", "--model", str(BUNDLE), "--store", "store", "--backend", "cpu"]
REPORT = ["report", "--store", "store", "--out", "report", "--json"]
SECCOMP, FILTER, NO_NEW_PRIVILEGES = 22, 2, 38
LINK_CALLS = (86, 265)  # link and linkat of x86-64


def overscan(folder, *arguments, before=None, **environment):
    """(exit code, stderr) of another process."""
    done = subprocess.run(
        [*OVERSCAN, *map(str, arguments)], cwd=folder, capture_output=True, text=True, preexec_fn=before,
        env=os.environ | environment, check=False,
    )  # fmt: skip
    return done.returncode, done.stderr


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "captions.txt").write_text("\n".join(f"a caption, {i}" for i in range(40)) + "\n")
    return tmp_path


@pytest.fixture
def scanned(folder):
    code, said = overscan(folder, *SCAN)
    assert code == 0, said
    return folder


def largest(size):
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def without_links(number):
    """Refuse hard links in this process with an error number, as such a file system does."""

    def install():
        jump = [struct.pack("HBBI", 0x15, len(LINK_CALLS) - i, 0, call) for i, call in enumerate(LINK_CALLS)]
        program = [struct.pack("HBBI", 0x20, 0, 0, 0), *jump, struct.pack("HBBI", 6, 0, 0, 0x7FFF0000)]
        code = b"".join([*program, struct.pack("HBBI", 6, 0, 0, 0x00050000 | number)])
        buffer = ctypes.create_string_buffer(code)
        head = struct.pack("HxxxxxxP", len(code) // 8, ctypes.addressof(buffer))
        libc = ctypes.CDLL(None, use_errno=True)
        assert libc.prctl(NO_NEW_PRIVILEGES, 1, 0, 0, 0) == 0
        assert libc.prctl(SECCOMP, FILTER, ctypes.create_string_buffer(head)) == 0

    return install


@pytest.mark.parametrize("name", ["tmp[1]", "tmp*?", "tmp {a} %41", "tmp\u00e9 'q'"])
def test_a_temporary_directory_of_any_name(folder, name):
    (folder / name).mkdir()
    for command in (SCAN, REPORT):
        code, said = overscan(folder, *command, TMPDIR=str(folder / name))
        assert code == 0, said
    assert list((folder / name).iterdir()) == []


@pytest.mark.parametrize(("command", "size", "what"), [(SCAN, 1024, "work-"), (REPORT, 1024, "work-")])
def test_a_file_size_limit_is_not_the_stores_fault(scanned, command, size, what):
    code, said = overscan(scanned, *command, before=largest(size))
    (line,) = [line for line in said.splitlines() if line.startswith("error: ")]
    assert code == 4
    assert "a file there grew to the limit for one file (`ulimit -f`" in line
    assert what in line


def test_a_file_size_limit_in_the_store(folder):
    code, said = overscan(folder, *SCAN, before=largest(3000))
    assert (code, "error: store: a file there grew to the limit for one file" in said) == (4, True), said


@pytest.mark.skipif(platform.machine() != "x86_64" or sys.platform != "linux", reason="system calls by number")
@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_system_without_hard_links_is_named(folder, number):
    code, said = overscan(folder, *SCAN, before=without_links(number))
    assert code == 4
    assert "error: store: that disk has no hard links, which make a commit whole or not at all (" in said
    assert "name a --store on another one" in said


def filled(file):
    """Write until the disk takes no more."""
    with file.open("wb", buffering=0) as stream, suppress(OSError):
        while True:
            stream.write(bytes(1000))


def test_a_report_on_a_full_disk(scanned, small_disk):
    filled(small_disk / "fill")
    code, said = overscan(scanned, "report", "--store", "store", "--out", small_disk / "out")
    full = "no space left on that disk: make room or name another folder, then run again\n"
    assert (code, said) == (4, f"error: {small_disk}/out: {full}")
    code, said = overscan(scanned, *REPORT, "--write-baseline", small_disk / "baseline.json")
    assert (code, f"{small_disk}/baseline.json: no space left on that disk" in said) == (4, True)


def test_the_number_of_the_system_tells_what_is_wrong():
    rust = ValueError("Generic LocalFileSystem error: Unable to open file /store/x: Permission denied (os error 13)")
    assert errno_of(rust) == errno.EACCES
    assert errno_of(ValueError("a caption")) is None
    told = ValueError("not told")
    told.__cause__ = OSError(errno.EDQUOT, "Disk quota exceeded")
    assert "the disk quota is used up" in str(disk_error("there", told))
    for number, words in {
        errno.EFBIG: "limit for one file",
        errno.EMFILE: "raise `ulimit -n`",
        errno.EIO: "the disk does not work",
        errno.EROFS: "cannot be written",
        errno.ESTALE: "mount it again",
    }.items():
        said = disk_error("there", OSError(number, os.strerror(number)))
        assert isinstance(said, DiskError)
        assert words in str(said)
        assert str(said).startswith("there: ")
    assert disk_error("there", OSError(errno.EACCES, "x"), only_writing=True) is None  # reading may meet it too
    assert disk_error("there", OSError(errno.ENOENT, "x")) is None


def test_a_library_that_fails_without_saying_why_is_found_out(small_disk):
    def fail(fill):
        with replacing(small_disk / "out.bin") as partial:
            fill(partial)
            raise ValueError("transport error")

    with pytest.raises(DiskError, match=r"out\.bin: no space left on that disk"):
        fail(filled)
    with pytest.raises(ValueError, match="transport error"):  # with room it is no disk's fault
        fail(Path.touch)


def left(parent):
    return sorted(path.name for path in parent.iterdir() if path.name.startswith("overscan-"))


def test_work_folders_of_killed_runs_go_and_others_stay(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    killed = tmp_path / "overscan-work-0123abcd"
    (killed / "all").mkdir(parents=True)
    (killed / "all/x.parquet").write_text("captions")
    others = ["overscan-work-of-somebody", "overscan-cache-0123abcd", "overscan-0123abcd"]
    for name in others:
        (tmp_path / name).mkdir()
    (tmp_path / "overscan-work-00000000").symlink_to(tmp_path)
    os.mkfifo(tmp_path / "overscan-work-11111111")
    with work_folder() as first, work_folder() as second:  # each sweeps, and finds the other's living
        assert (first.is_dir(), second.is_dir(), killed.exists()) == (True, True, False)
        assert first.stat().st_mode & 0o777 == 0o700
    kept = ["overscan-work-00000000", "overscan-work-11111111"]
    assert left(tmp_path) == sorted([*others, *kept])


def test_work_folders_of_other_users_stay(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / "overscan-work-0123abcd").mkdir()
    monkeypatch.setattr(os, "getuid", lambda: 4321)
    with work_folder():
        assert (tmp_path / "overscan-work-0123abcd").is_dir()


def test_a_killed_scan_leaves_nothing_to_the_next_ones_end(folder):
    (folder / "tmp").mkdir()
    (folder / "captions.txt").write_text("\n".join(f"a caption, {i}" for i in range(20_000)))
    running = subprocess.Popen(
        [*OVERSCAN, *SCAN], cwd=folder, env=os.environ | {"TMPDIR": str(folder / "tmp")}, stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    while not left(folder / "tmp"):
        time.sleep(0.05)
    beside = overscan(folder, *SCAN, "--limit", 5, TMPDIR=str(folder / "tmp"))
    assert (beside[0], len(left(folder / "tmp"))) == (0, 1)  # the living one's stays
    os.kill(running.pid, signal.SIGKILL)
    running.wait()
    assert len(left(folder / "tmp")) == 1
    code, said = overscan(folder, *SCAN, "--limit", 5, TMPDIR=str(folder / "tmp"))
    assert (code, left(folder / "tmp")) == (0, []), said


def test_what_a_killed_export_left_goes_with_the_next(tmp_path):
    out = tmp_path / "bundle"
    child = os.fork()
    if not child:
        with new_folder(out) as partial:
            (partial / "unet.onnx").write_bytes(bytes(1000))
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    assert [path.name.startswith(prefix(out)) for path in tmp_path.iterdir()] == [True]
    with partial_folder(tmp_path, prefix(out)) as living, new_folder(out) as partial:
        (partial / "engine.json").write_text("{}")
        assert sorted(tmp_path.iterdir()) == sorted([living, partial])
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]
    with pytest.raises(EngineError, match="exists: remove it or name another folder"), new_folder(out):
        pass


def left_by_a_first_edition(folder, file, changed=1e9):
    """As tempfile makes it, with a file of captions or of a graph; changed in 2001, if not said otherwise."""
    (folder / "all").mkdir(parents=True)
    (folder / "all" / file).write_text("x")
    folder.chmod(0o700)
    for path in (folder / "all" / file, folder / "all", folder):
        os.utime(path, (changed, changed))
    return folder


def test_what_killed_runs_of_first_editions_left_goes_too(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    out = tmp_path / "bundle"
    gone = [left_by_a_first_edition(tmp_path / "overscan-a1_xyz90", "part-0.parquet")]
    exported = [left_by_a_first_edition(tmp_path / ".bundle-a1_xyz90", "unet.onnx.data")]
    kept = [
        left_by_a_first_edition(tmp_path / "overscan-of_today", "part-0.parquet", time.time() - 3600),
        left_by_a_first_edition(tmp_path / "overscan-my_notes", "notes.txt"),
        left_by_a_first_edition(tmp_path / "overscan-readable", "part-0.parquet"),
        left_by_a_first_edition(tmp_path / ".bundle-my_notes", "notes.md"),
        left_by_a_first_edition(tmp_path / ".other-a1_xyz90", "unet.onnx"),
    ]
    kept[2].chmod(0o755)
    (tmp_path / "overscan-link0000").symlink_to(kept[0])
    with work_folder():
        assert [folder.exists() for folder in gone + exported + kept] == [False, *[True] * 6]
    with new_folder(out) as partial:
        (partial / "engine.json").write_text("{}")
    assert [folder.exists() for folder in exported + kept] == [False, *[True] * 5]
    assert (tmp_path / "overscan-link0000").is_symlink()


def test_what_a_living_run_of_a_first_edition_may_own_stays(tmp_path, monkeypatch):
    monkeypatch.setattr(left_behind, "QUIET", 0.0)
    monkeypatch.setattr(left_behind, "RUNTIMES", re.compile(rb"_json\.cpython"))  # any library tells
    started = [sys.executable, "-c", "import _json; print(flush=True); input()"]
    with subprocess.Popen(started, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as living:
        living.stdout.readline()
        began = time.time()
        before = left_by_a_first_edition(tmp_path / "overscan-before00", "a.parquet", 1e9)
        during = left_by_a_first_edition(tmp_path / "overscan-during00", "a.parquet", began)
        left_behind.sweep_unlocked(tmp_path, "overscan-", disk.WORK_FILES)
        assert (before.exists(), during.exists()) == (False, True)
        living.communicate(b"\n")
    monkeypatch.setattr(left_behind, "RUNTIMES", re.compile(rb"no such library"))
    left_behind.sweep_unlocked(tmp_path, "overscan-", disk.WORK_FILES)
    assert not during.exists()


@pytest.mark.parametrize("place", ["file:///tmp/x", "abfss://c@a/x", "S3://b/x", "hf://a/b"])
def test_no_library_call_takes_a_url_for_a_folder(tmp_path, monkeypatch, place):
    monkeypatch.chdir(tmp_path)
    for eaten in (place, str(Path(place)), Path(place)):
        for use in (
            lambda eaten=eaten: scan("captions.txt", model=BUNDLE, store=eaten),
            lambda eaten=eaten: read_store(eaten),
        ):
            with pytest.raises(ScannerError, match="needed a local path or a URL that begins with one of s3://, gs://"):
                use()
        for write in (replacing, lambda out: replacing_folder(out, bool)):
            with pytest.raises(ScannerError, match="a URL, and a local path is needed here"), write(Path(eaten)):
                pass
    assert list(tmp_path.iterdir()) == []


def test_names_with_a_colon_are_paths():
    for place in ("./s3:/x", "a:b", "C:/x", "2026-11-25T10:00:00/x", "reports/s3://x"):
        assert disk.local(place) == Path(place)


def test_a_url_is_never_a_store_to_restore():
    with pytest.raises(ScannerError) as caught:
        read_store(Path("s3://bucket/store"))  # pathlib has eaten a slash
    assert not isinstance(caught.value, StoreError)
    assert "restore" not in str(caught.value)
