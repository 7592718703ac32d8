import numpy as np
import pytest

from engines import open_bundle
from scanner import ScanConfig, scan
from scanner.demo import BUNDLE
from scanner.diffusion.denoiser import Denoiser
from scanner.errors import Interrupted
from scanner.model import batch_size as batching
from scanner.model.scorer import Scorer


class Machine:
    """A denoiser of `fixed` seconds per run and `each` per sample, on a clock of its own."""

    latent_shape = (1, 1, 1)
    batch_size = 7
    null = None

    def __init__(self, monkeypatch, fixed, each, ends_at=10**9):
        self.now, self.fixed, self.each, self.ends_at, self.sizes = 0.0, fixed, each, ends_at, []
        self.schedule = self
        monkeypatch.setattr(batching.time, "perf_counter", lambda: self.now)

    def timesteps(self, count):
        return [1]

    def eps(self, x_t, timestep, conditioning):
        size = x_t.shape[1]
        assert self.batch_size == size  # one run
        if size >= self.ends_at:
            raise RuntimeError("out of memory")
        self.sizes.append(size)
        self.now += self.fixed + self.each * size


@pytest.mark.parametrize(
    ("fixed", "each", "expected"),
    [(0.0, 1.0, 1), (1.0, 0.01, 256), (1.0, 0.1, 256), (0.1, 1.0, 4), (0.03, 1.0, 1)],
)
def test_the_smallest_batch_that_is_about_as_fast_as_any(monkeypatch, fixed, each, expected):
    machine = Machine(monkeypatch, fixed, each)
    assert batching.choose(batching.throughput(machine)) == expected
    assert machine.batch_size == 7


def test_a_batch_that_gains_nothing_ends_the_trial(monkeypatch):
    machine = Machine(monkeypatch, 0.1, 1.0)
    rates = batching.throughput(machine)
    np.testing.assert_allclose(rates, [1 / 1.1, 4 / 4.1, 16 / 16.1, 0, 0], rtol=1e-6)
    assert set(machine.sizes) == {1, 4, 16}


def test_within_its_patience_a_trial_tries_all(monkeypatch):
    machine = Machine(monkeypatch, 0.0001, 0.001)
    rates = batching.throughput(machine)
    assert set(machine.sizes) == set(batching.SIZES)
    assert batching.choose(rates) == 4


def test_a_batch_that_fails_ends_the_trial_unless_it_is_the_first(monkeypatch):
    rates = batching.throughput(Machine(monkeypatch, 1.0, 0.01, ends_at=64))
    assert batching.choose(rates) == 16
    assert list(rates[3:]) == [0, 0]
    with pytest.raises(RuntimeError, match="out of memory"):
        batching.throughput(Machine(monkeypatch, 1.0, 0.01, ends_at=1))


def test_a_batch_that_may_need_over_half_of_the_memory_left_is_not_tried(monkeypatch):
    machine = Machine(monkeypatch, 1.0, 0.01)
    held = 1000.0

    def peak():  # 100 kB per sample
        return held + 100 * max(machine.sizes, default=0)

    monkeypatch.setattr(batching, "_peak", peak)
    monkeypatch.setattr(batching, "_available", lambda: 4000.0)
    batching.throughput(machine)
    assert max(machine.sizes) == 16  # 64 would take 4 * 1,200 kB more


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


def test_the_trial_is_remembered_and_a_given_size_is_not_tried(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    bundle, tried = open_bundle(BUNDLE, "cpu"), []

    def throughput(denoiser, watch):
        tried.append(denoiser.batch_size)
        return np.array([1, 2, 3, 3.1, 0], np.float32)

    monkeypatch.setattr(batching, "throughput", throughput)
    assert [batching.fastest(bundle, Denoiser(bundle)) for _ in range(2)] == [16, 16]
    assert len(tried) == 1
    for backend in batching.BUILT:
        monkeypatch.setitem(vars(bundle), "backend", backend)
        assert batching.fastest(bundle, Denoiser(bundle)) == 64


def test_a_small_model_scores_several_batches_in_a_call(monkeypatch, bundle):
    for chosen, given, chunk in ((4, None, 64), (256, None, 64), (1024, None, 256), (4, 8, 2), (4, 1, 1)):
        monkeypatch.setattr("scanner.model.scorer.fastest", lambda *_, size=chosen: size)
        scorer = Scorer(bundle, ScanConfig(seeds=(0, 1, 2, 3)), given)  # 256 latent elements a sample
        assert (scorer.denoiser.batch_size, scorer.chunk) == (given or chosen, chunk)


def test_scores_do_not_depend_on_the_batch(tmp_path):
    (tmp_path / "p.txt").write_text("a red barn\na green barn\ntwo dogs on a beach\n")
    rows = []
    for size in (1, 5, None):
        result = scan(tmp_path / "p.txt", model=BUNDLE, store=tmp_path / f"store {size}", batch_size=size)
        assert result.batch_size == size or size is None
        rows.append(result.scores.sort("prompt_id"))
        assert result.record["batch_size"] == result.batch_size
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
        prepare=lambda what, done, total: heard.append((what, done, total)),
    )  # fmt: skip
    assert list(dict.fromkeys(what for what, _, _ in heard)) == [
        "batch size", "prior", "reference", "canaries",
    ]  # fmt: skip
    assert all(0 <= done < total for _, done, total in heard)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other cache"))
    with pytest.raises(Interrupted, match="interrupted while preparing"):
        scan(tmp_path / "p.txt", model=BUNDLE, store=tmp_path / "stopped", stop=lambda: True)
    assert not (tmp_path / "stopped").exists()


def test_the_prior_is_the_same_in_parts(bundle):
    from scanner.diffusion.trace import predict_prior

    whole, parts = (predict_prior(Denoiser(bundle, size), 50).x0_uncond for size in (64, 5))
    assert whole.shape == (64, *bundle.manifest.latent_shape)
    np.testing.assert_allclose(whole, parts, atol=1e-4)
