from dataclasses import replace
from datetime import UTC, date, datetime

import numpy as np
import polars as pl
import pytest
from reports import stored_scan

from scanner.audit.decision import decide
from scanner.audit.diff import count, diff, notes
from scanner.audit.rank import Rule
from scanner.errors import ScannerError
from scanner.report import contents_of, write
from scanner.report.read import former, read_night
from scanner.report.terminal import change_lines


def report(folder, scores, scan_id="scan", score="s_v1", threshold=0.5):
    """A real report of prompts named as their ids: each in as many rows as its number."""
    texts = list(scores)
    frame = pl.DataFrame(
        {"prompt_id": texts, "text": texts, "n_rows": [1] * len(texts), "status": ["scored"] * len(texts)}
    )
    frame = frame.with_columns(pl.Series(score, list(scores.values()), pl.Float32))
    rows = pl.LazyFrame(
        {"file": [f"{folder.name}.txt"] * len(texts) * 2, "row": range(len(texts) * 2), "text": texts * 2}
    )
    night = decide(stored_scan(frame, rows, scan_id=scan_id), Rule(score, threshold=threshold), date(2030, 1, 1))
    write(folder, contents_of(night, {}, datetime(2030, 1, 1, tzinfo=UTC)), night.summary)
    return read_night(folder)


BEFORE = {
    "stays": 0.9,
    "goes": 0.8,
    "falls": 0.7,
    "rises": 0.2,
    "low": 0.1,
    "moves": 0.6,
    "rounds": 0.55,
    "vanishes": 0.05,
}
AFTER = {
    "stays": 0.9,
    "comes": 0.99,
    "falls": 0.3,
    "rises": 0.7,
    "low": 0.15,
    "moves": 0.65,
    "rounds": 0.550001,
    "appears": 0.05,
}


@pytest.fixture
def nights(tmp_path):
    return report(tmp_path / "mon", BEFORE), report(tmp_path / "tue", AFTER)


def test_what_changed_between_two_nights(nights):
    changes = diff(*nights)
    assert changes.columns == [
        "change", "prompt_id", "text", "score_before", "score_after", "rank_before", "rank_after", "sources"
    ]  # fmt: skip
    assert list(change_lines(changes)) == [
        "change\tprompt_id\tscore_before\tscore_after\tsources\ttext",
        "new\tcomes\t\t0.9900\ttue.txt:1 +1\tcomes",
        "flagged\trises\t0.2000\t0.7000\ttue.txt:3 +1\trises",
        "unflagged\tfalls\t0.7000\t0.3000\tmon.txt:2 +1\tfalls",
        "gone\tgoes\t0.8000\t\tmon.txt:1 +1\tgoes",
        "moved\tmoves\t0.6000\t0.6500\ttue.txt:5 +1\tmoves",
    ]
    assert changes["sources"][0].to_list() == [{"file": "tue.txt", "row": 1}, {"file": "tue.txt", "row": 9}]
    assert count(changes) == "1 new, 1 flagged, 1 unflagged, 1 gone, 1 moved"
    assert notes(*nights) == []


def test_a_score_has_moved_by_more_than_rounding(nights, tmp_path):
    for moved, change in ((0.55005, []), (0.5501, ["moved"]), (0.5499, ["moved"])):
        found = diff(nights[0], report(tmp_path / f"{moved}", BEFORE | {"rounds": moved}))
        assert found["change"].to_list() == change


def test_prompts_that_have_no_score_any_more_come_last(nights, tmp_path):
    tonight = report(tmp_path / "late", BEFORE | {"stays": None, "falls": 0.3, "moves": 0.31})
    assert diff(nights[0], tonight)["prompt_id"].to_list() == ["moves", "falls", "stays"]


def test_a_night_compared_with_itself_changed_nothing(nights):
    changes = diff(nights[0], nights[0])
    assert changes.is_empty()
    assert list(change_lines(changes)) == ["change\tprompt_id\tscore_before\tscore_after\tsources\ttext"]
    assert count(changes) == "0 new, 0 flagged, 0 unflagged, 0 gone, 0 moved"


def test_nights_of_other_settings(tmp_path, nights):
    other = report(tmp_path / "wed", AFTER, scan_id="other", threshold=0.6)
    assert notes(nights[0], other) == [
        "the nights are of different models or settings, whose scores do not compare by value: prompts are compared by "
        "rank, and none is said to have moved",
        "drift between them: over 6 prompts of both nights the ranks correlate 0.486 (Spearman); 2 of the 4 that were "
        "flagged are flagged again",
        "the nights flag by different rules, {'threshold': 0.5} and {'threshold': 0.6}",
    ]
    with pytest.raises(ScannerError, match="reports of s_v1 and of r_v1 do not compare"):
        diff(nights[0], report(tmp_path / "thu", AFTER, score="r_v1"))


