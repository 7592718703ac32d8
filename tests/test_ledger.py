import json
import multiprocessing
import os
import subprocess
import time
from dataclasses import replace
from datetime import UTC, datetime
from types import SimpleNamespace

import polars as pl
import pytest
from deltalake import Schema
from deltalake.exceptions import CommitFailedError
from reports import RECORD

from scanner.config import Reference
from scanner.errors import DiskError, StoreError
from scanner.store import tables
from scanner.store.ledger import MERGE_EVERY, RAW, Ledger, levels
from scanner.store.record import Screening, as_json, of_json
from scanner.store.status import compact, status
from scanner.store.tables import Table


def rows(*ids, score=1.0):
    n = len(ids)
    raw = {name: [[score, score]] * n for name in ("q1", "q2", "q3")}
    return pl.DataFrame(
        {"prompt_id": ids, "status": ["scored"] * n, "truncated": [False] * n, "s_v1": [score] * n, **raw},
        schema_overrides={"s_v1": pl.Float32, **dict.fromkeys(raw, pl.List(pl.Float32))},
    )


def test_scans_of_one_store_are_apart(tmp_path):
    ledger = Ledger(tmp_path, ("s_v1",))
    ledger.append("one", rows("a", "c"))
    ledger.append("two", rows("b"))
    assert ledger.scores("one").select("prompt_id", "status").collect().sort("prompt_id").rows() == [
        ("a", "scored"),
        ("c", "scored"),
    ]
    assert Ledger(tmp_path, ("s_v1",)).scores("two").select("prompt_id", "status").collect().rows() == [("b", "scored")]
    assert ledger.count_others("one") == 1
    assert ledger.counts().rows() == [("one", "scored", 2, 2), ("two", "scored", 1, 1)]


@pytest.mark.parametrize("name", ["My Documents", "José", "50% #1?", "a+b&c"])
def test_a_store_may_have_any_name(tmp_path, name):
    for i in range(2):
        ledger = Ledger(tmp_path / name / "store", ("s_v1",))
        ledger.begin("one", RECORD)
        ledger.append("one", rows(str(i)))
    ledger.compact(1)
    assert sorted(Ledger(tmp_path / name / "store").read("one")["prompt_id"]) == ["0", "1"]
    assert len(ledger.runs()) == 2


@pytest.mark.parametrize("name", ["a%20b", "a[1]"])
def test_a_store_that_deltalake_cannot_hold_is_refused_before_it_is_made(tmp_path, name):
    with pytest.raises(StoreError, match="cannot hold a path with %XX"):
        Ledger(tmp_path / name, ("s_v1",))
    assert not (tmp_path / name).exists()


def test_rows_computed_twice_are_read_once(tmp_path):
    ledger = Ledger(tmp_path, ("s_v1",))
    ledger.append("one", rows("a", "b"))
    ledger.append("one", rows("b", "c"))
    assert sorted(ledger.read("one")["prompt_id"]) == ["a", "b", "c"]


def test_compaction_keeps_every_row(tmp_path):
    ledger = Ledger(tmp_path, ("s_v1",))
    for i in range(25):
        ledger.append("one", rows(f"{i}", score=float(i)))
    ledger.compact()
    assert ledger.read("one").select("prompt_id", "s_v1").sort("s_v1").rows() == [(f"{i}", float(i)) for i in range(25)]


def test_the_newest_run_is_remembered(tmp_path):
    ledger = Ledger(tmp_path, ("s_v1",))
    with pytest.raises(StoreError, match="no scan in this store yet"):
        ledger.last_run()
    ledger.begin("one", replace(RECORD, inputs=("x",)))
    ledger.begin("two", replace(RECORD, inputs=("y",)))
    ledger.begin("null", replace(RECORD, purpose="calibration"))  # not a scan
    assert Ledger(tmp_path).last_run() == ("two", replace(RECORD, inputs=("y",)))
    ledger.begin("three", RECORD)
    assert Ledger(tmp_path).last_run() == ("three", RECORD)


