import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from small import BUNDLE

from engines import EngineError
from scanner import ScanConfig, scan
from scanner.cli.options import executor, visible
from scanner.errors import Interrupted, ScannerError
from scanner.model import Model
from scanner.scanning import execute
from scanner.scanning.execute import local, processes

CAPTIONS = [f"caption {i} of a {thing}" for i in range(40) for thing in ("boat", "cat", "tower")]


@pytest.fixture(scope="module")
def model():
    return Model(BUNDLE, "cpu", config=ScanConfig(seeds=(0,)), batch_size=8).prepare()


def chunks(size=8):
    prompts = pl.DataFrame({"prompt_id": CAPTIONS, "text": CAPTIONS})
    return prompts.iter_slices(size)


def never():
    return False


def table(frames):
    return pl.concat(frames).sort("prompt_id")


def workers():
    """Process ids of this process's living children that serve."""
    return [child.pid for child in execute.multiprocessing.active_children()]


@pytest.fixture(scope="module")
def expected(model):
    return table(local(model, chunks(), never))


def test_workers_give_what_this_process_gives_also_when_one_is_killed(model, expected):
    frames, killed = [], []
    for frame in processes(2)(model, chunks(), never):
        frames.append(frame)
        if len(frames) == 3:
            os.kill(workers()[0], signal.SIGKILL)
            killed.append(True)
    assert killed == [True]
    assert table(frames).equals(expected)
    assert workers() == []


def test_once_asked_to_stop_chunks_in_hand_are_finished_and_no_other_begun(model, expected):
    frames = []
    for frame in processes(2)(model, chunks(), lambda: len(frames) >= 2):
        frames.append(frame)
    assert 2 <= len(frames) <= 4
    assert table(frames).equals(expected.filter(pl.col("prompt_id").is_in(table(frames)["prompt_id"].implode())))
    assert len(list(local(model, chunks(), lambda: True))) == 1


def test_what_is_computed_comes_before_the_error_that_ends_it(model, expected):
    def spoiled():
        for i, chunk in enumerate(chunks()):
            if i == 3:
                raise ScannerError("the fourth chunk cannot be read")
            yield chunk

    frames = []
    with pytest.raises(ScannerError, match="fourth chunk"):
        frames.extend(local(model, spoiled(), never))
    assert len(frames) == 3
    assert table(frames).equals(expected.filter(pl.col("prompt_id").is_in(table(frames)["prompt_id"].implode())))


def test_workers_that_die_again_and_again_end_the_run(model):
    done = threading.Event()

    def kill():
        while not done.is_set():
            for pid in workers():
                os.kill(pid, signal.SIGKILL)
            time.sleep(0.05)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        with pytest.raises(EngineError, match=r"3 workers died one after the other \(exit code -9"):
            list(processes(2)(model, chunks(), never))
    finally:
        done.set()
        killer.join()
    assert workers() == []


def test_a_worker_that_would_compute_other_scores_is_refused(model):
    prepared = model.prepared
    other = model.adapted(prepared=replace(prepared, scan_id="0" * 32))
    with pytest.raises(EngineError, match=f"a worker opened a model of scan_id {prepared.scan_id}, needed 0{{32}}"):
        list(processes(1)(other, chunks(), never))
    wrong = prepared.canaries.with_columns(pl.col("low_noise_norm_v1") * 1.001)
    other = model.adapted(prepared=replace(prepared, canaries=wrong))
    with pytest.raises(EngineError, match=r"a worker computes other canaries \(low_noise_norm_v1\)"):
        list(processes(1)(other, chunks(), never))


def test_what_a_worker_refuses_is_raised_here(model, tmp_path):
    other = replace(model, path=tmp_path / "gone")
    with pytest.raises(EngineError, match="gone: no such folder"):
        list(processes(1)(other, chunks(), never))


class Seeing(Model):
    """Says which GPUs its process sees."""

    def scorer(self, watch=lambda *_: None):
        with Path(os.environ["SEEN"]).open("a") as file:
            file.write(f"{os.environ.get('CUDA_VISIBLE_DEVICES')}\n")
        return super().scorer(watch)


def test_a_worker_sees_its_device_and_no_other(model, expected, tmp_path, monkeypatch):
    monkeypatch.setattr(execute, "DEVICES", ("cpu",))
    monkeypatch.setenv("SEEN", str(tmp_path / "seen"))
    seeing = Seeing(**model.__getstate__())
    assert table(processes(3, ["0", "GPU-7"])(seeing, chunks(), never)).equals(expected)
    assert sorted((tmp_path / "seen").read_text().split()) == ["0", "0", "GPU-7"]


