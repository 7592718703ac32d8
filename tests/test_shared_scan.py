"""A scan that several runs share: its report is over what all of them were asked, and no row of it comes twice."""

import json

import polars as pl
import pytest
from small import BUNDLE
from test_cli import run

from scanner.store.stored import read_store

WORDS = [f"a plain sentence number {i}" for i in range(12)]
TOGETHER = (
    "the captions of {} runs of this scan that were asked for different ones are reported together; --last-run reports "
    "those of the newest run alone"
)


@pytest.fixture
def parts(tmp_path):
    """Three files of four captions each; the last caption of each stands in the next one too."""
    for i in range(3):
        lines = [*WORDS[4 * i : 4 * i + 4], WORDS[(4 * i + 4) % 12]]
        (tmp_path / f"part{i}.txt").write_text("\n".join(lines) + "\n")
    return tmp_path


def scan(folder, *arguments):
    _, err, code = run("scan", *arguments, "--model", BUNDLE, "--store", folder / "store", "--backend", "cpu")
    assert code == 0, err


def report(folder, *arguments):
    out, err, code = run("report", "--store", folder / "store", "--out", folder / "report", "--json", *arguments)
    assert code == 0, err
    return json.loads(out), pl.read_parquet(folder / "report/scores.parquet")


def places(folder, *arguments):
    """(file name, row) of every row that a report knows of, with all flagged."""
    report(folder, "--quantile", "0", *arguments)
    rows = pl.read_parquet(folder / "report/flagged.parquet").select(pl.col("file").str.split("/").list.last(), "row")
    return sorted(rows.rows())


def test_a_report_is_over_the_inputs_of_all_runs(parts):
    for i in range(3):
        scan(parts, parts / f"part{i}.txt")
    summary, ranked = report(parts, "--top", "1")
    assert (summary["prompts"], summary["scored"]) == (12, 12)
    assert summary["notes"] == [TOGETHER.format(3)]
    assert ranked["n_rows"].sum() == 15
    assert places(parts) == [(f"part{i}.txt", row) for i in range(3) for row in range(5)]
    names = "; ".join(str(parts / f"part{i}.txt") for i in (2, 1, 0))
    assert names in (parts / "report/report.html").read_text()

    summary, _ = report(parts, "--top", "1", "--last-run")
    assert (summary["prompts"], summary["notes"]) == (5, [])
    assert places(parts, "--last-run") == [("part2.txt", row) for row in range(5)]


def test_a_file_that_is_listed_twice_counts_once(parts, monkeypatch):
    monkeypatch.chdir(parts)
    (parts / "linked.txt").symlink_to("part1.txt")
    scan(parts, "part0.txt")
    scan(parts, parts / "part0.txt", "part1.txt")
    scan(parts, "linked.txt")
    scan(parts, "part?.txt")
    assert places(parts) == [(f"part{i}.txt", row) for i in range(3) for row in range(5)]
    assert report(parts, "--top", "1")[0]["notes"] == [TOGETHER.format(4)]


def test_the_same_scan_again_says_nothing(parts):
    for _ in range(2):
        scan(parts, parts / "part0.txt", parts / "part1.txt")
    assert report(parts, "--top", "1")[0]["notes"] == []


@pytest.mark.parametrize("order", [1, -1])
def test_limits_reach_as_far_as_the_longest(parts, order):
    """Two of the first file; seven of the first and the second, which is two of that; three of the second."""
    asked = [["part0.txt", "--limit", 2], ["part0.txt", "part1.txt", "--limit", 7], ["part1.txt", "--limit", 3]]
    for name, *more in asked[::order]:
        scan(parts, parts / name, *(parts / item if str(item).endswith(".txt") else item for item in more))
    assert places(parts) == [("part0.txt", row) for row in range(5)] + [("part1.txt", row) for row in range(3)]
    scan(parts, parts / "part1.txt")
    assert places(parts) == [(f"part{i}.txt", row) for i in (0, 1) for row in range(5)]


def test_two_columns_of_a_file_are_two_lists_of_captions(tmp_path):
    pl.DataFrame({"short": WORDS[:3], "long": WORDS[3:6]}).write_csv(tmp_path / "table.csv")
    for column in ("short", "long"):
        scan(tmp_path, tmp_path / "table.csv", "--column", column)
    scores = read_store(tmp_path / "store").scores
    assert sorted(scores["text"]) == sorted(WORDS[:6])
    assert scores["n_rows"].to_list() == [1] * 6
    assert sorted(read_store(tmp_path / "store", last_run=True).scores["text"]) == sorted(WORDS[3:6])


def test_inputs_of_an_earlier_run_that_are_gone_are_said(parts):
    scan(parts, parts / "part0.txt")
    scan(parts, parts / "part1.txt")
    (parts / "part0.txt").unlink()
    summary, _ = report(parts, "--top", "1")
    assert summary["prompts"] == 5
    gone = f"inputs of earlier runs that are gone, whose captions are missing: {parts / 'part0.txt'}"
    assert summary["notes"] == [gone, TOGETHER.format(2)]
    (parts / "part1.txt").unlink()
    _, err, code = run("report", "--store", parts / "store", "--out", parts / "report")
    assert code == 2
    assert "part1.txt: no such file" in err


def test_other_settings_are_another_scan(parts):
    scan(parts, parts / "part0.txt", "--seeds", "3")
    scan(parts, parts / "part1.txt")
    assert places(parts) == [("part1.txt", row) for row in range(5)]