def test_a_scan_is_named_by_the_beginning_of_its_id(tmp_path):
    ledger = Ledger(tmp_path, ("s_v1",))
    older, newer, null = "a" * 32, "a" * 8 + "b" * 24, "c" * 32
    ledger.begin(older, replace(RECORD, inputs=("first",)))
    ledger.begin(older, replace(RECORD, inputs=("x",)))
    ledger.begin(newer, replace(RECORD, inputs=("y",)))
    ledger.begin(null, replace(RECORD, purpose="calibration"))
    assert ledger.last_run(older) == ledger.last_run("a" * 9) == (older, replace(RECORD, inputs=("x",)))
    assert ledger.last_run("a" * 8 + "b") == (newer, replace(RECORD, inputs=("y",)))
    for asked, message in (
        ("", "scan_id '': needed 8 or more of its first characters"),
        ("a" * 7, "scan_id 'aaaaaaa': needed 8 or more of its first characters"),
        ("a" * 8, f"{tmp_path}: 2 scans of scan_id aaaaaaaa; there are {newer}, {older}"),
        (null, f"{tmp_path}: no scan of scan_id {null}; there are {newer}, {older}"),
    ):
        with pytest.raises(StoreError) as caught:
            ledger.last_run(asked)
        assert str(caught.value) == message


def test_refuses_what_is_no_store_of_ours(tmp_path):
    with pytest.raises(StoreError, match="no store there"):
        Ledger(tmp_path / "none")
    pl.DataFrame({"x": [1]}).write_delta(str(tmp_path / "foreign" / "scores"))
    with pytest.raises(StoreError, match="a Delta table described None, needed 'overscan store 1'"):
        Ledger(tmp_path / "foreign", ("s_v1",))
    (tmp_path / "full" / "scores").mkdir(parents=True)
    (tmp_path / "full" / "scores" / "thesis.doc").touch()
    with pytest.raises(StoreError, match="holds files that are no Delta table"):
        Ledger(tmp_path / "full", ("s_v1",))
    pl.DataFrame({"price": [1.0]}).write_delta(
        str(tmp_path / "fish" / "scores"), delta_write_options={"description": "overscan store 1"}
    )
    for names in ((), ("s_v1",)):
        with pytest.raises(StoreError, match="fish/scores: a table without prompt_id, scan_id, status: name another"):
            Ledger(tmp_path / "fish", names)


def test_a_store_of_a_newer_overscan_is_refused(tmp_path):
    pl.DataFrame({"x": [1]}).write_delta(
        str(tmp_path / "scores"), delta_write_options={"description": "overscan store 2"}
    )
    for names in ((), ("s_v1",)):
        with pytest.raises(StoreError, match="store format 2, this overscan reads 1: upgrade it, or name another"):
            Ledger(tmp_path, names)


def test_a_store_of_a_newer_delta_protocol_is_refused(tmp_path):
    Ledger(tmp_path, ("s_v1",))
    protocol = '{"protocol":{"minReaderVersion":99,"minWriterVersion":99}}\n'
    (tmp_path / "scores/_delta_log/00000000000000000001.json").write_text(protocol)
    with pytest.raises(StoreError, match=r"cannot be read \(.*Unsupported minimum reader version 99\): restore it"):
        Ledger(tmp_path)


def damage_log(store):
    log = store / "scores/_delta_log/00000000000000000001.json"
    log.write_text(log.read_text()[:50])


def remove_commit(store):
    (store / "scores/_delta_log/00000000000000000001.json").unlink()


def remove_rows(store):
    next((store / "scores").rglob("*.parquet")).unlink()


def garble_rows(store):
    file = next((store / "scores").rglob("*.parquet"))
    file.write_bytes(b"PAR1" + b"garbage" * 100 + b"PAR1")


@pytest.mark.parametrize("damage", [damage_log, remove_commit, remove_rows, garble_rows])
def test_a_damaged_store_is_refused(tmp_path, damage):
    ledger = Ledger(tmp_path, ("s_v1",))
    for i in range(3):
        ledger.append("one", rows(f"{i}"))
    damage(tmp_path)
    with pytest.raises(StoreError, match=r"the store cannot be read \(.+\): restore it from a copy, or name another"):
        Ledger(tmp_path).read("one")


def test_a_full_disk_is_told_and_what_is_committed_stays(small_disk):
    ledger = Ledger(small_disk / "store", ("s_v1",))
    committed = []

    def fill():
        while True:
            ledger.append("one", rows(*(f"{len(committed)}-{j}" for j in range(100))))
            committed.append(True)

    with pytest.raises(DiskError, match="store: no space left on that disk: make room or name another folder"):
        fill()
    assert committed
    assert len(ledger.read("one")) == 100 * len(committed)


def test_a_read_only_folder_is_told(small_disk):
    ledger = Ledger(small_disk / "store", ("s_v1",))
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(DiskError, match=r"store: cannot be written \(.*Read-only file system.*\): name a folder"):
        ledger.append("one", rows("a"))
    with pytest.raises(DiskError, match="other: cannot be written"):
        Ledger(small_disk / "other", ("s_v1",))
    assert len(ledger.read("one")) == 0


