from datetime import date

import polars as pl
import pytest

from scanner.audit.baseline import Baseline
from scanner.audit.policy import FailOn, classify, read_allow
from scanner.errors import ScannerError

A, B, C, D, UNKNOWN = (letter * 32 for letter in "abcdf")
TODAY = date(2030, 6, 15)
RANKED = pl.DataFrame({"prompt_id": [A, B, C, D], "flagged": [True, True, True, False]}).lazy()
BASELINE = Baseline((B, C, D), "scan", "s_v1", "2030-06-01")


def allow(tmp_path, *lines):
    path = tmp_path / "allow.csv"
    path.write_text("\n".join(["prompt_id,reason,expires", *lines, ""]))
    return path


def test_findings_are_new_known_or_allowed(tmp_path):
    listed = read_allow(allow(tmp_path, f"{C},our own logo,2030-06-15", "", f'{D},"a, quoted ""reason""",2030-12-31'))
    assert listed["reason"].to_list() == ["our own logo", 'a, quoted "reason"']
    found, notes = classify(RANKED, BASELINE, listed, TODAY)
    assert found.collect()["finding"].to_list() == ["new", "known", "allowed", None]  # the date itself still allows
    assert notes == []
    assert classify(RANKED, None, None, TODAY)[0].collect()["finding"].to_list() == ["new", "new", "new", None]


def test_expired_and_unknown_entries_are_said_and_do_not_allow(tmp_path):
    listed = read_allow(allow(tmp_path, f"{A},x,2030-06-14", f"{UNKNOWN},x,2031-01-01"))
    found, notes = classify(RANKED, BASELINE, listed, TODAY)
    assert found.collect()["finding"].to_list() == ["new", "known", "known", None]
    assert notes == [
        f"allow-list: 1 expired, so no longer allowed: {A}",
        f"allow-list: 1 not in this dataset: {UNKNOWN}",
    ]
    many = [f"{letter * 32},x,2031-01-01" for letter in "0123"]
    _, notes = classify(RANKED, None, read_allow(allow(tmp_path, *many)), TODAY)
    assert notes == [f"allow-list: 4 not in this dataset: {'0' * 32}, {'1' * 32}, {'2' * 32}, ..."]
    _, notes = classify(RANKED, None, read_allow(allow(tmp_path, *many[:3])), TODAY)
    assert notes == [f"allow-list: 3 not in this dataset: {'0' * 32}, {'1' * 32}, {'2' * 32}"]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([f"{A},x"], "line 2: 2 cells, needed 3: prompt_id,reason,expires"),
        ([f"{A},x,2031-01-01", "abc,x,2031-01-01"], "line 3: prompt_id 'abc', needed 32 hexadecimal digits"),
        ([f"{A}, ,2031-01-01"], "line 2: no reason: say why this caption may stay"),
        ([f"{A},x,"], "line 2: expires '', needed a date like 2030-12-31"),
        ([f"{A},x,31.12.2030"], "line 2: expires '31.12.2030', needed a date"),
        ([f"{A},x,2031-01-01", f"{A},y,2031-01-01"], f"line 3: {A} is listed twice"),
        ([f'{A},"x,2031-01-01'], "cannot be read .*needed a CSV file in UTF-8"),
    ],
)
def test_a_malformed_allow_list_is_an_error_with_the_line(tmp_path, lines, message):
    with pytest.raises(ScannerError, match=message):
        read_allow(allow(tmp_path, *lines))


def test_an_id_may_have_every_digit(tmp_path):
    every = "0123456789abcdef" * 2
    assert read_allow(allow(tmp_path, f"{every},x,2031-01-01"))["prompt_id"].to_list() == [every]


def test_an_allow_list_needs_its_header(tmp_path):
    path = tmp_path / "allow.csv"
    for content in ("", f"{A},x,2031-01-01\n"):
        path.write_text(content)
        with pytest.raises(ScannerError, match=r"line 1: .*needed the header prompt_id,reason,expires"):
            read_allow(path)
    path.write_bytes(b"prompt_id,reason,expires\n\xff\xfe")
    with pytest.raises(ScannerError, match="cannot be read"):
        read_allow(path)
    with pytest.raises(ScannerError, match=r"none\.csv: cannot be read"):
        read_allow(tmp_path / "none.csv")
    path.write_text("\ufeffprompt_id,reason,expires\n")  # as spreadsheets write it
    assert read_allow(path).rows() == []


@pytest.mark.parametrize(
    ("fail_on", "sentence"),
    [
        ("new", "policy violated: 2 new findings, --fail-on new"),
        ("any", "policy violated: 3 new or known findings, --fail-on any"),
        ("1", "policy violated: 2 new findings, --fail-on 1"),
        ("2", "policy violated: 2 new findings, --fail-on 2"),
        ("3", None),
    ],
)
def test_policies(fail_on, sentence):
    ranked = pl.DataFrame({"finding": ["new", "new", "known", "allowed", None]})
    assert FailOn.parse(fail_on).violation(ranked) == sentence
    one = pl.DataFrame({"finding": ["new", "allowed"]})
    assert (FailOn.parse(fail_on).violation(one) is None) == (fail_on in ("2", "3"))
    harmless = pl.DataFrame({"finding": ["allowed", None]})
    assert FailOn.parse(fail_on).violation(harmless) is None


@pytest.mark.parametrize("asked", ["", "0", "-1", "1.5", "all", "²"])
def test_a_policy_that_means_nothing_is_refused(asked):
    with pytest.raises(ScannerError, match="needed new, any, or a number from 1 up"):
        FailOn.parse(asked)
