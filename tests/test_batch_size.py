import os
import platform
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from conftest import ROUNDS
from small import BUNDLE

from scanner import ScanConfig, scan
from scanner.diffusion.denoiser import Denoiser
from scanner.errors import Interrupted
from scanner.model import Model
from scanner.model import batch_size as batching


@pytest.fixture(autouse=True)
def rounds(monkeypatch):
    monkeypatch.setattr(batching, "ROUNDS", ROUNDS)


class Machine:
    """A denoiser of `fixed` seconds per run and `each` per sample, on a clock of its own; slower by `slow(now)`."""

    latent_shape = (1, 1, 1)
    null = None
    rebuilds = False

    def __init__(self, monkeypatch, fixed, each, ends_at=10**9, slow=lambda now: 1.0):
        self.now, self.fixed, self.each, self.ends_at, self.sizes, self.slow = 0.0, fixed, each, ends_at, [], slow
        self.schedule, self.batch_size = self, 7
        monkeypatch.setattr(batching.time, "perf_counter", lambda: self.now)

    def timesteps(self, count):
        return [1]

    def resized(self, size):
        if size >= self.ends_at:
            raise RuntimeError("out of memory")
        return self

    def predict(self, x_t, timestep, conditioning):
        size = x_t.shape[1]
        self.sizes.append(size)
        self.now += (self.fixed + self.each * size) * self.slow(self.now)


@pytest.mark.parametrize(
    ("fixed", "each", "expected"),
    [(0.0, 1.0, 1), (1.0, 0.01, 256), (1.0, 0.02, 256), (0.1, 1.0, 4), (0.03, 1.0, 1)],
)
def test_the_smallest_batch_that_is_about_as_fast_as_any(monkeypatch, fixed, each, expected):
    assert batching.try_sizes(Machine(monkeypatch, fixed, each)).size == expected


def test_a_batch_that_gains_nothing_ends_the_trial(monkeypatch):
    machine = Machine(monkeypatch, 0.01, 0.1)
    trial = batching.try_sizes(machine)
    np.testing.assert_allclose(trial.rates, [1 / 0.11, 4 / 0.41, 16 / 1.61, 0, 0], rtol=1e-6)
    assert set(machine.sizes) == {1, 4, 16}


@pytest.mark.parametrize(
    ("fixed", "each", "runs"),
    [
        (0.0, 2.1, {1: 3}),  # 4 would take 8.4 s; where there is no choice, no round follows
        (0.0, 0.45, {1: 4, 4: 4}),  # 16 would not gain, and ends the trial before it is run: 7.2 s
        (1.0, 0.5, {1: 2, 4: 3}),  # 16 would, and take 9 s
        (7.0, 0.9, {1: 3}),  # one size tells of no fixed part: 4 is expected to take 31.6 s
    ],
)
def test_a_run_that_would_last_too_long_is_not_tried(monkeypatch, fixed, each, runs):
    machine = Machine(monkeypatch, fixed, each)
    batching.try_sizes(machine)
    assert Counter(machine.sizes) == runs


def test_within_its_patience_a_trial_tries_all(monkeypatch):
    machine = Machine(monkeypatch, 0.0001, 0.001)
    trial = batching.try_sizes(machine)
    assert set(machine.sizes) == set(batching.SIZES)
    assert trial.size == 4


def test_a_busy_moment_does_not_decide(monkeypatch):
    """All runs of the larger batches in the first round are six times slower: the medians of later rounds count."""
    calm = batching.try_sizes(Machine(monkeypatch, 0.02, 0.002))
    disturbed = batching.try_sizes(Machine(monkeypatch, 0.02, 0.002, slow=lambda now: 6.0 if 0.05 < now < 3 else 1.0))
    assert calm.size == disturbed.size == 256
    np.testing.assert_allclose(calm.rates, disturbed.rates, rtol=1e-6)


def test_a_batch_that_fails_ends_the_trial_unless_it_is_the_first(monkeypatch):
    trial = batching.try_sizes(Machine(monkeypatch, 1.0, 0.01, ends_at=64))
    assert trial.size == 16
    assert trial.rates[3:] == (0, 0)
    with pytest.raises(RuntimeError, match="out of memory"):
        batching.try_sizes(Machine(monkeypatch, 1.0, 0.01, ends_at=1))


