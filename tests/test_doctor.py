"""`overscan doctor`: what it finds of broken bundles, stores and installations, and its exit codes."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from click.testing import CliRunner
from small import CHECKPOINTS

import engines
from engines import EngineError
from engines.installed import install_line
from scanner.cli import cli
from scanner.demo import BUNDLE, CAPTIONS
from scanner.doctor import Asked, Finding, examine, installation, machine, model
from scanner.scanning.run import scan
from scanner.store.ledger import Ledger

ROOT = Path(__file__).parent.parent


def doctor(*arguments):
    """Exit code, and the findings by name."""
    done = CliRunner().invoke(cli, ["doctor", "--json", *map(str, arguments)])
    said = json.loads(done.stdout)
    assert said["problems"] == sum(row["status"] == "problem" for row in said["findings"])
    return done.exit_code, {row["name"]: row for row in said["findings"]}


@pytest.fixture(scope="module")
def healthy():
    return doctor()


@pytest.fixture
def path(monkeypatch, tmp_path):
    """A folder on sys.path for fake distributions."""
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def distribution(folder, name, package):
    info = folder / f"{name.replace('-', '_')}-1.2.3.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2.3\n")
    (info / "top_level.txt").write_text(f"{package}\n")
    (info / "RECORD").write_text(f"{package}/__init__.py,,\n")


def test_a_working_installation_has_no_problem(healthy):
    code, found = healthy
    assert code == 0
    assert {row["status"] for row in found.values()} <= {"ok", "note"}
    assert found["python"]["found"].startswith(".".join(map(str, sys.version_info[:3])))
    assert found["packages"]["found"].startswith("overscan ")
    assert "polars " in found["packages"]["found"]
    assert found["package scanner"]["found"] == str(ROOT / "scanner")
    assert "intact; stable-diffusion, float32, text_encoder, vae_encoder, vae_decoder, unet" in found["model"]["found"]
    assert found["backend cpu"]["found"] == "runs the bundled model: CPUExecutionProvider, float32"
    assert found["backend torch"]["found"] == "not tried: it runs diffusers checkpoints, name one with --model"
    assert found["a scan"]["found"] == "would run on cpu: CPUExecutionProvider, float32"
    assert "store" not in found


def test_optional_extras_are_named_with_their_pip_line(healthy, monkeypatch):
    _, found = healthy
    assert found["extra cpu"]["status"] == "ok"
    monkeypatch.setattr(installation, "_version", lambda name: None if "tensorrt" in name else "9.9")
    by_name = {finding.name: finding for finding in installation.extras(Asked())}
    assert by_name["extra tensorrt"] == Finding(
        "extra tensorrt",
        "note",
        "cuda-python 9.9; no tensorrt",
        f"if you need it: {install_line('tensorrt')}",
    )
    assert "extra dev" not in by_name


def test_text_for_people_gives_each_finding_a_line_and_each_remedy():
    done = CliRunner().invoke(cli, ["doctor", "--store", "/none/[red]such"])
    lines = done.stdout.splitlines()
    assert done.exit_code == 0
    assert lines[0].startswith("ok      python ")
    (at,) = [number for number, line in enumerate(lines) if line.startswith("note    store ")]
    assert lines[at].endswith("/none/[red]such: no store there yet")
    assert lines[at + 1].strip() == "-> none needed: `overscan scan` makes it"


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda folder: (folder / "unet.onnx").unlink(), "unet.onnx: missing"),
        (lambda folder: (folder / "unet.onnx").write_bytes(b"x"), "damaged; copy or export it again"),
        (lambda folder: (folder / "engine.json").write_text("{"), "not a readable manifest"),
        (lambda folder: shutil.rmtree(folder), "no engine.json, so not a bundle"),
    ],
)
def test_a_broken_bundle_is_a_problem(tmp_path, damage, words):
    folder = shutil.copytree(BUNDLE, tmp_path / "bundle")
    damage(folder)
    code, found = doctor("--model", folder)
    assert code == 4
    assert found["model"]["status"] == "problem"
    assert words in found["model"]["found"]
    assert found["a scan"]["status"] == "problem"
    assert found["a scan"]["found"].startswith(f"could not run with --backend auto: {folder}")


def test_a_backend_that_was_asked_for_and_does_not_run_is_a_problem(monkeypatch):
    def refused(folder, precision):
        raise EngineError("no GPU: buy one")

    monkeypatch.setattr(engines, "BACKENDS", engines.BACKENDS)
    monkeypatch.setitem(engines.BACKENDS, "cuda", refused)
    code, found = doctor("--backend", "cuda")
    assert code == 4
    assert found["backend cuda"]["found"] == "does not run here: no GPU: buy one"
    assert found["a scan"]["found"] == "could not run with --backend cuda: no GPU: buy one"
    code, found = doctor()
    assert code == 0  # nobody asked for it
    assert found["backend cuda"]["status"] == "note"


def test_a_checkpoint_is_for_torch():
    code, found = doctor("--model", CHECKPOINTS["v_prediction"])
    assert code == 0
    assert "a diffusers checkpoint, which only torch runs" in found["model"]["found"]
    assert found["backend torch"]["found"] == "runs the model: torch cpu float32, float32"
    assert found["backend cpu"]["found"].startswith("runs the bundled model")
    assert found["a scan"]["found"] == "would run on torch: torch cpu float32, float32"
    (taken,) = model.taken(Asked(CHECKPOINTS["v_prediction"], backend="cpu"))
    assert taken.status == "problem"  # the cpu backend runs, though not this
    assert 'a diffusers checkpoint, and the "cpu" backend runs bundles: use --backend torch' in taken.found


def test_a_store_is_counted_or_its_trouble_named(tmp_path):
    store = tmp_path / "store"
    scan(CAPTIONS, model=BUNDLE, store=store, limit=3)
    before = sorted(store.rglob("*"))
    found = list(model.store(Asked(store=store)))
    assert [finding.status for finding in found] == ["ok"]
    assert found[0].found.startswith(f"{store}: 1 scans, 3 rows, ")
    assert sorted(store.rglob("*")) == before  # looking changes nothing
    for log in (store / "scores" / "_delta_log").glob("*.json"):
        log.write_text("{")
    (finding,) = model.store(Asked(store=store))
    assert finding.status == "problem"
    assert "the store cannot be read" in finding.found


def test_a_store_with_scores_of_another_overscan_is_no_problem(tmp_path):
    Ledger(tmp_path / "store", ("some_score_v0",))
    (finding,) = model.store(Asked(store=tmp_path / "store"))
    assert (finding.status, finding.found.split(", ")[:2]) == ("ok", [f"{tmp_path / 'store'}: 0 scans", "0 rows"])


def test_no_store_yet_is_no_problem_and_a_file_is(tmp_path, monkeypatch):
    (finding,) = model.store(Asked(store=tmp_path / "none"))
    assert (finding.status, finding.found) == ("note", f"{tmp_path / 'none'}: no store there yet")
    (tmp_path / "file").write_text("")
    (finding,) = model.store(Asked(store=tmp_path / "file"))
    assert (finding.status, finding.found) == ("problem", f"{tmp_path / 'file'} is no folder")
    monkeypatch.setattr(model, "writable", lambda folder: False)
    (finding,) = model.store(Asked(store=tmp_path / "none"))
    assert (finding.status, finding.found) == ("problem", f"{tmp_path / 'none'} cannot be written")


def test_two_owners_of_onnx_runtime_are_a_problem(path):
    distribution(path, "onnxruntime-gpu", "onnxruntime")
    distribution(path, "onnxruntime", "onnxruntime")
    (finding,) = installation.onnxruntime_owners(Asked())
    assert finding.status == "problem"
    assert finding.found == "onnxruntime 1.2.3, onnxruntime-gpu 1.2.3 own one folder and overwrite each other"
    assert finding.remedy == "pip uninstall onnxruntime onnxruntime-gpu, then install the one that you need"


def test_another_distribution_with_our_names_is_a_problem(path):
    distribution(path, "port-scanner", "scanner")
    ours, engine = installation.names(Asked())
    assert ours.status == "problem"
    assert ours.found == "port-scanner owns a package of that name too"
    assert ours.remedy == f"pip uninstall port-scanner, then {install_line(force=True)}"
    assert engine.status == "ok"


def test_another_package_called_engines_is_named(tmp_path):
    (tmp_path / "engines").mkdir()
    (tmp_path / "engines" / "__init__.py").write_text("")
    done = subprocess.run(
        [sys.executable, "-c", "import sys; sys.path.insert(0, sys.argv[1]); import scanner", str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 1
    assert (
        f"ImportError: `engines` would come from {tmp_path / 'engines' / '__init__.py'}; overscan's own lies in {ROOT}"
        in done.stderr
    )


def test_the_command_ends_with_words_where_another_package_is_called_engines(tmp_path):
    (tmp_path / "engines.py").write_text("")
    (tmp_path / "overscan").write_text("from scanner.cli import main\nmain()\n")  # as pip writes it
    for arguments in (["doctor"], ["status", "--store", "store"]):
        command = [sys.executable, tmp_path / "overscan", *arguments]
        found = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)})
        assert (found.returncode, found.stdout) == (4, "")
        assert found.stderr == (
            f"error: `engines` would come from {tmp_path / 'engines.py'}; overscan's own lies in {ROOT}: take the "
            "other's folder off PYTHONPATH, or rename it where it is the working directory's\n"
        )


def test_the_processors_instructions(monkeypatch, tmp_path):
    info = tmp_path / "cpuinfo"
    monkeypatch.setattr(machine, "CPUINFO", info)
    info.write_text("model name\t: Xeon\nflags\t\t: fpu avx2 avx512f amx_bf16 avx512_bf16\n")
    (finding,) = machine.processor(Asked())
    assert finding == Finding("processor", "ok", "Xeon: avx2, avx512f, avx512_bf16, amx_bf16")
    info.write_text("model name\t: Atom\nflags\t\t: fpu sse4_2\n")
    (finding,) = machine.processor(Asked())
    assert (finding.status, finding.found) == ("note", "Atom: no instructions named")


@pytest.mark.parametrize(
    ("quota", "variable", "status", "words"),
    [
        ("max 100000", None, "ok", "4 of 8 cores may be used"),
        ("150000 100000", None, "note", "4 of 8 cores may be used, for 1.5 cores' time"),
        ("max 100000", "1", "note", "4 of 8 cores may be used, OMP_NUM_THREADS=1"),
        ("max 100000", "4", "ok", "4 of 8 cores may be used"),
    ],
)
def test_threads(monkeypatch, tmp_path, quota, variable, status, words):
    (tmp_path / "cpu.max").write_text(f"{quota}\n")
    monkeypatch.setattr(machine, "CPU_QUOTA", tmp_path / "cpu.max")
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda pid: {0, 1, 2, 3}, raising=False)
    monkeypatch.setattr(machine.os, "cpu_count", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if variable is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", variable)
    (finding,) = machine.threads(Asked())
    assert (finding.status, finding.found) == (status, words)


@pytest.mark.parametrize(("free", "status"), [(2**34, "ok"), (2**29, "note"), (2**20, "problem")])
def test_little_room_is_noted_and_none_is_a_problem(monkeypatch, tmp_path, free, status):
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda folder: type("Usage", (), {"free": free}))
    found = list(machine.disk(Asked(store=tmp_path / "store")))
    assert [finding.name for finding in found] == ["disk, store", "disk, cache", "disk, temporary files"]
    assert {finding.status for finding in found} == {status}


def test_a_cache_that_cannot_be_written_is_noted(monkeypatch, tmp_path):
    monkeypatch.setattr(machine, "writable", lambda folder: False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (finding,) = machine.cache(Asked())
    assert (finding.status, finding.found) == ("note", f"{tmp_path / 'overscan'} cannot be written")


def test_gpus_are_read_from_nvidia_smi(monkeypatch, tmp_path):
    tool = tmp_path / "nvidia-smi"
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    tool.write_text("#!/bin/sh\necho 'NVIDIA H100, 580.1, 81559 MiB'\n")
    tool.chmod(0o755)
    (finding,) = machine.gpu(Asked())
    assert (finding.status, finding.found) == ("ok", "NVIDIA H100, 580.1, 81559 MiB")
    tool.write_text("#!/bin/sh\necho 'No devices were found'\nexit 6\n")
    (finding,) = machine.gpu(Asked())
    assert finding.status == "note"
    assert finding.found == "nvidia-smi is there and shows none (No devices were found)"


def test_output_that_cannot_show_captions_is_noted(monkeypatch):
    monkeypatch.setattr(machine.sys, "getfilesystemencoding", lambda: "ascii")
    (finding,) = machine.text(Asked())
    assert finding.status == "note"
    assert finding.found.startswith("file names ascii, output ")


def test_a_check_that_fails_is_a_problem_and_the_others_go_on(monkeypatch):
    def broken(asked):
        raise RuntimeError("unforeseen")

    monkeypatch.setattr("scanner.doctor.CHECKS", {"first": broken, "python": installation.python})
    first, second = examine(Asked())
    assert (first.name, first.status) == ("first", "problem")
    assert first.found == "the check itself failed: RuntimeError: unforeseen"
    assert second.name == "python"


def test_nothing_that_a_scan_needs_is_missing_here():
    assert pl.DataFrame([finding.__dict__ for finding in installation.packages(Asked())])["status"].to_list() == ["ok"]
