"""Bad stores."""

import shutil
from collections.abc import Callable
from pathlib import Path

import polars as pl

from tools.bad_inputs.case import Case, overscan

SCAN, REPORT, STATUS = "scan captions.txt ...", "report --store store --out out", "status --store store"
FOREIGN = pl.DataFrame({"price": [1.0]})


def gone(name: str) -> Callable[[Path], object]:
    return lambda folder: shutil.rmtree(folder / name)


def empty(folder: Path) -> None:
    shutil.rmtree(folder / "store")
    (folder / "store").mkdir()


def file(folder: Path) -> None:
    shutil.rmtree(folder / "store")
    (folder / "store").write_text("no folder\n")


def table(frame: pl.DataFrame, description: str | None) -> Callable[[Path], object]:
    """Another Delta table where the scores should be."""

    def spoil(folder: Path) -> None:
        shutil.rmtree(folder / "store/scores")
        frame.write_delta(folder / "store/scores", delta_write_options={"description": description})

    return spoil


def truncated(pattern: str) -> Callable[[Path], object]:
    """The first half of the first file of that name."""

    def spoil(folder: Path) -> None:
        path = min((folder / "store").glob(pattern))
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2])

    return spoil


def removed(pattern: str) -> Callable[[Path], object]:
    return lambda folder: min((folder / "store").glob(pattern)).unlink()


def junk(folder: Path) -> None:
    gone("store/scores")(folder)
    (folder / "store/scores").mkdir()
    (folder / "store/scores/notes.txt").write_text("mine\n")


def only_calibrated(folder: Path) -> None:
    gone("store")(folder)
    assert overscan("calibrate benign.txt ... --out other.parquet")[0] == 0


def moved_captions(folder: Path) -> None:
    (folder / "other.txt").write_text("a green door\n")
    assert overscan("scan other.txt ...")[0] == 0
    (folder / "other.txt").unlink()


CASES = [
    Case("no store yet", REPORT, gone("store")),
    Case("no store yet", STATUS, gone("store")),
    Case("no store yet", "compact --store store", gone("store")),
    Case("empty folder", REPORT, empty),
    Case("file for a folder", SCAN, file),
    Case("file for a folder", REPORT, file),
    Case("file for a folder", STATUS, file),
    Case("somebody's files in its place", SCAN, junk),
    Case("somebody's Delta table", SCAN, table(FOREIGN, "prices of fish")),
    Case("somebody's Delta table", REPORT, table(FOREIGN, None)),
    Case("store of a later overscan", SCAN, table(FOREIGN, "overscan store 2")),
    Case("store of a later overscan", STATUS, table(FOREIGN, "overscan store 2")),
    Case("table without our columns", SCAN, table(FOREIGN, "overscan store 1")),
    Case("table without our columns", REPORT, table(FOREIGN, "overscan store 1")),
    Case("commit cut in half", SCAN, truncated("scores/_delta_log/*.json")),
    Case("commit cut in half", REPORT, truncated("runs/_delta_log/*.json")),
    Case("first commit lost", REPORT, removed("scores/_delta_log/*.json")),
    Case("data cut in half", REPORT, truncated("scores/**/*.parquet")),
    Case("data lost", SCAN, removed("scores/**/*.parquet")),
    Case("data lost", "compact --store store", removed("scores/**/*.parquet")),
    Case("table of runs lost", REPORT, gone("store/runs")),
    Case("nothing but a calibration", REPORT, only_calibrated),
    Case("captions moved since the scan", REPORT, moved_captions),
    Case("folder that nobody can write", "scan captions.txt --model bundle --store /proc/store"),
]
