"""Files and folders that appear whole or not at all, whoever is killed, and whatever else lies there."""

import errno
import fcntl
import json
import multiprocessing
import os
import subprocess
import sys
from itertools import groupby
from pathlib import Path

import pytest

from scanner import files
from scanner.files import READY, reading, replacing, replacing_folder, settle


def put(out, **texts):
    with replacing_folder(out, lambda name: name.startswith("ours")) as partial:
        for name, text in texts.items():
            (partial / name).write_text(text)


def held(folder):
    return {path.name: path.read_text() for path in folder.iterdir() if path.is_file()}


def killed(folder):
    command = [sys.executable, str(Path(__file__).parent / "killing.py"), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def order(found, what):
    """The different things found one after the other, as the kill came later."""
    return [key for key, _ in groupby(one[what] for one in found)]


def test_a_report_killed_at_any_step_is_yesterdays_or_todays(tmp_path):
    """And the next one leaves nothing behind of the one that was killed."""
    (tmp_path / "out/report").mkdir(parents=True)
    (tmp_path / "out/report/mine.txt").write_text("notes of a person")
    found = killed(tmp_path / "out")
    assert len(found) > 25
    assert order(found, "seen") == ["yesterday", "today"]
    assert order(found, "ready") == [False]
    assert order(found, "next") == ["whole"]


def test_a_report_killed_in_a_folder_that_cannot_be_exchanged_is_finished_by_its_reader(tmp_path):
    """Others have a folder in it, such as a store: files are put into place one by one, whoever goes on with it."""
    (tmp_path / "out/report/store").mkdir(parents=True)
    (tmp_path / "out/report/store/rows").write_text("of a store")
    found = killed(tmp_path / "out")
    assert order(found, "settled") == ["yesterday", "today"]
    assert order(found, "ready")[:2] == [False, True]
    assert all(one["ready"] for one in found if one["seen"] == "mixed")
    assert order(found, "next") == ["whole"]


@pytest.mark.parametrize("exchange", [True, False], ids=["exchanged", "one by one"])
def test_files_of_others_stay_and_those_of_before_go(tmp_path, monkeypatch, exchange):
    def refuses(first, second):
        raise OSError(errno.EINVAL, "no such thing here")

    if not exchange:
        monkeypatch.setattr(files, "_exchange_names", refuses)
    out = tmp_path / "out"
    put(out, ours_a="1", ours_b="1")
    (out / "mine").write_text("notes")
    (out / "link").symlink_to("nowhere")
    out.chmod(0o750)
    before = out.stat().st_ino
    put(out, ours_b="2", ours_c="2")
    assert held(out) == {"ours_b": "2", "ours_c": "2", "mine": "notes"}
    assert (out / "link").readlink() == Path("nowhere")
    assert (out.stat().st_mode & 0o777, out.stat().st_ino == before) == (0o750, not exchange)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_what_others_write_meanwhile_stays(tmp_path, monkeypatch):
    out, exchange = tmp_path / "out", files._exchange_names
    put(out, ours="1")
    (out / "mine").write_text("old notes")

    def late(first, second):
        (out / "new").write_text("new notes")
        (out / "edited").write_text("new notes")
        (out / "edited").replace(out / "mine")
        exchange(first, second)

    monkeypatch.setattr(files, "_exchange_names", late)
    put(out, ours="2")
    assert held(out) == {"ours": "2", "new": "new notes", "mine": "new notes"}


def test_the_working_directory_and_folders_of_others_stay_the_same_folders(tmp_path, monkeypatch):
    out = tmp_path / "out"
    put(out, ours="1")
    (out / "theirs").mkdir()
    inode = out.stat().st_ino
    put(out, ours="2")
    assert (out.stat().st_ino, held(out)) == (inode, {"ours": "2"})
    (out / "theirs").rmdir()
    monkeypatch.chdir(out)
    put(Path(), ours="3")
    assert (out.stat().st_ino, held(out)) == (inode, {"ours": "3"})
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to("out")
    put(tmp_path / "link", ours="4")
    assert held(tmp_path / "link") == {"ours": "4"}
    assert (tmp_path / "link").is_symlink()


def test_folders_of_ours_are_replaced_too(tmp_path):
    for theirs in (False, True):
        out = tmp_path / f"out {theirs}"
        for number in "12":
            if theirs:
                (out / "theirs").mkdir(parents=True, exist_ok=True)
            with replacing_folder(out, lambda name: name.startswith("ours")) as partial:
                for folder in ("ours", f"ours {number}"):
                    (partial / folder).mkdir()
                    (partial / folder / number).touch()
        assert sorted(path.name for path in out.glob("ours*/*")) == ["2", "2"]


def test_what_fails_leaves_the_folder_as_it_was(tmp_path):
    put(tmp_path / "out", ours="1")

    def fail():
        with replacing_folder(tmp_path / "out", lambda name: True) as partial:
            (partial / "ours").write_text("2")
            raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        fail()
    assert held(tmp_path / "out") == {"ours": "1"}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("write", [replacing, lambda path: replacing_folder(path, lambda name: True)])
def test_what_a_living_writer_holds_is_left_alone(tmp_path, write):
    dead, living = tmp_path / ".out.partial-00000000", tmp_path / ".out.partial-11111111"
    for folder in (dead, living):
        folder.mkdir()
        (folder / "half").touch()
    handle = os.open(living, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    with write(tmp_path / "out") as partial:
        assert not dead.exists()
        if partial.is_dir():
            (partial / "x").touch()
        else:
            partial.touch()
    assert living.exists()
    os.close(handle)
    with write(tmp_path / "out") as partial:
        if not partial.is_dir():
            partial.touch()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def writer(out, number, ready):
    ready.wait()
    for _ in range(20):
        put(out, **dict.fromkeys(("ours_a", "ours_b", "ours_c"), str(number)))


@pytest.mark.parametrize("theirs", [False, True], ids=["exchanged", "one by one"])
def test_a_reader_beside_writers_sees_one_edition(tmp_path, theirs):
    out = tmp_path / "out"
    if theirs:
        (out / "theirs").mkdir(parents=True)
    put(out, ours_a="", ours_b="", ours_c="")
    context = multiprocessing.get_context("forkserver")
    ready = context.Barrier(3)
    writers = [context.Process(target=writer, args=(out, number, ready)) for number in (1, 2)]
    for process in writers:
        process.start()
    ready.wait()
    seen = set()
    while any(process.is_alive() for process in writers):
        with reading(out):
            seen.add(tuple(sorted(held(out).items())))
    assert all(process.exitcode == 0 for process in writers)
    assert all([name for name, _ in files] == ["ours_a", "ours_b", "ours_c"] for files in seen)
    assert {len({text for _, text in files}) for files in seen} == {1}
    assert {path.name for path in out.iterdir() if path.name.startswith(".")} == set()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_folder_that_is_ready_but_closed_is_not_read(tmp_path, monkeypatch):
    (tmp_path / READY).mkdir()
    (tmp_path / READY / "ours").write_text("2")
    (tmp_path / READY / ".names").write_text("+ours\n")

    def closed(*arguments):
        raise PermissionError(errno.EACCES, "closed")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", closed)
        with pytest.raises(PermissionError, match="closed"), reading(tmp_path):
            pass
    settle(tmp_path)
    assert held(tmp_path) == {"ours": "2"}