def test_a_creation_that_was_killed_is_taken_up(tmp_path):
    (tmp_path / "scores/_delta_log").mkdir(parents=True)
    (tmp_path / "scores/_delta_log/_commit_1.json.tmp").write_text("{")
    Ledger(tmp_path, ("s_v1",)).append("one", rows("a"))
    assert len(Ledger(tmp_path).read("one")) == 1


def append(folder, i, ready):
    ready.wait()
    Ledger(folder, ("s_v1",)).append("one", rows(f"{i}"))


def test_many_scans_may_create_one_store_at_once(tmp_path):
    context = multiprocessing.get_context("forkserver")
    ready = context.Barrier(4)
    processes = [context.Process(target=append, args=(tmp_path / "store", i, ready)) for i in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert sorted(Ledger(tmp_path / "store").read("one")["prompt_id"]) == ["0", "1", "2", "3"]


def test_compaction_deletes_only_what_nobody_can_need(tmp_path):
    """A file that a killed commit left, a week old; not such a file of today, nor what was replaced just now."""
    ledger = Ledger(tmp_path, ("s_v1",))
    for i in range(3):
        ledger.append("one", rows(f"{i}"))
    partition = tmp_path / "scores/scan_id=one"
    week = time.time() - 8 * 86_400
    for file in partition.iterdir():
        os.utime(file, (week, week))
    for name in ("part-old.parquet", "part-new.parquet"):
        (partition / name).write_bytes(b"half")
    os.utime(partition / "part-old.parquet", (week, week))
    assert compact(ledger)["scores"] == {"merged": 3, "deleted": 1}
    assert not (partition / "part-old.parquet").exists()
    assert (partition / "part-new.parquet").exists()
    assert len(pl.read_delta(str(tmp_path / "scores"), version=2)) == 2
    assert len(ledger.read("one")) == 3


def test_status_and_compaction(tmp_path):
    ledger = Ledger(tmp_path, ("s_v1",))
    ledger.begin("one", RECORD)
    ledger.begin("two", RECORD)
    ledger.begin("one", RECORD)
    for i in range(5):
        ledger.append("one", rows(f"{i}"))
    ledger.append("one", rows("e").with_columns(status=pl.lit("empty")))
    scans = status(ledger).scans
    assert [(scan.scan_id, scan.runs, scan.rows) for scan in scans] == [
        ("one", 2, {"empty": 1, "scored": 5}),
        ("two", 1, {}),
    ]
    assert compact(ledger) == {"scores": {"merged": 6, "deleted": 0}, "runs": {"merged": 3, "deleted": 0}}
    assert status(ledger).tables["scores"].files == 1
    assert len(ledger.read("one")) == 6
    assert len(pl.read_delta(str(tmp_path / "scores"), version=3)) == 3  # readers of an older version are not disturbed
    assert compact(ledger) == {"scores": {"merged": 0, "deleted": 0}, "runs": {"merged": 0, "deleted": 0}}


def test_a_score_of_a_newer_overscan_joins_a_store_and_stays(tmp_path):
    """Columns are added as nulls; an overscan that does not know one keeps it on append and on merging."""
    Ledger(tmp_path, ("s_v1",)).append("one", rows("a"))
    newer = Ledger(tmp_path, ("s_v1", "t_v1"))
    newer.append("one", rows("b").with_columns(t_v1=pl.lit(2.0, pl.Float32)))
    older = Ledger(tmp_path, ("s_v1",))
    older.append("one", rows("c"))
    assert older.read("one").select("prompt_id", "s_v1", "t_v1").sort("prompt_id").rows() == [
        ("a", 1.0, None),
        ("b", 1.0, 2.0),
        ("c", 1.0, None),
    ]
    before = older.read("one").sort("prompt_id")
    assert compact(older)["scores"]["merged"] == 3
    assert Ledger(tmp_path).read("one").sort("prompt_id").equals(before)
    assert older.table("scores").metadata().description == "overscan store 1"


def test_what_is_no_score_and_unknown_is_kept_and_not_read(tmp_path):
    Ledger(tmp_path, ("s_v1",)).append("one", rows("a"))
    table = Ledger(tmp_path).table("scores")
    table.alter.add_columns(Schema.from_arrow(pl.Schema({"q4_v2": pl.List(pl.Float32)})).fields)
    ledger = Ledger(tmp_path, ("s_v1",))
    ledger.append("one", rows("b"))
    compact(ledger)
    assert "q4_v2" in pl.read_delta(str(tmp_path / "scores")).columns
    assert ledger.read("one").columns == ["prompt_id", "status", "truncated", "s_v1", *RAW]


def grow(folder, i, ready):
    ready.wait()
    ledger = Ledger(folder, (f"s{i}_v1",))
    for j in range(5):
        ledger.append("one", rows(f"{i} {j}").rename({"s_v1": f"s{i}_v1"}))
    ledger.begin(f"{i}", RECORD)


def test_scans_at_once_may_add_scores_append_and_begin(tmp_path):
    Ledger(tmp_path, ("s_v1",))
    context = multiprocessing.get_context("forkserver")
    ready = context.Barrier(4)
    processes = [context.Process(target=grow, args=(tmp_path, i % 3, ready)) for i in range(4)]  # two add the same
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    held = pl.read_delta(str(tmp_path / "scores"))
    assert len(held) == 20
    assert held.select("s0_v1", "s1_v1", "s2_v1", "s_v1").count().row(0) == (10, 5, 5, 0)
    assert sorted(pl.read_delta(str(tmp_path / "runs"))["sequence"]) == [1, 2, 3, 4]


def test_the_newest_is_what_was_committed_last_whatever_the_clocks_say(tmp_path, monkeypatch):
    """Two hosts whose clocks differ by an hour; runs of the first edition, which have no number, come before them."""

    def at(hour):
        monkeypatch.setattr("scanner.store.ledger.datetime", SimpleNamespace(now=lambda zone: clock(hour)))

    def clock(hour):
        return datetime(2030, 1, 1, hour, tzinfo=UTC)

    ledger = Ledger(tmp_path, ("s_v1",))
    old = pl.DataFrame(
        {"scan_id": ["old", "older"], "started": [clock(23), clock(22)], "record": [as_json(RECORD)] * 2}
    )
    ledger._runs.append(lambda table: (pl.DataFrame(old), None))
    for hour, scan_id in ((12, "fast clock"), (11, "slow clock")):
        at(hour)
        Ledger(tmp_path, ("s_v1",)).begin(scan_id, RECORD)
    assert [run.scan_id for run in ledger.runs()] == ["slow clock", "fast clock", "old", "older"]
    compact(ledger)
    assert ledger.last_run() == ("slow clock", RECORD)
    assert [scan.last_run for scan in status(ledger).scans][:2] == ["2030-01-01T11:00:00Z", "2030-01-01T12:00:00Z"]


def test_files_are_merged_while_a_scan_runs(tmp_path):
    """Some tens of files are left of any number of commits, and every row is there."""
    ledger, readers = Ledger(tmp_path, ("s_v1",)), []
    for i in range(2 * MERGE_EVERY + 5):
        ledger.append("one", rows(f"{i:03}"))
        readers += [ledger.scores("one")] if i == 10 else []
    assert len(ledger.table("scores").file_uris()) <= 5 + 2 * 3
    assert ledger.read("one")["prompt_id"].sort().to_list() == [f"{i:03}" for i in range(2 * MERGE_EVERY + 5)]
    assert readers[0].collect().height == 11, "who began to read before the merge reads on"
    assert [levels(n) for n in (0, 1, 19, 20, 40, 399, 400, 8000)] == [0, 0, 0, 1, 1, 0, 2, 3]


def test_a_merge_that_others_do_ends_no_scan(tmp_path, monkeypatch):
    def merge(table, commits):
        raise CommitFailedError("somebody else")

    monkeypatch.setattr(Table, "merge", merge)
    ledger = Ledger(tmp_path, ("s_v1",))
    for i in range(MERGE_EVERY):
        ledger.append("one", rows(f"{i}"))
    ledger.compact()
    assert len(ledger.read("one")) == MERGE_EVERY


def test_status_tells_which_scores_a_scan_lacks(tmp_path):
    ledger = Ledger(tmp_path, ("s_v1", "t_v1"))
    ledger.begin("one", RECORD)
    ledger.begin("none yet", RECORD)
    ledger.append("one", rows("a"))
    ledger.append("one", rows("b").with_columns(status=pl.lit("non_finite"), t_v1=pl.lit(1.0, pl.Float32)))
    lacks = {scan.scan_id: scan.lacks for scan in status(ledger, lambda record: ("s_v1", "t_v1", "u_v1")).scans}
    assert lacks == {"one": ("t_v1", "u_v1"), "none yet": ()}


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"purpose": "scan"}', as_json(RECORD).replace('"seeds"', '"s"')])
def test_a_record_that_is_none_is_refused(text):
    with pytest.raises(StoreError, match="the record of a run cannot be read"):
        of_json(text)


