"""Reports for other programs, read by the programs' own parsers."""

import json
import re
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from junitparser import Failure, JUnitXml
from prometheus_client.parser import text_string_to_metric_families
from reports import HOSTILE, SUMMARY, contents
from sarif import loader
from small import BUNDLE
from test_cli import run

from scanner.audit.summary import Findings
from scanner.errors import ScannerError
from scanner.report.handover import PLACES, hand_over


def night(texts=HOSTILE, flagged=3, known=()):
    """Contents whose `flagged` best are new findings, but for those at `known` places."""
    made = contents(texts, flagged)
    kinds = ["known" if i in known else "new" if i < flagged else None for i in range(len(texts))]
    findings = {"finding": pl.Series(kinds, dtype=pl.String)}
    ranked = made.ranked.with_columns(**findings)
    return replace(made, ranked=ranked)


@pytest.fixture
def written(tmp_path):
    def write(made, summary=SUMMARY):
        places = {"metrics": tmp_path / "m/o.prom", "junit": tmp_path / "j.xml", "sarif": tmp_path / "s.sarif"}
        assert hand_over(places | {"other": None}, made, summary) == list(places.values())
        return places

    return write


def test_prometheus_reads_the_metrics(written):
    summary = replace(
        SUMMARY, prompts=10, scored=8, flagged=3, flagged_rows=6, findings=Findings(2, 1, 0), notes=("drift: so far",)
    )
    made = night()
    text = written(made, summary)["metrics"].read_text()
    found = {
        (sample.name, sample.labels.get("finding")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert {family.type for family in text_string_to_metric_families(text)} == {"gauge"}
    assert found == {
        ("overscan_prompts", None): 10,
        ("overscan_scored", None): 8,
        ("overscan_pending", None): 0,
        ("overscan_flagged", None): 3,
        ("overscan_flagged_rows", None): 6,
        ("overscan_findings", "new"): 2,
        ("overscan_findings", "known"): 1,
        ("overscan_findings", "allowed"): 0,
        ("overscan_drift", None): 1,
        ("overscan_report_finished_timestamp_seconds", None): made.made.timestamp(),
        ("overscan_report_info", None): 1,
    }
    assert 'overscan_report_info{scan_id="scan",score="s_v1",kind="ranking"} 1' in text


def test_junit_fails_for_each_new_finding(written):
    made = night(known=[1])
    (suite,) = JUnitXml.fromfile(str(written(made)["junit"]))
    assert (suite.name, suite.tests, suite.failures) == ("overscan", 2, 2)
    cases = list(suite)
    assert [case.name.split()[0] for case in cases] == ["00000000"] * 2
    assert "<script>" in cases[0].name
    assert "onerror" in cases[1].name
    (failure,) = cases[0].result
    assert isinstance(failure, Failure)
    assert failure.message.startswith("likely memorized, to be verified: rank 1, ")
    assert failure.text.splitlines()[0] == f"{made.flagged['file'][0]} row {made.flagged['row'][0]}"


def test_a_night_without_new_findings_passes(written):
    places = written(night(known=range(3)), replace(SUMMARY, scored=12))
    (suite,) = JUnitXml.fromfile(str(places["junit"]))
    assert (suite.tests, suite.failures, [case.name for case in suite]) == (
        1, 0, ["no new finding among 12 scored prompts"],
    )  # fmt: skip
    assert json.loads(places["sarif"].read_text())["runs"][0]["results"] == []


def test_captions_as_hostile_as_they_come_stay_one_finding_each(written):
    places = written(night(flagged=len(HOSTILE)))
    (suite,) = JUnitXml.fromfile(str(places["junit"]))
    assert suite.tests == len(HOSTILE)
    assert max(len(case.name) for case in suite) < 600
    results = loader.load_sarif_file(str(places["sarif"])).get_results()
    assert len(results) == len(HOSTILE)
    assert not any("\x1b" in case.name or "\0" in case.name for case in suite)


def test_sarif_names_rows_and_the_prompt(written):
    made = night(known=[1])
    file = loader.load_sarif_file(str(written(made)["sarif"]))
    assert (file.get_result_count(), file.get_distinct_tool_names()) == (2, ["overscan"])
    record = file.get_records()[0]
    assert (record["Code"], record["Severity"]) == ("likely-memorized", "warning")
    result = file.get_results()[0]
    assert result["partialFingerprints"] == {"promptId/v1": made.prompts["prompt_id"][0]}
    bearing = made.flagged.filter(prompt_id=made.prompts["prompt_id"][0])
    assert result["properties"]["rows"] == [
        {"file": file, "row": row} for file, row in bearing.select("file", "row").head(PLACES).iter_rows()
    ]
    assert result["properties"]["rank"] == 1
    uris = [place["physicalLocation"]["artifactLocation"]["uri"] for place in result["locations"]]
    assert uris == bearing["file"].unique(maintain_order=True).to_list()


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ScannerError, match=r"o\.prom: cannot be written"):
        hand_over({"metrics": tmp_path / "file" / "o.prom"}, night(), SUMMARY)


def test_a_report_hands_over_what_it_says(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secret.txt").write_text("Ada Lovelace's kite\na bell\n\n")
    assert (
        run("scan", "secret.txt", "--model", BUNDLE, "--store", "store", "--backend", "cpu", "--batch-size", 4)[2] == 0
    )
    forms = ["--metrics", "out/o.prom", "--junit", "out/j.xml", "--sarif", "out/s.sarif"]
    _, err, code = run("report", "--store", "store", "--out", "report", "--top", 1, "--redact", *forms)
    assert code == 0, err
    assert "out/o.prom, out/j.xml, out/s.sarif" in err
    texts = {path.name: path.read_text() for path in (tmp_path / "out").iterdir()}
    assert texts.keys() == {"o.prom", "j.xml", "s.sarif"}
    assert not any("Lovelace" in text or str(tmp_path) in text for text in texts.values())
    assert "overscan_prompts 3\n" in texts["o.prom"]
    assert "overscan_scored 2\n" in texts["o.prom"]
    (result,) = loader.load_sarif_file("out/s.sarif").get_results()
    flagged = pl.read_parquet("report/flagged.parquet")
    assert result["partialFingerprints"]["promptId/v1"] == flagged["prompt_id"][0]
    assert result["properties"]["rows"] == [{"file": flagged["file"][0], "row": flagged["row"][0]}]
    assert JUnitXml.fromfile("out/j.xml").failures == 1


@pytest.mark.parametrize("library", ["polars", "datasets"])
def test_the_filters_of_the_page_drop_what_a_report_names(tmp_path, monkeypatch, library):
    datasets = pytest.importorskip("datasets") if library == "datasets" else None
    page = (Path(__file__).parent.parent / "docs/handover.md").read_text()
    section = page[page.index("## Datasets without the findings") :]
    by_polars, by_datasets = re.findall(r"```python\n(.*?)```", section, re.DOTALL)[:2]
    monkeypatch.chdir(tmp_path)
    captions = tmp_path / "captions.parquet"
    pl.DataFrame({"caption": list("abcdef"), "n": range(6)}).write_parquet(captions)
    (tmp_path / "report").mkdir()
    rows = {"file": [str(captions), "/other.parquet", str(captions)], "row": [1, 2, 4]}
    pl.DataFrame(rows, schema={"file": pl.String, "row": pl.UInt32}).write_parquet("report/rows_to_drop.parquet")
    names = {"pl": pl}
    if datasets is None:
        *first, last = by_polars.replace("/data/captions.parquet", str(captions)).strip().splitlines()
        exec("\n".join([*first, f"clean = {last}"]), names)
        kept = names["clean"]["caption"].to_list()
    else:
        named = {"split": "train", "cache_dir": str(tmp_path / "cache")}
        names["dataset"] = datasets.load_dataset("parquet", data_files=str(captions), **named)
        exec(by_datasets.replace("/data/captions.parquet", str(captions)), names)
        kept = list(names["clean"]["caption"])
    assert kept == list("acdf")
