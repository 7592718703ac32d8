"""Progress of long work: what is said of speed and time left, and when."""

import io
import re

import pytest
from rich.console import Console

from scanner.cli import progress as module
from scanner.cli.progress import Pace, duration, progress


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def test_the_time_left_is_by_all_that_was_done_since_the_part_began(clock):
    pace = Pace(clock)
    assert pace("scan", 0, 1000) == ""
    clock.now += 2
    assert pace("scan", 100, 1000) == "50.0 prompts/s, 18.0 s left"
    clock.now += 8
    assert pace("scan", 200, 1000) == "20.0 prompts/s, 40.0 s left"
    clock.now += 10
    assert pace("scan", 1000, 1000) == "50.0 prompts/s"


def test_resumed_work_costs_no_time(clock):
    pace = Pace(clock)
    assert pace("evaluate", 900, 1000) == ""
    clock.now += 10
    assert pace("evaluate", 910, 1000) == "1.0 prompts/s, 1.5 min left"


def test_each_part_has_its_own_pace_and_start_up_no_speed(clock):
    pace = Pace(clock)
    pace("prior", 0, 64)
    clock.now += 4
    assert pace("prior", 16, 64) == "12.0 s left"
    clock.now += 4
    assert pace("scan", 0, 10) == ""
    clock.now += 1
    assert pace("scan", 2, 10) == "2.0 prompts/s, 4.0 s left"
    clock.now += 100
    assert pace("scan", 0, 5) == ""  # the second pass of a screened scan
    clock.now += 1
    assert pace("scan", 1, 5) == "1.0 prompts/s, 4.0 s left"


def test_where_the_total_is_not_known_there_is_a_speed_and_no_time_left(clock, monkeypatch, capsys):
    monkeypatch.setattr(module.time, "monotonic", clock)
    monkeypatch.setattr(module, "Pace", lambda: Pace(clock))
    with progress() as watch:
        for done in (0, 1_000_000, 2_000_000):
            watch("captions", done, 0)
            clock.now += 6
    assert capsys.readouterr().err == "captions: 2,000,000, 166,666.7 rows/s\n"


def test_where_there_is_no_terminal_a_line_comes_now_and_then(clock, monkeypatch, capsys):
    monkeypatch.setattr(module.time, "monotonic", clock)
    monkeypatch.setattr(module, "Pace", lambda: Pace(clock))
    with progress() as watch:
        for done in range(0, 5001, 1000):
            watch("scan", done, 5000)
            clock.now += 4
    assert capsys.readouterr().err == "scan: 3,000/5,000, 250.0 prompts/s, 8.0 s left\n"


def test_on_a_terminal_a_bar_tells_the_same(clock, monkeypatch):
    shown = io.StringIO()
    monkeypatch.setattr(module, "err_console", Console(file=shown, force_terminal=True, width=100))
    monkeypatch.setattr(module, "Pace", lambda: Pace(clock))
    with progress() as watch:
        watch("prior", 3, 64)
        watch("captions", 7, 0)
        watch("verify", 0, 200)
        clock.now += 10
        watch("verify", 50, 200)
    last = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown.getvalue()).split("\r")[-1]
    assert re.fullmatch(r"verify +\S+ +50/200 5\.0 steps/s, 30\.0 s left\n", last), last


@pytest.mark.parametrize(("seconds", "words"), [(0.04, "0.0 s"), (59, "59.0 s"), (90, "1.5 min"), (5400, "1.5 h")])
def test_durations_are_in_the_unit_that_reads_best(seconds, words):
    assert duration(seconds) == words