def test_records_of_other_versions_are_read():
    """What older ones lacked has its meaning of then; what newer ones add is passed over."""
    screening = Screening("full", "first", "m", "s_v1", 0.1, 0.5)
    full = replace(RECORD, reference=Reference("r", "f"), screening=screening, canaries=({"canary": "a", "s_v1": 1.0},))
    assert of_json(as_json(full)) == full
    newer = json.loads(as_json(full)) | {"version": 3, "mood": "good"}
    newer["config"]["temperature"] = 1
    assert of_json(json.dumps(newer)) == replace(full, version=3)
    older = json.loads(as_json(full))
    for name in ("version", "precision", "reference", "purpose", "screening", "canaries", "batch_size", "host"):
        del older[name]
    kept = replace(full, version=1, reference=None, screening=None, canaries=(), batch_size=None, host=None)
    assert of_json(json.dumps(older)) == kept


def log(store):
    return sorted((store / "scores/_delta_log").glob("*.json"))


def test_the_log_of_commits_stays_short(tmp_path):
    """What a checkpoint of an hour ago sums up goes; who stood by meanwhile goes on, and no row is lost."""
    ledger, idle = Ledger(tmp_path, ("s_v1",)), Ledger(tmp_path, ("s_v1",))
    idle.append("two", rows("x"))
    for i in range(MERGE_EVERY):  # the last of which merges
        ledger.append("one", rows(f"{i}"))
    before = log(tmp_path)
    for entry in (tmp_path / "scores/_delta_log").iterdir():
        os.utime(entry, (0, time.time() - 3700))
    for i in range(MERGE_EVERY, 2 * MERGE_EVERY):
        ledger.append("one", rows(f"{i}"))
    assert len(before) == MERGE_EVERY + 3  # made, appended to twice as told, merged
    assert log(tmp_path)[0] == before[-1]
    assert len(log(tmp_path)) == 1 + MERGE_EVERY + 1
    idle.append("two", rows("y"))
    for opened in (idle, ledger, Ledger(tmp_path)):
        assert sorted(opened.read("one")["prompt_id"]) == sorted(map(str, range(2 * MERGE_EVERY)))
        assert sorted(opened.read("two")["prompt_id"]) == ["x", "y"]