def test_a_batch_that_may_need_over_half_of_the_memory_left_is_not_tried(monkeypatch):
    machine = Machine(monkeypatch, 1.0, 0.01)
    held = 1000.0

    def peak():  # 100 kB per sample
        return held + 100 * max(machine.sizes, default=0)

    monkeypatch.setattr(batching, "_peak", peak)
    monkeypatch.setattr(batching, "_available", lambda: 4000.0)
    batching.try_sizes(machine)
    assert max(machine.sizes) == 16  # 64 would take 4 * 1,200 kB more


def test_others_are_what_the_machine_does_and_this_process_does_not():
    others, started = batching._Others(), time.perf_counter()
    assert others.share() is None or 0 <= others.share() <= 1
    while time.perf_counter() - started < 0.3:  # all of it by this process
        pass
    alone = others.share()
    others, busy = batching._Others(), subprocess.Popen([sys.executable, "-c", "while True: pass"])
    time.sleep(0.5)
    beside = others.share()
    busy.kill()
    busy.wait()
    assert beside > 0.5 / os.cpu_count()
    assert alone <= 1


def test_linux_tells_of_memory():
    assert 0 < batching._peak() < 10**9
    assert 0 < batching._available() < 10**10
    assert batching._kilobytes("/proc/no such file", "VmHWM", 5.0) == 5.0