def test_devices_of_the_command_line(model, monkeypatch):
    with pytest.raises(ScannerError, match=r"devices 0, 1: the cpu backend runs on the CPU; needed one of tensorrt"):
        list(processes(2, ["0", "1"])(model, chunks(), never))
    assert visible("1,0", "4,GPU-5") == ["GPU-5", "4"]
    for wrong in ("", "0,,1", "0,0"):
        with pytest.raises(ScannerError, match="needed different numbers of GPUs by commas"):
            visible(wrong, None)
    with pytest.raises(ScannerError, match="device 2: CUDA_VISIBLE_DEVICES is 4,5, so there are 0 to 1"):
        visible("0,2", "4,5")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6")
    with pytest.raises(ScannerError, match="devices 6, 4: the cpu backend"):
        list(executor(1, "2,0")(model, chunks(), never))
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "6,4"
    assert executor(1, None) is local


def test_cores_are_shared(monkeypatch):
    monkeypatch.setattr(execute.os, "sched_getaffinity", lambda _: {2, 3, 5, 7})
    assert execute._shares(2) == [[2, 3], [5, 7]]
    assert execute._shares(3) == [[2], [3], [5, 7]]
    assert execute._shares(6) == [[2], [3], [5], [7], [2], [3]]
    monkeypatch.delattr(execute.os, "sched_getaffinity")
    assert execute._shares(2) == [(), ()]


THREADS = """
import os, pathlib
os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
from engines import open_bundle
from scanner.demo import BUNDLE
open_bundle(BUNDLE, "cpu").engine("unet")
allowed = [(pathlib.Path("/proc/self/task") / task / "status").read_text() for task in os.listdir("/proc/self/task")]
print(sorted({line.split()[1] for status in allowed for line in status.splitlines() if "Cpus_allowed_list" in line}))
"""


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity") or os.cpu_count() == 1, reason="needs cores to share")
def test_an_engine_keeps_to_the_cores_of_its_process():
    """ONNX Runtime's own choice is a thread for each core of the machine, bound to it."""
    done = subprocess.run([sys.executable, "-c", THREADS], capture_output=True, text=True, check=True)
    assert done.stdout == f"['{min(os.sched_getaffinity(0))}']\n"


def test_a_scan_by_workers_is_the_scan(tmp_path):
    (tmp_path / "captions.txt").write_text("\n".join(CAPTIONS) + "\n\n")
    asked = {"model": BUNDLE, "backend": "cpu", "batch_size": 8}
    here = scan(tmp_path / "captions.txt", store=tmp_path / "here", **asked)
    there = scan(tmp_path / "captions.txt", store=tmp_path / "there", executor=processes(2), **asked)
    assert (there.scored, there.skipped, there.scan_id) == (here.scored, here.skipped, here.scan_id)
    assert there.scores.sort("prompt_id").equals(here.scores.sort("prompt_id"))


def test_a_stopped_scan_by_workers_goes_on(tmp_path):
    (tmp_path / "captions.txt").write_text("\n".join(CAPTIONS))
    asked = {"model": BUNDLE, "store": tmp_path / "store", "backend": "cpu", "batch_size": 8}
    heard = []

    def watch(what, done, total):
        heard.extend([done] if what == "scan" else [])

    with pytest.raises(Interrupted, match=r"what was computed is committed \(\d+ of 120 pending prompts\)"):
        scan(
            tmp_path / "captions.txt", executor=processes(2), watch=watch,
            stop=lambda: max(heard, default=0) >= 16, **asked,
        )  # fmt: skip
    rest = scan(tmp_path / "captions.txt", executor=local, **asked)
    assert 0 < rest.scored < 120
    assert rest.scored + rest.already_scored == 120


def test_a_model_is_small_to_send_and_keeps_what_is_prepared(model):
    import pickle

    sent = pickle.dumps(model)
    assert len(sent) < 300_000  # the small model's prior: 64 x 256 float32
    found = pickle.loads(sent)
    assert found == model
    assert vars(found).keys() == {
        "path",
        "backend",
        "precision",
        "config",
        "reference",
        "batch_size",
        "prepared",
        "base",
    }
    assert found.scan_id == model.scan_id
    assert found.prepare() is found


def test_an_unprepared_model_cannot_be_worked_with_by_mistake(tmp_path):
    with pytest.raises((ScannerError, EngineError), match="no such folder"):
        list(local(Model(tmp_path / "none"), chunks(), never))