def test_an_older_store_learns_to_keep_its_log_short(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "KEEPS", {})
    Ledger(tmp_path, ("s_v1",)).append("one", rows("a"))
    assert Ledger(tmp_path).table("scores").metadata().configuration == {}
    monkeypatch.undo()
    for _ in range(2):
        Ledger(tmp_path, ("s_v1",))
    found = Ledger(tmp_path)  # which changes nothing itself
    assert found.table("scores").metadata().configuration == tables.KEEPS
    assert len(log(tmp_path)) == 3  # made, appended to, set once
    assert found.read("one")["prompt_id"].to_list() == ["a"]


def test_sketches_are_read_alone_and_only_those_that_are_asked_for(tmp_path):
    ledger = Ledger(tmp_path, ("s_v1",))
    ledger.append("one", rows("a"))  # by an older overscan
    sketched = rows("b", "c", "d").with_columns(sketch_v1=pl.Series([b"b", None, b"d"], dtype=pl.Binary))
    ledger.append("one", sketched)
    ledger.append("one", sketched)  # two scans at once
    ledger.append("two", rows("a").with_columns(sketch_v1=pl.lit(b"other")))
    assert ledger.sketches("one", pl.Series(["a", "b", "c"])).rows() == [("b", b"b")]
    assert "sketch_v1" not in ledger.read("one").columns
    assert sorted(ledger.read("one")["prompt_id"]) == ["a", "b", "c", "d"]


def test_a_store_of_an_older_overscan_has_no_sketches(tmp_path):
    ledger = Ledger(tmp_path, ("s_v1",))
    ledger.append("one", rows("a"))
    held = pl.read_delta(str(tmp_path / "scores")).drop("sketch_v1")
    description = ledger.table("scores").metadata().description
    options = {"schema_mode": "overwrite", "description": description}
    held.write_delta(str(tmp_path / "scores"), mode="overwrite", delta_write_options=options)
    assert ledger.sketches("one", pl.Series(["a"])).to_dict(as_series=False) == {"prompt_id": [], "sketch_v1": []}
    assert Ledger(tmp_path).read("one")["prompt_id"].to_list() == ["a"]
    Ledger(tmp_path, ("s_v1",)).append("one", rows("b").with_columns(sketch_v1=pl.lit(b"b")))
    assert ledger.sketches("one", pl.Series(["a", "b"])).rows() == [("b", b"b")]
