"""The recipes, run: their commands are taken from the files themselves."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from small import BUNDLE, CAPTIONS, LABELS

from scanner.cli import cli
from scanner.cli.settings import load

ROOT = Path(__file__).parent.parent
RECIPES = ROOT / "recipes"


@pytest.fixture
def site(tmp_path):
    """A folder as the recipes want it, with a little of the small model's captions, and `overscan` on the PATH."""
    (tmp_path / "bin").mkdir()
    program = f"#!{sys.executable}\nfrom scanner.cli import main\nmain()\n"
    (tmp_path / "bin/overscan").write_text(program)
    (tmp_path / "bin/overscan").chmod(0o755)
    (tmp_path / "captions").mkdir()
    shutil.copy(CAPTIONS, tmp_path / "captions")
    (tmp_path / "bundle").symlink_to(BUNDLE)
    shutil.copy(RECIPES / "nightly.sh", tmp_path)
    settings = (RECIPES / "overscan.toml").read_text()
    (tmp_path / "overscan.toml").write_text(settings.replace("[scan]\n", "[scan]\nlimit = 60\n"))
    return tmp_path


def bash(site, command, **environment):
    """Exit code of a command in that folder."""
    environment = os.environ | {"PATH": f"{site / 'bin'}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)} | environment
    return subprocess.run(["bash", "-e", "-c", command], cwd=site, env=environment, check=False).returncode


def test_the_settings_are_known():
    known = {name: [str(item.name) for item in command.params] for name, command in cli.commands.items()}
    assert load(RECIPES / "overscan.toml", known)["scan"]["inputs"] == ["captions/"]


def reports(site):
    """Folders of reports, oldest first."""
    return sorted((site / "reports").iterdir())


def forget(site):
    """Make the baseline one that knows no finding."""
    baseline = json.loads((site / "baseline.json").read_text())
    assert baseline["prompt_ids"]
    (site / "baseline.json").write_text(json.dumps(baseline | {"prompt_ids": []}))


def test_cron(site):
    (line,) = re.findall(r"^30 2 \* \* \* (.*)$", (RECIPES / "crontab").read_text(), re.MULTILINE)
    command = line.replace("/srv/overscan", str(site))
    assert bash(site, f"({command}) >said") == 0
    assert "scored now" in (site / "nightly.log").read_text()
    (report,) = reports(site)
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", report.name)
    assert (report / "flagged.csv").is_file()
    assert bash(site, f"({command}) >>said") == 0
    assert (site / "said").read_text() == ""  # cron mails what is said
    forget(site)
    assert bash(site, f"({command}) >said") == 0
    assert (site / "said").read_text() == "overscan: exit code 1\n"
    shutil.rmtree(site / "captions")
    assert bash(site, f"({command}) >said") == 0
    assert (site / "said").read_text() == "overscan: exit code 2\n"


def test_only_new_findings_fail_a_night(site):
    """The first night writes the baseline; what the script says accepts a night's findings does so."""
    script = (RECIPES / "nightly.sh").read_text()
    (accept,) = re.findall(r"^#   (overscan accept .*)DATE$", script, re.MULTILINE)
    assert bash(site, "./nightly.sh", NIGHT="2026-01-01") == 0
    assert bash(site, "./nightly.sh", NIGHT="2026-01-02") == 0
    forget(site)
    assert bash(site, "./nightly.sh", NIGHT="2026-01-03") == 1
    assert [report.name for report in reports(site)] == ["2026-01-01", "2026-01-02", "2026-01-03"]
    findings = [json.loads((report / "summary.json").read_text())["findings"] for report in reports(site)]
    assert [(night["new"] > 0, night["known"] > 0) for night in findings] == [
        (True, False),
        (False, True),
        (True, False),
    ]
    assert bash(site, f"{accept}2026-01-03") == 0
    assert bash(site, "./nightly.sh", NIGHT="2026-01-04") == 0


@pytest.fixture(scope="module")
def sorts():
    """Captions of the small model that full generation did not reproduce, and that it did."""
    truth = pl.read_parquet(LABELS).select("prompt", "label").drop_nulls().sort("prompt")
    return [truth.filter(label=label)["prompt"].to_list() for label in (False, True)]


def lines(site, name, captions):
    (site / "captions" / name).write_text("\n".join(captions) + "\n")


def flagged(site, night):
    found = pl.read_parquet(site / "reports" / night / "scores.parquet").filter("flagged")
    return {finding: set(part["text"]) for (finding,), part in found.group_by("finding")}


@pytest.mark.parametrize("calibrated", [False, True])
def test_a_clean_night_is_silent_and_a_burst_is_seen_whole(site, sorts, calibrated):
    """Clean captions raise no alarm on the second night; of three memorized ones on the third, exactly these are new.

    A quantile taken anew each night sees one of the three: of 603 captions its 0.999 is the highest alone.
    """
    clean, memorized = sorts
    burst = ["compass on red", "necktie on black picture", "credit card on brown"]
    assert set(burst) <= set(memorized)
    (site / "captions/captions.parquet").unlink()
    settings = (site / "overscan.toml").read_text()
    (site / "overscan.toml").write_text('timesteps = "first"\n' + settings.replace("limit = 60\n", ""))
    lines(site, "monday.txt", clean[:400])
    if calibrated:
        lines(site, "../null.txt", clean[1000:1400])
        calibrate = "overscan calibrate null.txt --model bundle --store store --out calibration.parquet"
        assert bash(site, calibrate) == 0
    assert bash(site, "./nightly.sh", NIGHT="2026-01-01", FPR="0.0025") == 0
    lines(site, "tuesday.txt", clean[400:600])
    assert bash(site, "./nightly.sh", NIGHT="2026-01-02") == 0
    assert "new" not in flagged(site, "2026-01-02")
    lines(site, "wednesday.txt", burst)
    assert bash(site, "./nightly.sh", NIGHT="2026-01-03") == 1
    assert flagged(site, "2026-01-03")["new"] == set(burst)
    assert bash(site, "overscan report --out ranked --quantile 0.999") == 0
    ranked = pl.read_parquet(site / "ranked/scores.parquet").filter("flagged")["text"].to_list()
    assert len(set(ranked) & set(burst)) == 1
    assert bash(site, "overscan accept --baseline baseline.json --report reports/2026-01-03") == 0
    assert bash(site, "./nightly.sh", NIGHT="2026-01-04") == 0


def test_a_window_that_closes_is_no_failure(site):
    """Exit code 3 of the scan: the report still runs, here on a night that was stopped before it began.

    Where not all captions are scored no baseline is made, or all the rest would be new.
    """
    assert bash(site, "overscan scan") == 0
    (site / "bin/timeout").write_text("#!/bin/sh\nexit 3\n")
    (site / "bin/timeout").chmod(0o755)
    assert bash(site, "./nightly.sh") == 0
    assert (reports(site)[0] / "flagged.csv").is_file()
    assert not (site / "baseline.json").exists()
    assert not (site / "threshold.json").exists()
    (site / "bin/timeout").write_text("#!/bin/sh\nexit 4\n")
    assert bash(site, "./nightly.sh") == 4


def test_github_actions(site):
    """All steps but those of GitHub's own actions and the installation."""
    name, *steps = re.findall(r"^        run: (.*)$", (RECIPES / "github-actions.yml").read_text(), re.MULTILINE)
    page, variables = site / "page.md", site / "variables"
    assert bash(site, name, GITHUB_ENV=str(variables)) == 0
    (key, night), *more = (line.split("=") for line in variables.read_text().splitlines())
    assert (key, more) == ("NIGHT", [])
    assert [bash(site, step, NIGHT=night, GITHUB_STEP_SUMMARY=str(page)) for step in steps] == [0, 0]
    assert page.read_text() == (site / "reports" / night / "summary.md").read_text()
    assert (site / "baseline.json").is_file()
    forget(site)
    assert [bash(site, step, NIGHT=night, GITHUB_STEP_SUMMARY=str(page)) for step in steps] == [1, 0]


def test_airflow(site):
    tree = ast.parse((RECIPES / "airflow_dag.py").read_text())
    keywords = (word for node in ast.walk(tree) if isinstance(node, ast.Call) for word in node.keywords)
    commands = [ast.literal_eval(word.value) for word in keywords if word.arg == "bash_command"]
    shutil.copy(RECIPES / "openlineage_event.py", site)
    (site / "bin/python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (site / "bin/python").chmod(0o755)
    transport = {"type": "file", "log_file_path": str(site / "events"), "append": True}
    (site / "openlineage.yml").write_text(json.dumps({"transport": transport}))
    assert commands == [
        "overscan scan --json",
        "test -e threshold.json || overscan threshold",
        "overscan report",
        "overscan evidence report --out evidence.json && python openlineage_event.py evidence.json",
    ]
    for command in commands * 2:
        assert bash(site, command) == 0
    summary = json.loads((site / "report/summary.json").read_text())
    assert summary["kept"]["quantile"] == 0.999
    first, second = map(json.loads, (site / "events").read_text().splitlines())
    assert first["eventType"] == "COMPLETE"
    assert first["run"]["runId"] != second["run"]["runId"]
    (read,), (made,) = second["inputs"], second["outputs"]
    assert (read["namespace"], read["name"]) == ("file", str(site / "captions/captions.parquet"))
    (assertion,) = read["facets"]["dataQualityAssertions"]["assertions"]
    assert assertion["assertion"] == "no new memorized captions"
    assert assertion["success"] == (summary["findings"]["new"] == 0)
    assert made["name"] == str(site / "report")
    assert made["outputFacets"]["outputStatistics"]["rowCount"] == summary["flagged_rows"]


def test_a_croissant_card_tells_of_the_scan(site):
    croissant = pytest.importorskip("mlcroissant")
    card = {
        "@context": {"@language": "en", "@vocab": "https://schema.org/", "sc": "https://schema.org/",
                     "cr": "http://mlcommons.org/croissant/", "dct": "http://purl.org/dc/terms/",
                     "conformsTo": "dct:conformsTo"},
        "@type": "sc:Dataset", "name": "captions", "description": "Captions of artwork.", "url": "https://data.test",
        "license": "https://creativecommons.org/publicdomain/zero/1.0/", "version": "1.0.0",
        "datePublished": "2026-01-01",
        "citeAs": "none", "conformsTo": "http://mlcommons.org/croissant/1.0",
        "rai:dataLimitations": "English only.",
    }  # fmt: skip
    (site / "croissant.json").write_text(json.dumps(card))
    (site / "recipes").symlink_to(RECIPES)
    page = (ROOT / "docs/handover.md").read_text()
    (commands,) = re.findall(r"```sh\n(overscan evidence .*?)```", page, re.DOTALL)
    commands = commands.replace("python ", f"{sys.executable} ")
    for command in ("overscan scan", "overscan report --quantile 0.9", commands):
        assert bash(site, command) == 0
    once = (site / "croissant.json").read_text()
    assert bash(site, f"{sys.executable} recipes/croissant_rai.py croissant.json evidence.json") == 0
    assert (site / "croissant.json").read_text() == once
    read = croissant.Dataset(jsonld=site / "croissant.json").metadata
    summary = json.loads((site / "report/summary.json").read_text())
    (scanned,) = read.data_preprocessing_protocol
    assert f"scan {summary['scan_id']}, {summary['date']}): {summary['headline']}; {summary['flagged_rows']}" in scanned
    assert read.data_limitations[0] == "English only."
    assert len(read.data_limitations) == 4
    assert not read.ctx.issues.errors


@pytest.mark.slow
def test_nemo_curator_leaves_out_the_rows_that_a_report_names(site):
    pytest.importorskip("nemo_curator")
    shutil.copy(RECIPES / "nemo_curator_filter.py", site)
    pl.read_parquet(CAPTIONS).head(20).write_parquet(site / "captions/again.parquet")
    settings = (site / "overscan.toml").read_text()
    (site / "overscan.toml").write_text(settings.replace("limit = 60\n", ""))
    (command,) = re.findall(r"&& (python nemo_.*)", (RECIPES / "nemo_curator_filter.py").read_text())
    command = command.replace("python ", f"{sys.executable} ")
    assert bash(site, "overscan scan --limit 60 && overscan report --quantile 0.9") == 0
    drop = pl.read_parquet(site / "report/rows_to_drop.parquet")
    assert drop["file"].n_unique() == 2
    assert bash(site, command) == 0
    left = pl.concat([pl.read_parquet(file) for file in (site / "clean").glob("*.parquet")])
    rows = [
        pl.read_parquet(file).with_row_index("row").with_columns(file=pl.lit(str(file)))
        for file in (site / "captions").glob("*.parquet")
    ]
    kept = pl.concat(rows).join(drop, on=["file", "row"], how="anti")
    assert sorted(left["caption"]) == sorted(kept["caption"])
    assert len(left) == sum(map(len, rows)) - len(drop)
    pl.read_parquet(CAPTIONS).head(1).write_parquet(site / "captions/again.parquet")
    assert bash(site, command.replace("clean/", "other/")) != 0  # rows are named that the file no longer has
    assert not list((site / "other").glob("*.parquet"))


def test_docker_images_take_extras_and_commands_that_exist():
    for name in ("Dockerfile", "Dockerfile.gpu"):
        text = (RECIPES / name).read_text()
        assert "STOPSIGNAL SIGTERM" in text
        assert "not built by our tests" in text or "NOT RUN" in text
