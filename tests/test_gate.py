"""`overscan gate`: a scan's numbers, prompt by prompt."""

import json
import subprocess
import sys

import polars as pl
import pytest
from click.testing import CliRunner
from small import BUNDLE
from test_cli import run

from scanner.cli import cli

SCORE = "low_noise_norm_v1"
MODEL = ("--model", str(BUNDLE), "--backend", "cpu", "--batch-size", "8")
TEXTS = ["a dog", "hot dog on teal", "a red kite in the evening"]


@pytest.fixture(scope="module")
def scanned(tmp_path_factory):
    """A store with TEXTS, and its scores by prompt_id."""
    folder = tmp_path_factory.mktemp("gate")
    (folder / "c.txt").write_text("\n".join(TEXTS))
    assert run("scan", folder / "c.txt", *MODEL, "--store", folder / "store")[2] == 0
    run("report", "--store", folder / "store", "--out", folder / "report", "--top", "3")
    return folder, dict(pl.read_parquet(folder / "report/scores.parquet").select("prompt_id", SCORE).iter_rows())


def answered(out):
    return [json.loads(line) for line in out.splitlines()]


def test_answers_are_the_numbers_of_a_scan(scanned):
    _, scores = scanned
    middle = sorted(scores.values())[1]
    out, _, code = run("gate", *TEXTS, *MODEL, "--score", SCORE, "--threshold", middle)
    found = answered(out)
    assert code == 0
    assert {answer["prompt_id"]: answer["score"] for answer in found} == pytest.approx(scores, rel=1e-5)
    assert sorted(answer["verdict"] for answer in found) == ["hold", "hold", "pass"]  # the threshold itself holds


def test_lines_of_stdin_that_have_no_score_are_unknown():
    lines = b" a dog \r\n\n\xff\xfe\na dog\n"
    result = CliRunner().invoke(cli, ["gate", *MODEL, "--score", SCORE, "--threshold", "99"], input=lines)
    found = answered(result.stdout)
    assert [answer["verdict"] for answer in found] == ["pass", "unknown", "unknown", "pass"]
    assert [answer["score"] is None for answer in found] == [False, True, True, False]
    assert found[0] == found[3]


def test_a_kept_threshold_holds_for_its_scan_alone(scanned):
    folder, scores = scanned
    kept = folder / "threshold.json"
    run("threshold", "--store", folder / "store", "--out", kept, "--score", SCORE, "--quantile", "0.9")
    out, _, code = run("gate", *TEXTS, *MODEL, "--threshold", kept)
    assert (code, [answer["verdict"] for answer in answered(out)].count("hold")) == (0, 1)
    assert max(scores, key=scores.get) == next(a["prompt_id"] for a in answered(out) if a["verdict"] == "hold")
    out, err, code = run("gate", *TEXTS, *MODEL, "--seeds", 3, "--threshold", kept)
    assert (out, code) == ("", 2)
    assert "the threshold is of scan_id" in err


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--threshold", "1"], f"a threshold is a number of one score: name it, such as --score {SCORE}"),
        (["--threshold", "1", "--score", "estimate_ratio_white_v1"], "estimate_ratio_white_v1: these settings give "),
        (["--threshold", "1", "--score", "text_noise_norm_v1"], "text_noise_norm_v1: these settings give "),
        (["--threshold", "1", "--score", SCORE, "--first-steps", "2"], f"{SCORE}: these settings give "),
    ],
)
def test_a_score_that_cannot_be_is_refused(given, message):
    out, err, code = run("gate", "a dog", *MODEL, *given)
    assert (out, code) == ("", 2)
    assert message in err


def test_each_line_is_answered_as_it_comes():
    command = [sys.executable, "-m", "scanner", "gate", *MODEL, "--score", SCORE, "--threshold", "99"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as service:
        for text in TEXTS[:2]:
            service.stdin.write(f"{text}\n")
            assert json.loads(service.stdout.readline())["verdict"] == "pass"  # while stdin stays open
        service.stdin.close()
        assert service.wait(30) == 0
