"""docs/formats.md says what is written: its tables against a store, a report, a calibration, a baseline, a bundle."""

import json
import re
from pathlib import Path

import polars as pl
import pytest
from small import BUNDLE
from test_cli import run

from scanner.audit import baseline, calibrate, kept, summary
from scanner.diffusion.scores import SCORES
from scanner.report import formats
from scanner.store import record, tables

PAGE = (Path(__file__).parent.parent / "docs/formats.md").read_text()


def section(title):
    """The rows of the tables under a heading: [[cell, ...], ...] without their heads."""
    (text,) = re.findall(rf"^###? {re.escape(title)}\n(.*?)(?=^##|\Z)", PAGE, re.DOTALL | re.MULTILINE)
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def listed(title, head):
    """The rows of the table under a heading whose first head this is, names without their quotes."""
    rows = section(title)
    start = next(i for i, row in enumerate(rows) if row[0] == head) + 2
    return [[name.strip("`"), *rest] for name, *rest in rows[start:]]


def columns(title):
    """{name: type} of the table of columns under a heading."""
    found = {}
    for name, dtype, *_ in listed(title, "column"):
        scores = name.startswith("a column per score")
        found |= dict.fromkeys(SCORES, dtype) if scores else {name: dtype}
    return found


def keys(title):
    """Names in the table of keys under a heading."""
    return [name for name, *_ in listed(title, "key")]


def schema(frame):
    return {name: str(dtype) for name, dtype in frame.schema.items()}


@pytest.fixture(scope="module")
def night(tmp_path_factory):
    folder = tmp_path_factory.mktemp("formats")
    (folder / "data.txt").write_text("credit card on brown\na caption nobody saw\nchristmas tree\n")
    (folder / "null.txt").write_text("\n".join(f"a plain sentence number {i}" for i in range(19)))
    made = ["--model", BUNDLE, "--store", folder / "store"]
    asked = ["--score", "low_noise_norm_v1", "--calibration", folder / "cal.parquet", "--fpr", "0.5"]
    for command in (
        ["scan", folder / "data.txt", *made],
        ["calibrate", folder / "null.txt", *made, "--out", folder / "cal.parquet"],
        ["report", *made[2:], "--out", folder / "report", *asked, "--write-baseline", folder / "baseline.json"],
        ["threshold", *made[2:], "--score", "low_noise_norm_v1", "--out", folder / "threshold.json"],
    ):
        _, err, code = run(*command)
        assert code == 0, err
    return folder


def test_the_store(night):
    runs = pl.read_delta(str(night / "store/runs"))
    assert schema(pl.read_delta(str(night / "store/scores"))) == columns("Table `scores`")
    assert schema(runs) == columns("Table `runs`")
    assert all(list(json.loads(text)) == keys("A run's record") for text in runs["record"])


def test_the_reports_files(night):
    assert sorted(path.name for path in (night / "report").iterdir()) == sorted(formats.FILES)
    assert schema(pl.read_parquet(night / "report/scores.parquet")) == columns("`scores.parquet`")
    flagged = columns("`flagged.parquet`")
    assert schema(pl.read_parquet(night / "report/flagged.parquet")) == flagged
    empty = [name for name in SCORES if pl.read_parquet(night / "report/flagged.parquet")[name].null_count()]
    assert len(empty) > 3  # what two seeds and one step do not give
    assert pl.read_csv(night / "report/flagged.csv").columns == [name for name in flagged if name not in empty]
    assert list(json.loads((night / "report/flagged.jsonl").read_text().splitlines()[0])) == list(flagged)
    assert schema(pl.read_parquet(night / "report/rows_to_drop.parquet")) == {
        name: flagged[name] for name in ("file", "row")
    }
    found = json.loads((night / "report/summary.json").read_text())
    assert list(found) == keys("`summary.json`")
    assert list(found["calibration"]) == keys("`calibration` in `summary.json`")
    assert list(found["evidence"]) == keys("`evidence` in `summary.json`")


def test_the_calibration_the_baseline_and_the_bundle(night):
    assert schema(pl.read_parquet(night / "cal.parquet")) == columns("Columns of a calibration")
    head = json.loads(pl.read_parquet_metadata(night / "cal.parquet")[calibrate.KEY])
    assert list(head) == keys("Metadata of a calibration")
    baseline = json.loads((night / "baseline.json").read_text())
    assert list(baseline) == keys("A baseline")
    entries = [row for row in section("A baseline") if row[0] == "`accepted`"]
    assert all(f"`{key}`" in entries[0][1] for entry in baseline["accepted"].values() for key in entry)
    assert list(json.loads((night / "threshold.json").read_text())) == keys("A threshold")
    assert list(json.loads((BUNDLE / "engine.json").read_text())) == keys("A bundle")


def test_the_versions_that_it_names():
    assert f"`{tables.KIND} {tables.FORMAT}`" in PAGE
    assert f"`{summary.FORMAT}`" in PAGE
    assert f"`{baseline.FORMAT}`" in PAGE
    assert f"`{kept.FORMAT}`" in PAGE
    for title, version in (("A run's record", record.VERSION), ("`summary.json`", summary.VERSION)):
        (said,) = [row[1] for row in section(title) if row[0] == "`version`"]
        assert said == f"{version}; absent in the first edition's"
