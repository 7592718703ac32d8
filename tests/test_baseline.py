"""Accepted findings: a list that only grows, but for entries that lapse."""

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import date

import pytest
from test_policy import RANKED, TODAY, A, B, C, D

from scanner.audit.baseline import Accepted, Baseline, accept, read_baseline
from scanner.audit.policy import classify
from scanner.errors import ScannerError

WRITTEN = {"format": "overscan baseline 1", "scan_id": "scan", "score": "s_v1", "date": "2030-06-01"}


def at(day, scan_id="scan", **more):
    return Accepted(f"2030-06-{day:02}", scan_id, "s_v1", **more)


def test_accepting_is_a_union(tmp_path):
    path = tmp_path / "ci" / "baseline.json"
    assert accept(path, [B, A], at(1))[1] == 2
    assert path.read_text() == (
        '{\n "format": "overscan baseline 1",\n "scan_id": "scan",\n "score": "s_v1",\n "date": "2030-06-01",\n'
        f' "prompt_ids": [\n  "{A}",\n  "{B}"\n ],\n "accepted": {{\n'
        + ",\n".join(
            f'  "{i}": {{\n   "date": "2030-06-01",\n   "scan_id": "scan",\n   "score": "s_v1",\n   "reason": null,\n'
            '   "expires": null\n  }'
            for i in (A, B)
        )
        + "\n }\n}\n"
    )
    grown, added = accept(path, [B, C], at(2, "other", reason="our own", expires="2030-06-20"))
    assert (added, grown.prompt_ids, grown.scan_id) == (1, (A, B, C), "other")
    assert read_baseline(path) == grown
    assert [grown.entry(i).scan_id for i in (A, B, C)] == ["scan", "other", "other"]
    assert classify(RANKED, grown, None, TODAY)[0].collect()["finding"].to_list() == ["known"] * 3 + [None]
    assert grown.elsewhere([A, B, C, D], "scan", "s_v1") == 2
    found, notes = classify(RANKED, grown, None, date(2030, 6, 21))
    assert found.collect()["finding"].to_list() == ["known", "new", "new", None]
    assert notes == [f"baseline: 2 accepted until a day that has passed, so new again: {B}, {C}"]
    again, added = accept(path, [B], at(22))
    assert (added, again.entry(B), again.entry(C).expires) == (1, at(22), "2030-06-20")
    assert len(list(path.parent.iterdir())) == 1


def test_the_last_day_counts(tmp_path):
    path = tmp_path / "as" / "deep" / "as it is" / "b.json"
    grown, _ = accept(path, [A], at(1, expires="2030-06-20"))
    assert [grown.known(date(2030, 6, day)) for day in (19, 20, 21)] == [[A], [A], []]
    assert accept(path, [A], at(20))[0].entry(A) == at(1, expires="2030-06-20")
    assert accept(path, [A], at(21))[0].entry(A) == at(21)
    every_digit = "0123456789abcdef" * 2
    accept(path, [every_digit], at(21))
    assert read_baseline(path).prompt_ids == (every_digit, A)


def test_accepted_again_keeps_when_and_why(tmp_path):
    path = tmp_path / "b.json"
    accept(path, [A], at(1, reason="ours"))
    assert accept(path, [A, B], at(2))[0].accepted == {A: at(1, reason="ours"), B: at(2)}
    assert accept(path, [A], at(3, reason="still ours"))[0].entry(A) == at(3, reason="still ours")


def test_a_baseline_of_before_is_read_and_grows(tmp_path):
    path = tmp_path / "b.json"
    head = {"format": "overscan baseline 1", "scan_id": "first", "score": "s_v1", "date": "2029-01-01"}
    path.write_text(json.dumps(head | {"prompt_ids": [A]}))
    assert read_baseline(path) == Baseline((A,), "first", "s_v1", "2029-01-01")
    grown, _ = accept(path, [B], at(1))
    assert grown.accepted == {A: Accepted("2029-01-01", "first", "s_v1"), B: at(1)}


def test_another_file_is_never_taken_for_a_baseline(tmp_path):
    path = tmp_path / "notes.json"
    path.write_text('{"mine": 1}')
    with pytest.raises(ScannerError, match="not a baseline"):
        accept(path, [A], at(1))
    assert path.read_text() == '{"mine": 1}'


def test_two_at_once_lose_nothing(tmp_path):
    ids = [f"{i:032x}" for i in range(40)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: accept(tmp_path / "b.json", [i], at(1)), ids))
    assert read_baseline(tmp_path / "b.json").prompt_ids == tuple(ids)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file; `overscan report ... --write-baseline"),
        ("", "not a baseline"),
        ("[]", "not a baseline"),
        ("{}", "not a baseline"),
        ('{"format": "overscan baseline 2"}', "format 'overscan baseline 2', this overscan reads"),
        (json.dumps({"format": "overscan baseline 1", "prompt_ids": ["x"]}), "not a baseline"),
        (json.dumps(WRITTEN | {"prompt_ids": ["x"]}), "prompt_ids: needed a list of ids"),
        (json.dumps(WRITTEN | {"prompt_ids": [A, "x"]}), "prompt_ids: needed a list of ids"),
        (json.dumps(WRITTEN | {"prompt_ids": [A[:31]]}), "prompt_ids: needed a list of ids"),
        (json.dumps(WRITTEN | {"prompt_ids": [A[:31] + "G"]}), "prompt_ids: needed a list of ids"),
        (json.dumps(WRITTEN | {"prompt_ids": [32 * [0]]}), "prompt_ids: needed a list of ids"),
        (json.dumps(WRITTEN | {"prompt_ids": A}), "prompt_ids: needed a list of ids"),
        (json.dumps({"format": "overscan baseline 1", "prompt_ids": [A]}), "not a baseline .KeyError.'scan_id'"),
    ],
)
def test_a_file_that_is_no_baseline_is_refused(tmp_path, content, message):
    path = tmp_path / "baseline.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ScannerError, match=message):
        read_baseline(path)
