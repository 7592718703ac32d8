"""Files that were found intact are not read again until something was done to them."""

import hashlib
import os
import time
from pathlib import Path

import pytest

from engines import intact, read_bundle
from engines.bundle import read_manifest
from engines.cache import cache_folder
from engines.intact import check_files
from engines.interface import BundleError
from engines.manifest import sha256
from scanner.demo import BUNDLE

CONTENT = b"weights"
FILES = {"unet.onnx": hashlib.sha256(CONTENT).hexdigest()}


@pytest.fixture
def read(monkeypatch, tmp_path):
    """Names of the files that were read to the end; files count as settled at once."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(intact, "SETTLED", 0.0)
    found = []

    def noted(path):
        found.append(path.name)
        return sha256(path)

    monkeypatch.setattr(intact, "sha256", noted)
    return found


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "unet.onnx").write_bytes(CONTENT)
    return tmp_path


def later():
    """Past the resolution of a file system's times."""
    time.sleep(0.02)


def test_an_intact_file_is_read_once(folder, read):
    for _ in range(3):
        check_files(folder, FILES, reread=False)
    assert read == ["unet.onnx"]
    check_files(folder, FILES)
    assert read == ["unet.onnx", "unet.onnx"], "who asks for it has it read again"


def rewritten(path):
    path.write_bytes(b"WEIGHTS")


def replaced(path):
    other = path.with_name("other")
    other.write_bytes(b"WEIGHTS")
    other.replace(path)


def one_bit(path):
    with path.open("r+b") as file:
        file.write(b"v")


@pytest.mark.parametrize("change", [rewritten, replaced, one_bit])
def test_a_change_is_seen_though_size_and_times_are_those_of_before(folder, read, change):
    path = folder / "unet.onnx"
    check_files(folder, FILES, reread=False)
    before = path.stat()
    later()
    change(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    for _ in range(2):
        with pytest.raises(BundleError, match=r"unet\.onnx: sha256 .* damaged; copy or export it again"):
            check_files(folder, FILES, reread=False)


def test_what_was_found_damaged_is_not_believed_again(folder, read, monkeypatch):
    """As of a disk that loses bytes: nothing of the file shows it."""
    check_files(folder, FILES, reread=False)
    monkeypatch.setattr(intact, "sha256", lambda path: "f" * 64)
    check_files(folder, FILES, reread=False)
    for reread in (True, False):
        with pytest.raises(BundleError, match="damaged"):
            check_files(folder, FILES, reread=reread)


def test_a_file_that_is_missing_is_told_before_the_others_are_read(folder, read):
    with pytest.raises(BundleError, match="missing"):
        check_files(folder, FILES | {"vae.onnx": "0" * 64})
    assert read == []


def test_a_damaged_file_is_not_remembered(folder, read):
    (folder / "unet.onnx").write_bytes(b"WEIGHTS")
    for _ in range(2):
        with pytest.raises(BundleError, match="damaged"):
            check_files(folder, FILES, reread=False)
    assert read == ["unet.onnx"] * 2


def test_another_manifest_is_not_believed_for_what_the_first_said(folder, read):
    check_files(folder, FILES, reread=False)
    with pytest.raises(BundleError, match="damaged"):
        check_files(folder, {"unet.onnx": "0" * 64}, reread=False)


def test_a_file_that_was_just_written_may_change_unseen_and_is_read_again(folder, read, monkeypatch):
    monkeypatch.setattr(intact, "SETTLED", 3600.0)
    for _ in range(2):
        check_files(folder, FILES, reread=False)
    assert read == ["unet.onnx"] * 2


def open_to_others(monkeypatch):
    (cache_folder() / "intact").mkdir(parents=True)
    (cache_folder() / "intact").chmod(0o777)  # others could say what is intact


def closed(monkeypatch):
    (cache_folder() / "intact").mkdir(parents=True, mode=0o700)
    monkeypatch.setattr(intact.os, "access", lambda path, mode: False)  # as of mode 0000, but for root


def a_file(monkeypatch):
    cache_folder().parent.mkdir()
    cache_folder().write_text("")


def no_home(monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(intact, "own_folder", lambda name: Path("~nobody-of-this-name").expanduser())


@pytest.mark.parametrize("cache", [open_to_others, closed, a_file, no_home])
def test_without_a_folder_of_ones_own_nothing_is_remembered(folder, read, monkeypatch, cache):
    cache(monkeypatch)
    for _ in range(2):
        check_files(folder, FILES, reread=False)
    assert read == ["unet.onnx"] * 2


@pytest.mark.parametrize("name", ["../unet.onnx", "sub/unet.onnx"])
def test_a_file_elsewhere_and_one_that_is_missing_are_refused(folder, read, name):
    with pytest.raises(BundleError, match="lies outside the bundle"):
        check_files(folder, {name: FILES["unet.onnx"]}, reread=False)
    with pytest.raises(BundleError, match=r"other\.onnx: missing"):
        check_files(folder, {"other.onnx": FILES["unet.onnx"]}, reread=False)
    assert read == []


def test_a_start_believes_and_export_and_doctor_read(read):
    read_bundle(BUNDLE, "cpu")
    held = set(read)
    assert {"unet.onnx", "text_encoder.onnx", "tokenizer.json"} <= held
    read_bundle(BUNDLE, "cpu")
    assert len(read) == len(held), "the second start reads nothing"
    read_manifest(BUNDLE)
    read_bundle(BUNDLE, "cpu", reread=True)
    assert len(read) == 3 * len(held)
