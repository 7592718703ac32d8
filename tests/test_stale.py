"""Kept files of another scan than the newest are named, with what to do."""

import pytest
from decisions import null
from test_baseline import A, at
from test_kept import CHOSEN

from scanner.audit import baseline, kept
from scanner.audit.stale import KINDS, Held, examine, sentence, uncalibrated
from scanner.store.status import ScanStatus, StoreStatus


def store(newest="scan", calibrates=None, **calibrations):
    """Scans by id with the number of their calibrations; `newest` began last."""
    known = {"config": None, "reference": None, "screening": None, "lacks": (), "rows": {}, "runs": 1}
    named = {"model": "m", "backend": "cpu", "precision": "float32", "provider": "p", "purpose": "scan", "last_run": ""}
    scans = tuple(ScanStatus(scan_id=name, calibrations=n, **known, **named) for name, n in calibrations.items())
    return StoreStatus("store", scans, {}, newest, newest if calibrates is None else calibrates)


@pytest.fixture
def files(tmp_path):
    kept.write(tmp_path / "t.json", CHOSEN)
    baseline.accept(tmp_path / "b.json", [A], at(1))
    return {"threshold": tmp_path / "t.json", "baseline": tmp_path / "b.json", "calibration": tmp_path / "none"}


def test_files_of_the_newest_scan_hold(files):
    for newest in (store("scan"), store("screened", "scan")):
        found = examine(files | {"calibration": None}, newest)
        assert [(held.what, held.of, held.holds, held.remedy) for held in found] == [
            ("threshold", "scan", True, ""),
            ("baseline", "scan", True, ""),
        ]
    assert sentence(found[0]) == f"threshold {files['threshold']}: of the newest scan, scan"
    (missing,) = examine({"calibration": files["calibration"]}, store("scan"))
    assert sentence(missing) == f"calibration {files['calibration']}: not there"


def test_files_of_another_scan_are_stale(files):
    said = [sentence(held) for held in examine(files, store("other"))]
    assert said == [
        f"threshold {files['threshold']}: stale, of scan scan: a report refuses it: `overscan threshold`, or `overscan "
        "recheck`",
        f"baseline {files['baseline']}: stale, of scan scan: its findings stay known, and a report says that they were "
        "accepted under another scan",
        f"calibration {files['calibration']}: not there",
    ]
    assert sentence(Held("calibration", "c", "scan", False, KINDS["calibration"][1])) == (
        "calibration c: stale, of scan scan: a report refuses it: `overscan calibrate` with the scan's settings, or "
        "`recheck`"
    )
    assert null().scan_id == "scan"


def test_a_scan_that_was_never_calibrated_is_said_where_others_were():
    assert uncalibrated(store("b", a=0, b=0)) is None
    assert uncalibrated(store("b", a=1, b=1)) is None
    assert uncalibrated(store("screened", "a", screened=0, a=1)) is None
    assert uncalibrated(store(None, None, a=1)) is None
    assert uncalibrated(store("b", a=1, b=0)) == (
        "null captions were scored for a, and not for the newest scan, b: a calibration of those is refused; calibrate "
        "again, or see `overscan recheck`"
    )
