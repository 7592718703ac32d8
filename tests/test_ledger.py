import polars as pl
import pytest

from scanner.dataset.ledger import Ledger
from scanner.errors import StoreError


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
    assert ledger.scored("one").collect().sort("prompt_id").rows() == [("a", "scored"), ("c", "scored")]
    assert Ledger(tmp_path, ("s_v1",)).scored("two").collect().rows() == [("b", "scored")]
    assert ledger.count_others("one") == 1
    assert ledger.counts().rows() == [("one", "scored", 2), ("two", "scored", 1)]


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
    ledger.begin("one", {"inputs": ["x"]})
    ledger.begin("two", {"inputs": ["y"]})
    assert Ledger(tmp_path).last_run() == ("two", {"inputs": ["y"]})


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
    Ledger(tmp_path / "ours", ("s_v1",))
    with pytest.raises(StoreError, match=r"another version of overscan \(columns s_v1, s_v2\)"):
        Ledger(tmp_path / "ours", ("s_v2",))
