"""Which kept files - calibration, threshold, baseline - are of another scan than the one that began last."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from scanner.audit import calibrate, kept
from scanner.audit.baseline import read_baseline
from scanner.copies import here, is_file
from scanner.identity import shown
from scanner.places import Place
from scanner.store.status import StoreStatus


@dataclass(frozen=True)
class Held:
    """A file that reports decide by: `of`, the scan_id that it was made for; None: it is not there.

    `holds`: whether it is of the scan that began last; `remedy`: what to do where it is not.
    """

    what: str
    file: str
    of: str | None
    holds: bool
    remedy: str


def _calibration(path: Path) -> str:
    return calibrate.scan_id_of(path)


def _threshold(path: Path) -> str:
    return kept.read(path).scan_id


def _baseline(path: Path) -> str:
    return read_baseline(path).scan_id


KINDS: Mapping[str, tuple[Callable[[Path], str], str]] = {
    "calibration": (_calibration, "a report refuses it: `overscan calibrate` with the scan's settings, or `recheck`"),
    "threshold": (_threshold, "a report refuses it: `overscan threshold`, or `overscan recheck`"),
    "baseline": (_baseline, "its findings stay known, and a report says that they were accepted under another scan"),
}


def examine(files: Mapping[str, Place | None], store: StoreStatus) -> list[Held]:
    """The named files against the newest scan of a store. Raises ScannerError for one that is there and is none."""
    return [_held(what, place, store) for what, place in files.items() if place is not None]


def _held(what: str, place: Place, store: StoreStatus) -> Held:
    read, remedy = KINDS[what]
    if not is_file(place):
        return Held(what, str(place), None, False, "not there")
    of = read(here(place))
    holds = of in (store.newest, store.calibrates)
    return Held(what, str(place), of, holds, "" if holds else remedy)


def sentence(held: Held) -> str:
    """What is to be known of a kept file, in one line."""
    if held.of is None:
        return f"{held.what} {held.file}: not there"
    if held.holds:
        return f"{held.what} {held.file}: of the newest scan, {shown(held.of)}"
    return f"{held.what} {held.file}: stale, of scan {shown(held.of)}: {held.remedy}"


def uncalibrated(store: StoreStatus) -> str | None:
    """Said where null captions were scored for other scans of a store, but not for the newest."""
    calibrated = [scan.scan_id for scan in store.scans if scan.calibrations]
    if store.newest is None or not calibrated or store.calibrates in calibrated:
        return None
    return (
        f"null captions were scored for {', '.join(map(shown, calibrated))}, and not for the newest scan, "
        f"{shown(store.newest)}: a calibration of those is refused; calibrate again, or see `overscan recheck`"
    )