def test_a_container_may_have_less_memory_than_its_machine(monkeypatch, tmp_path):
    monkeypatch.setattr(batching, "CGROUP", tmp_path)
    (tmp_path / "memory.current").write_text("1048576\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert batching._available() > 4096
    (tmp_path / "memory.max").write_text("5242880\n")
    assert batching._available() == 4096


@pytest.fixture
def tried(monkeypatch, tmp_path):
    """Batch sizes of the trials made; what the next one finds is its attribute."""

    class Tried(list):
        found = batching.Trial((1, 2, 3, 3.1, 0), 0.0)

    made = Tried()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(batching, "try_sizes", lambda denoiser, watch: made.append(denoiser.batch_size) or made.found)
    return made


def test_the_trial_is_remembered_and_a_given_size_is_not_tried(tried):
    model = Model(BUNDLE, "cpu")
    assert [batching.fastest(model.bundle, model.denoiser) for _ in range(2)] == [16, 16]
    assert tried == [64]
    assert replace(model, batch_size=3).prepare().batch_size == 3
    assert tried == [64]


def test_an_engine_that_rebuilds_keeps_its_own_size(tried):
    model = Model(BUNDLE, "cpu")
    model.denoiser.rebuilds = True
    assert batching.fastest(model.bundle, model.denoiser) == 64
    assert tried == []


def test_a_trial_on_a_busy_machine_holds_until_it_is_calm(tried, monkeypatch):
    model, load = Model(BUNDLE, "cpu"), [2.0 * os.cpu_count()]
    monkeypatch.setattr(batching.os, "getloadavg", lambda: (load[0], 0, 0))
    tried.found = batching.Trial((62, 31, 32, 32, 0), 0.6)
    assert [batching.fastest(model.bundle, model.denoiser) for _ in range(2)] == [1, 1]
    assert len(tried) == 1
    tried.found, load[0] = batching.Trial((548, 800, 1000, 1157, 1150), 0.01), 0.1
    assert [batching.fastest(model.bundle, model.denoiser) for _ in range(2)] == [64, 64]
    assert len(tried) == 2


@pytest.mark.parametrize(("rate", "kept"), [(62, True), (70, True), (100, False), (40, True), (20, False)])
def test_a_scan_at_another_rate_makes_the_next_start_try_again(tried, rate, kept):
    model = Model(BUNDLE, "cpu")
    tried.found = batching.Trial((62, 31, 32, 32, 0), 0.0)
    denoiser = model.denoiser.resized(batching.fastest(model.bundle, model.denoiser))
    batching.review(model.bundle, denoiser, rate, 1.0)  # too short to say anything
    batching.review(model.bundle, denoiser.resized(4), 20 * rate, 20.0)  # a size that somebody named
    batching.review(model.bundle, denoiser, 20 * rate, 20.0)
    batching.fastest(model.bundle, model.denoiser)
    assert len(tried) == (1 if kept else 2)


def test_a_damaged_trial_is_made_again(tried, tmp_path):
    model = Model(BUNDLE, "cpu")
    batching.fastest(model.bundle, model.denoiser)
    (file,) = (tmp_path / "overscan").glob("batch-*.json")
    for damage in ("", "{}", '{"rates": [1], "others": 0}', '{"rates": [0, 0, 0, 0, 0], "others": null}'):
        file.write_text(damage)
        assert batching.fastest(model.bundle, model.denoiser) == 16
    assert len(tried) == 5


def test_two_trials_at_once_wait_for_one_another(tried, tmp_path):
    """The other process's trial is heard as waiting, and its result taken."""
    import fcntl

    model, heard = Model(BUNDLE, "cpu"), []
    (tmp_path / "overscan").mkdir()
    with (tmp_path / "overscan" / f"{platform.node()}.lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)

        def watch(what, done, total):
            heard.append((what, done))
            if len(heard) == 2:  # the other process ends
                fcntl.flock(other, fcntl.LOCK_UN)

        assert batching.fastest(model.bundle, model.denoiser, watch) == 16
    assert heard == [("batch size", 0)] * 2
    assert tried == [64]


def test_a_small_model_scores_several_batches_in_a_call(monkeypatch, bundle):
    for chosen, given, chunk in ((4, None, 64), (256, None, 64), (1024, None, 256), (4, 8, 2), (4, 1, 1)):
        monkeypatch.setattr("scanner.model.model.fastest", lambda *_, size=chosen: size)
        scorer = Model.of(bundle, ScanConfig(seeds=(0, 1, 2, 3)), given).scorer()  # 256 latent elements a sample
        assert (scorer.denoiser.batch_size, scorer.chunk) == (given or chosen, chunk)


def test_scores_do_not_depend_on_the_batch(tmp_path):
    (tmp_path / "p.txt").write_text("a red barn\na green barn\ntwo dogs on a beach\n")
    rows = []
    for size in (1, 5, None):
        result = scan(tmp_path / "p.txt", model=BUNDLE, store=tmp_path / f"store {size}", batch_size=size)
        assert result.batch_size == size or size is None
        rows.append(result.scores.sort("prompt_id"))
        assert result.record.batch_size == result.batch_size
    for other in rows[1:]:
        for name in ("text_noise_norm_v1", "overestimation_prior_v1"):
            np.testing.assert_allclose(rows[0][name], other[name], rtol=1e-5)


def test_a_scan_tells_what_it_prepares_and_can_be_stopped_there(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "p.txt").write_text("a red barn\n")
    (tmp_path / "ordinary.txt").write_text("a dog\na cat\na house by the sea\n")
    heard = []
    scan(
        tmp_path / "p.txt", model=BUNDLE, store=tmp_path / "store", reference=tmp_path / "ordinary.txt",
        watch=lambda what, done, total: heard.append((what, done, total)),
    )  # fmt: skip
    assert list(dict.fromkeys(what for what, _, _ in heard)) == [
        "batch size", "prior", "reference", "canaries", "captions", "scan",
    ]  # fmt: skip
    assert all(0 <= done < total for what, done, total in heard if what not in ("captions", "scan"))
    assert [done for what, *done in heard if what == "captions"] == [[1, 0]]
    assert heard[-2:] == [("scan", 0, 1), ("scan", 1, 1)]
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other cache"))
    with pytest.raises(Interrupted, match="interrupted while preparing"):
        scan(tmp_path / "p.txt", model=BUNDLE, store=tmp_path / "stopped", stop=lambda: True)
    assert not (tmp_path / "stopped").exists()


def test_the_prior_is_the_same_in_parts(bundle):
    from scanner.diffusion.start import predict_prior

    whole, parts = (predict_prior(Denoiser(bundle, size), 50).x0_uncond for size in (64, 5))
    assert whole.shape == (64, *bundle.manifest.latent_shape)
    np.testing.assert_allclose(whole, parts, atol=1e-4)
