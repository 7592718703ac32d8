"""Bad calibrations, baselines, allow-lists and reports."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl

from scanner.audit.calibrate import KEY
from tools.bad_inputs.case import Case, overscan

REPORT = "report --store store --out out"
DECISION = f"{REPORT} --calibration calibration.parquet --fpr 0.5"
BASELINE = f"{REPORT} --baseline baseline.json"
ALLOW = f"{REPORT} --allow allow.csv"
VERIFY = "verify --report report --model bundle --out verified"
EXPLAIN = "explain --report report --model bundle"
ID = "0123456789abcdef0123456789abcdef"
Spoil = Callable[[Path], object]


def half(name: str) -> Spoil:
    def spoil(folder: Path) -> None:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) // 2])

    return spoil


def calibration(change: Callable[[dict[str, Any], pl.DataFrame], pl.DataFrame]) -> Spoil:
    """The calibration with another head or other scores."""

    def spoil(folder: Path) -> None:
        path = folder / "calibration.parquet"
        head, scores = json.loads(pl.read_parquet_metadata(path)[KEY]), pl.read_parquet(path)
        scores = change(head, scores)
        scores.write_parquet(path, metadata={KEY: json.dumps(head)})

    return spoil


def later(head: dict[str, Any], scores: pl.DataFrame) -> pl.DataFrame:
    head["format"] = 2
    return scores


def of_one_seed(folder: Path) -> None:
    assert overscan("calibrate benign.txt ... --seeds 1 --out calibration.parquet")[0] == 0


def changed(name: str, **changes: object) -> Spoil:
    def spoil(folder: Path) -> None:
        path = folder / name
        path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes))

    return spoil


baseline, summary = (partial(changed, name) for name in ("baseline.json", "report/summary.json"))


def allow(text: str) -> Spoil:
    return lambda folder: (folder / "allow.csv").write_text(f"prompt_id,reason,expires\n{text}\n")


def written(name: str, content: bytes) -> Spoil:
    return lambda folder: (folder / name).write_bytes(content)


def redacted(folder: Path) -> None:
    assert overscan("report --store store --out report --redact")[0] == 0


CALIBRATIONS = [
    Case("no such calibration", f"{REPORT} --calibration none.parquet"),
    Case("text for a calibration", f"{REPORT} --calibration captions.txt"),
    Case("folder for a calibration", f"{REPORT} --calibration store"),
    Case("calibration cut in half", DECISION, half("calibration.parquet")),
    Case("somebody's parquet", f"{REPORT} --calibration report/scores.parquet"),
    Case("calibration of a later overscan", DECISION, calibration(later)),
    Case("edited calibration", DECISION, calibration(lambda head, scores: scores.head(9))),
    Case("calibration of other settings", DECISION, of_one_seed),
    Case("too few null captions for the rate", f"{REPORT} --calibration calibration.parquet --fpr 0.001"),
    Case("too few null captions to flag at all", f"{REPORT} --calibration calibration.parquet --fdr 0.01"),
    Case("null captions that say nothing", "calibrate a.txt ... --out new.parquet", written("a.txt", b"  \n")),
    Case("calibration into a folder", "calibrate benign.txt ... --out store"),
    Case("calibration over captions", "calibrate benign.txt ... --out benign.txt"),
    Case("calibration where nobody can write", "calibrate benign.txt ... --out /proc/none/new.parquet"),
]
LISTS = [
    Case("no such baseline", f"{REPORT} --baseline none.json"),
    Case("baseline cut in half", BASELINE, half("baseline.json")),
    Case("list for a baseline", BASELINE, written("baseline.json", b"[]")),
    Case("baseline not UTF-8", BASELINE, written("baseline.json", b"\xe9")),
    Case("somebody's JSON", f"{REPORT} --baseline report/summary.json"),
    Case("baseline of a later overscan", BASELINE, baseline(format="overscan baseline 2")),
    Case("baseline of something else than ids", BASELINE, baseline(prompt_ids=["a cat"])),
    Case("baseline of another model", BASELINE, baseline(scan_id="0" * 32)),
    Case("baseline where nobody can write", f"{REPORT} --write-baseline /proc/none/b.json"),
    Case("no such allow-list", f"{REPORT} --allow none.csv"),
    Case("allow-list without header", ALLOW, written("allow.csv", f"{ID},ours,2030-01-01\n".encode())),
    Case("allow-list not UTF-8", ALLOW, written("allow.csv", b"prompt_id,reason,expires\n\xe9\n")),
    Case("entry with too few cells", ALLOW, allow(f"{ID},2030-01-01")),
    Case("entry for a caption", ALLOW, allow("a cat,ours,2030-01-01")),
    Case("entry without reason", ALLOW, allow(f"{ID},,2030-01-01")),
    Case("entry without a date", ALLOW, allow(f"{ID},ours,soon")),
    Case("entry twice", ALLOW, allow(f"{ID},ours,2030-01-01\n{ID},ours,2031-01-01")),
    Case("expired entry for a caption not there", ALLOW, allow(f"{ID},ours,2020-01-01")),
]
THRESHOLD = "threshold --store store --out threshold.json"
ACCEPT = "accept --report report --baseline baseline.json"
RECHECK = "recheck --report report --model bundle --store store --out again"


def kept(**changes: object) -> Spoil:
    """A threshold that was kept, with other facts in it."""

    def spoil(folder: Path) -> None:
        assert overscan(f"{THRESHOLD} --quantile 0.5")[0] == 0
        path = folder / "threshold.json"
        path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes))

    return spoil


def cut(folder: Path) -> None:
    kept()(folder)
    half("threshold.json")(folder)


THRESHOLDS = [
    Case("no such store", "threshold --store none --out threshold.json"),
    Case("no such scan", f"{THRESHOLD} --scan-id 00000000"),
    Case("scan's id too short to tell", f"{THRESHOLD} --scan-id 00"),
    Case("unknown score", f"{THRESHOLD} --score norm"),
    Case("quantile above 1", f"{THRESHOLD} --quantile 2"),
    Case("rate without calibration", f"{THRESHOLD} --fpr 0.01"),
    Case("calibration without a rate", f"{THRESHOLD} --calibration calibration.parquet"),
    Case("two ways at once", f"{THRESHOLD} --quantile 0.9 --fpr 0.1 --calibration calibration.parquet"),
    Case("too few null captions for the rate", f"{THRESHOLD} --calibration calibration.parquet --fpr 0.001"),
    Case("calibration of other settings", f"{THRESHOLD} --calibration calibration.parquet --fpr 0.1", of_one_seed),
    Case("threshold into a folder", "threshold --store store --out store"),
    Case("threshold over another file", "threshold --store store --out captions.txt"),
    Case("threshold where nobody can write", "threshold --store store --out /proc/none/t.json"),
    Case("no such threshold", f"{REPORT} --threshold none.json"),
    Case("somebody's JSON for a threshold", f"{REPORT} --threshold report/summary.json"),
    Case("threshold cut in half", f"{REPORT} --threshold threshold.json", cut),
    Case("threshold of a later overscan", f"{REPORT} --threshold threshold.json", kept(format="overscan threshold 2")),
    Case("threshold of another scan", f"{REPORT} --threshold threshold.json", kept(scan_id="0" * 32)),
    Case("threshold of another score", f"{REPORT} --threshold threshold.json --score concentration_v1", kept()),
    Case("threshold that is no number", f"{REPORT} --threshold threshold.json", kept(value="high")),
]
ACCEPTS = [
    Case("no such report", "accept --report none --baseline baseline.json"),
    Case("folder that is no report", "accept --report store --baseline baseline.json"),
    Case("report cut in half", ACCEPT, half("report/summary.json")),
    Case("baseline cut in half", ACCEPT, half("baseline.json")),
    Case("somebody's file for a baseline", "accept --report report --baseline captions.txt"),
    Case("baseline of a later overscan", ACCEPT, baseline(format="overscan baseline 2")),
    Case("baseline into a folder", "accept --report report --baseline store"),
    Case("baseline where nobody can write", "accept --report report --baseline /proc/none/b.json"),
    Case("URL for a baseline", "accept --report report --baseline s3://bucket/baseline.json"),
    Case("id of no flagged prompt", f"{ACCEPT} --ids ffffffff"),
    Case("id too short to tell", f"{ACCEPT} --ids e6"),
    Case("caption for an id", f"{ACCEPT} --ids barn"),
    Case("last day that has passed", f"{ACCEPT} --expires 2020-01-01"),
    Case("last day that is none", f"{ACCEPT} --expires soon"),
]
RECHECKS = [
    Case("no such report", "recheck --report none --model bundle --store store --out again"),
    Case("report of an older overscan", RECHECK, summary(scan=None)),
    Case("report of another store", RECHECK, summary(scan_id="0" * 32, full_scan_id="0" * 32)),
    Case("no such store", "recheck --report report --model bundle --store none --out again"),
    Case("no such model", "recheck --report report --model none --store store --out again"),
    Case("the model that it was", RECHECK),
    Case("no such null captions", f"{RECHECK} --null none.txt"),
    Case("no such baseline", f"{RECHECK} --baseline none.json"),
    Case("unknown policy", f"{RECHECK} --fail-on sometimes"),
    Case("a screen's model for a scan without one", f"{RECHECK} --screen-model bundle"),
    Case("report into a file", "recheck --report report --model bundle --store store --out captions.txt"),
    Case("over the former report", "recheck --report report --model bundle --store store --out report"),
    Case("URL for a report", "recheck --report report --model bundle --store store --out s3://bucket/again"),
]
REPORTS = [
    Case("no such report", "diff --from none --to report"),
    Case("folder that is no report", "diff --from report --to store"),
    Case(
        "report without its scores", "diff --from report --to report", lambda f: (f / "report/scores.parquet").unlink()
    ),
    Case("report cut in half", "diff --from report --to report", half("report/summary.json")),
    Case("report of a later overscan", "diff --from report --to report", summary(format="overscan report 2")),
    Case("id of no prompt", f"{VERIFY} --ids ffffffff"),
    Case("id too short to tell", f"{EXPLAIN} --ids e6"),
    Case("redacted report", VERIFY, redacted),
    Case("redacted report", EXPLAIN, redacted),
    Case("report of an older overscan", VERIFY, summary(scan=None)),
    Case("report of other settings", f"{EXPLAIN} --seeds 3"),
]