def test_two_prompts_in_common_tell_a_drift_and_one_does_not(tmp_path):
    one = report(tmp_path / "mon", {"a": 0.9, "b": 0.8, "c": 0.1})
    two = report(tmp_path / "tue", {"a": 0.9, "b": 0.95}, scan_id="other")
    assert "over 2 prompts of both nights the ranks correlate -1.000" in notes(one, two)[1]
    alone = report(tmp_path / "wed", {"a": 0.9, "d": 0.8}, scan_id="other")
    assert notes(one, alone)[1] == "drift between them: unknown, as they have no two prompts in common"


def test_p_values_are_compared_where_both_nights_have_them(tmp_path, nights):
    other = report(tmp_path / "wed", AFTER, scan_id="other")
    judged = replace(other, ranked=other.ranked.with_columns(p_value=pl.lit(0.5)))
    assert "by rank, and none" in notes(nights[0], judged)[0]
    before = replace(nights[0], ranked=nights[0].ranked.with_columns(p_value=pl.lit(0.5)))
    assert "by rank and p-value, and none" in notes(before, judged)[0]
    assert "p_before" in diff(before, judged).columns
    assert "p_before" not in diff(nights[0], judged).columns
    assert "p_before" not in diff(before, before).columns  # of one scan, the scores compare


def test_drift_looks_at_new_prompts_only(tmp_path):
    rng = np.random.default_rng(0)
    old = {f"{i:03x} old": value for i, value in enumerate(rng.normal(0, 0.1, 500))}
    same = {f"{i:03x} new": value for i, value in enumerate(rng.normal(0, 0.1, 300))}
    first = report(tmp_path / "mon", old)
    assert notes(first, report(tmp_path / "tue", old | same)) == []
    (said,) = notes(first, report(tmp_path / "wed", old | {name: value + 0.1 for name, value in same.items()}))
    assert said.startswith(
        "drift: the 300 new prompts score otherwise than the earlier night's (medians 0.09795 and -0.00502, "
    )


@pytest.mark.parametrize(
    "harm", ["summary.json", "scores.parquet", "flagged.parquet", "truncated", "foreign", "newer", "mixed"]
)
def test_a_folder_that_is_no_whole_report_is_refused(tmp_path, nights, harm):
    folder = tmp_path / "mon"
    if harm == "truncated":
        (folder / "scores.parquet").write_bytes((folder / "scores.parquet").read_bytes()[:-50])
    elif harm == "foreign":
        (folder / "summary.json").write_text('["x"]')
    elif harm == "mixed":
        (tmp_path / "tue/scores.parquet").replace(folder / "scores.parquet")  # a rewrite that was cut off
    elif harm == "newer":
        (folder / "summary.json").write_text('{"format": "overscan report 2"}')
    else:
        (folder / harm).unlink()
    wanted = (
        "this overscan reads 'overscan report 1'" if harm == "newer" else "mon: not a whole report .*overscan report"
    )
    with pytest.raises(ScannerError, match=wanted):
        read_night(folder)


def test_the_former_night_is_the_newest_of_an_earlier_day(tmp_path):
    nights = tmp_path / "nights"
    for name in ("mon", "tue", "wed", "other"):
        report(nights / name, BEFORE, scan_id="other" if name == "other" else "scan")
    days = {"mon": "2029-12-30", "tue": "2029-12-31", "wed": "2030-01-01", "other": "2029-12-31"}
    for name, day in days.items():
        file = nights / name / "summary.json"
        file.write_text(file.read_text().replace("2030-01-01", day))
    tonight, work = report(tmp_path / "tonight", AFTER).summary, tmp_path / "work"
    work.mkdir()
    assert former(tonight, nights, tmp_path / "none", work).summary.date == date(2029, 12, 31)
    assert former(tonight, tmp_path / "none", tmp_path / "none", work) is None
    assert former(tonight, None, tmp_path / "none", work) is None
    assert former(tonight, None, nights / "mon", work).summary.date == date(2029, 12, 30)
    assert former(tonight, None, nights / "other", work) is None
    (nights / "mon/scores.parquet").write_bytes(b"cut in half")
    assert former(tonight, None, nights / "mon", work) is None, "it is replaced, and no reason to have no report"
    (nights / "tue/summary.json").write_text("{")
    with pytest.raises(ScannerError, match="tue: not a whole report"):
        former(tonight, nights, tmp_path / "none", work)


def test_a_night_that_is_streamed_stays_what_it_is_while_its_report_is_replaced(tmp_path, nights):
    """And is linked rather than copied, where the disk can; read whole, it is the same."""
    work = tmp_path / "work"
    work.mkdir()
    whole, streamed = read_night(tmp_path / "mon"), read_night(tmp_path / "mon", work)
    assert (work / "former.parquet").samefile(tmp_path / "mon/scores.parquet")
    report(tmp_path / "mon", {"another": 1.0})
    assert streamed.ranked.collect().equals(whole.ranked.collect())
    assert set(streamed.ranked.collect()["prompt_id"]) == BEFORE.keys()
    assert read_night(tmp_path / "mon").ranked.collect()["prompt_id"].to_list() == ["another"]
