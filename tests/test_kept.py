"""A threshold that is kept: how it is chosen, written and read, and where it does not hold."""

import json
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from decisions import null, prompts
from reports import stored_scan

from scanner.audit.kept import Kept, choose, read, write
from scanner.audit.rank import Rule, rank
from scanner.config import SCREENED_OUT
from scanner.errors import ScannerError

CHOSEN = Kept("scan", "s_v1", 1.25, "2030-01-01", 1000, quantile=0.999)


def stored(scores):
    return stored_scan(prompts(scores), pl.LazyFrame(), [("a dog", 0.5)])


def test_a_quantile_is_kept_as_its_score():
    scores = np.linspace(0, 1, 1001)
    kept = choose(stored(scores), Rule("s_v1", quantile=0.99), "2030-01-01")
    assert kept == Kept("scan", "s_v1", float(np.float32(0.99)), "2030-01-01", 1001, quantile=0.99)
    for more in (scores, [*scores, 2.0, 3.0, 4.0]):
        flagged = rank(prompts(more), kept.rule).filter("flagged")
        assert len(flagged) == 11 + (len(more) - 1001)
    assert kept.how == "the quantile 0.99 of 1,001 prompts on 2030-01-01"


@pytest.mark.parametrize("fpr", [0.001, 0.01, 0.5])
def test_a_false_positive_rate_is_kept_so_that_it_flags_as_the_calibration_does(fpr):
    """Scores equal to null ones among them: p <= fpr is above a null score, not from it up."""
    made = null()
    scores = [*made.null[::7], *np.linspace(-1, 3, 500)]
    kept = choose(stored(scores), Rule("s_v1", fpr=fpr), "2030-01-01", made)
    assert (kept.fpr, kept.null_captions, kept.quantile) == (fpr, 999, None)
    by_file = rank(prompts(scores), kept.rule)
    assert by_file["flagged"].equals(rank(prompts(scores), Rule("s_v1", fpr=fpr), made)["flagged"])
    assert by_file["flagged"].any()
    assert kept.how == f"a false positive rate of {fpr:g} by 999 null captions on 2030-01-01"


def test_what_is_written_is_read(tmp_path):
    path = tmp_path / "new" / "threshold.json"
    write(path, CHOSEN)
    assert json.loads(path.read_text()) == {
        "format": "overscan threshold 1",
        "scan_id": "scan",
        "score": "s_v1",
        "value": 1.25,
        "date": "2030-01-01",
        "prompts": 1000,
        "quantile": 0.999,
        "fpr": None,
        "null_captions": None,
    }
    assert read(path) == CHOSEN
    assert [file.name for file in path.parent.iterdir()] == ["threshold.json"]


def test_another_scan_or_score_is_refused():
    CHOSEN.check("scan", "s_v1")
    CHOSEN.check("scan", None)
    with pytest.raises(
        ScannerError, match="the threshold is of scan_id scan, the scan has other: scores of other models"
    ):
        CHOSEN.check("other", "s_v1")
    with pytest.raises(ScannerError, match="the threshold is of s_v1, the report by r_v1: choose one for that score"):
        CHOSEN.check("scan", "r_v1")
    other = replace(null(), scan_id="other")
    with pytest.raises(ScannerError, match="the calibration is of scan_id other, the scan has scan"):
        choose(stored([1.0]), Rule("s_v1", fpr=0.1), "2030-01-01", other)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file; `overscan threshold --store STORE --out"),
        ("", "not a threshold"),
        ("[]", "not a threshold"),
        ('{"format": "overscan threshold 2"}', "this overscan reads 'overscan threshold 1'"),
        ('{"format": "overscan threshold 1", "value": 1}', "not a threshold .KeyError.'scan_id'"),
        ('{"format": "overscan threshold 1", "scan_id": "s", "score": "s_v1", "value": 1, "date": "d", "prompts": 1}',
         "needed a quantile, or fpr and null_captions"),
        ('{"format": "overscan threshold 1", "scan_id": "s", "score": "s_v1", "value": NaN, "date": "d", "prompts": 1, '
         '"quantile": 0.9}', "value: needed a finite number"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_threshold_is_refused(tmp_path, content, message):
    path = tmp_path / "threshold.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ScannerError, match=message):
        read(path)


def test_only_a_threshold_is_written_over(tmp_path):
    path = tmp_path / "threshold.json"
    for held in ("captions", "[]", '{"format": "overscan baseline 1"}', '{"mine": 1}'):
        path.write_text(held)
        with pytest.raises(ScannerError, match="another file is there, and no kept threshold"):
            write(path, CHOSEN)
        assert path.read_text() == held
    path.write_text('{"format": "overscan threshold 0"}')
    write(path, CHOSEN)
    assert read(path) == CHOSEN
    assert path.read_text().splitlines()[1] == ' "format": "overscan threshold 1",'


def test_a_quantile_is_the_captions_own_whatever_the_calibration():
    with_null = choose(stored([0.5, 1.5]), Rule("s_v1", quantile=0.9), "2030-01-01", null())
    assert (with_null.quantile, with_null.fpr, with_null.value) == (0.9, None, 1.5)


def test_there_is_no_threshold_where_a_screen_left_nothing():
    nothing = prompts([0.0]).with_columns(status=pl.lit(SCREENED_OUT), s_v1=pl.lit(None, pl.Float32))
    with pytest.raises(ScannerError, match="no prompt has a score to choose a threshold from"):
        choose(stored_scan(nothing, pl.LazyFrame(), [("a dog", 0.5)]), Rule("s_v1", quantile=0.5), "2030-01-01")
