"""The simulation of many writers, by hand where that can be done."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "tools"))
import simulate_writers as simulation
from simulate_writers import Costs, simulate


@pytest.fixture
def punctual(monkeypatch):
    monkeypatch.setattr(simulation, "LATE", 0.0)


def test_one_writer_waits_for_nobody(punctual):
    """A commit each 10 s and the 0.5 s that it takes; the n-th entry of the log adds 1 ms to those after it."""
    found = simulate(1, 10.0, 0.1, Costs(0.5, 0.2, 0.1, 0.0))
    assert found["commits a day"] == 34 * 240  # 360 s: the first ends at 10.5, the others follow 10.5 s apart
    assert (found["claims per commit"], found["mean commit, s"]) == (1.0, pytest.approx(0.5))
    grown = simulate(1, 10.0, 0.1, Costs(0.5, 0.2, 0.1, 0.001))
    assert grown["longest, s"] == pytest.approx(0.5 + 0.033)


def test_who_comes_second_claims_again(punctual):
    """Two writers, half an interval apart, whose commits overlap: 6 s of work in turns of 5 s."""
    apart = simulate(2, 10.0, 0.1, Costs(0.5, 0.25, 0.1, 0.0))
    assert apart["claims per commit"] == 1.0
    assert apart["mean commit, s"] == pytest.approx(0.75, abs=0.01)  # each reads the other's one commit, the first none
    overlapping = simulate(2, 10.0, 0.02, Costs(6.0, 0.25, 0.1, 0.0))
    assert overlapping["commits a day"] == 8 * 1200  # in 72 s; the second of each pair claims twice
    assert overlapping["claims per commit"] == 1.5
    assert overlapping["longest, s"] == pytest.approx(6 + 0.25 + 0.1)


@pytest.mark.parametrize(("writers", "interval", "state"), [(100, 10.0, "saturated"), (100, 125.0, ""), (8, 10.0, "")])
def test_a_log_takes_only_so_many_claims(monkeypatch, writers, interval, state):
    """A tenth of a second each, so ten a second: a hundred writers that commit every ten seconds are too many."""
    monkeypatch.setattr(simulation, "EVENTS", 100_000)
    assert simulate(writers, interval, 1.0, Costs(0.3, 0.05, 0.1, 0.0))["state"] == state
