import hashlib

import polars as pl
import pytest

from scanner.dataset import partitions
from scanner.dataset.captions import identify, prompt_ids, read, unique_prompts
from scanner.dataset.partitions import files, join, split_captions
from scanner.errors import DiskError, InputError, Interrupted
from scanner.identity import prompt_id
from scanner.store.ledger import Ledger
from scanner.store.pending import SCORED, compare

NOBODY = pl.LazyFrame(schema=SCORED)


def find(captions, held, folder, stop=lambda: None):
    """What is pending of captions, as a scan finds it."""
    split_captions(captions, folder / "captions", lambda rows: stop())
    return compare(files(folder / "captions"), held, folder, stop)


def captions(*texts):
    return pl.LazyFrame({"file": "x", "row": range(len(texts)), "text": texts}, schema_overrides={"text": pl.String})


def scored(**statuses):
    return pl.LazyFrame({"prompt_id": [prompt_id(text) for text in statuses], "status": list(statuses.values())})


def test_only_what_the_ledger_does_not_hold_is_left(tmp_path):
    held = pl.concat([scored(a="scored", b="non_finite", gone="scored"), scored(a="scored")])  # a row stored twice
    found = find(captions("a", "c", "a", None, "", "b", "c"), held, tmp_path)
    assert (found.rows, found.unique, found.left, found.already_scored) == (7, 5, 3, 2)
    assert found.statuses == {"scored": 1, "non_finite": 1}
    assert found.to_score == 1
    assert pl.concat(found.chunks(2)).rows() == [(prompt_id("c"), "c", "to_score")]
    assert sorted(pl.concat(found.others()).rows()) == [(prompt_id(None), "null"), (prompt_id(""), "empty")]


def test_partitioned_and_in_memory_unique_prompts_are_the_same(tmp_path):
    texts = [f"caption {i % 700}" for i in range(3000)]
    found = find(captions(*texts), NOBODY, tmp_path)
    chunks = list(found.chunks(32))
    assert [len(chunk) for chunk in chunks] == [32] * 21 + [28]
    left = pl.concat(chunks)
    assert left["prompt_id"].is_sorted()
    expected = unique_prompts(captions(*texts))
    assert expected["text"].to_list() == texts[:700]
    assert set(expected["n_rows"]) == {4, 5}
    assert left.equals(expected.select("prompt_id", "text", "status").sort("prompt_id"))


def test_batches_of_a_stream_are_merged(tmp_path):
    """A prompt that comes in many batches is one prompt, at its first row, with all its rows."""
    frame = pl.DataFrame({"caption": [f"caption {i % 3}" for i in range(400_000)]})
    frame.write_parquet(tmp_path / "a.parquet", row_group_size=50_000)
    rows = read([tmp_path / "a.parquet"])
    assert len(identify(rows).collect(engine="streaming")) > 3
    prompts = unique_prompts(rows)
    assert prompts["text"].to_list() == ["caption 0", "caption 1", "caption 2"]
    assert prompts["n_rows"].to_list() == [133_334, 133_333, 133_333]


def test_ids_of_a_series_are_ids_of_its_texts():
    texts = ["a cat", None, "", "été", "日本 🎉"]
    assert prompt_ids(pl.Series(texts)).to_list() == [prompt_id(text) for text in texts]


def test_nothing_in_nothing_left(tmp_path):
    found = find(captions(), NOBODY, tmp_path)
    assert (found.rows, found.unique, found.left, list(found.chunks(8))) == (0, 0, 0, [])


@pytest.mark.parametrize("after", [0, 1, 5])
def test_stops_while_it_reads_and_between_partitions(tmp_path, after):
    asked = []

    def stop():
        asked.append(True)
        if len(asked) > after:
            raise Interrupted("enough")

    with pytest.raises(Interrupted, match="enough"):
        find(captions("a", "b"), NOBODY, tmp_path, stop)


def test_work_files_that_find_no_room_say_so(small_disk):
    texts = [hashlib.sha256(str(i).encode()).hexdigest() for i in range(10_000)]
    with pytest.raises(DiskError, match=r"disk \(work files: TMPDIR says where\): no space left on that disk"):
        find(captions(*texts), NOBODY, small_disk)


def test_scores_that_find_no_room_to_be_joined_are_not_the_stores_fault(small_disk, tmp_path):
    ledger = Ledger(tmp_path / "store", ("s_v1",))
    ids = prompt_ids(pl.Series([f"cat {i}" for i in range(20_000)]))
    held = pl.DataFrame({"prompt_id": ids, "status": "scored", "truncated": False, "s_v1": 0.5})
    ledger.append("one", held.with_columns(q1=[0.5], q2=[0.5], q3=[0.5]))
    with (
        pytest.raises(DiskError, match=r"disk \(work files: TMPDIR says where\): no space left on that disk"),
        ledger.refusals(),
    ):
        join(captions("cat 1"), ledger.scores("one"), small_disk)


def test_a_damaged_input_is_named_as_such(tmp_path):
    pl.DataFrame({"caption": [f"cat {i}" for i in range(1000)]}).write_parquet(tmp_path / "a.parquet")
    whole = (tmp_path / "a.parquet").read_bytes()
    (tmp_path / "a.parquet").write_bytes(whole[:4] + b"\xff" * 2000 + whole[2004:])
    with pytest.raises(InputError, match=r"a\.parquet: cannot be read"):
        find(read([tmp_path / "a.parquet"]), NOBODY, tmp_path / "work")


def test_scores_are_joined_and_know_where_a_prompt_appears_first(tmp_path):
    ids = [prompt_id(text) for text in ("b", "a", "b", "gone")]  # b is stored twice
    scores = pl.LazyFrame({"prompt_id": ids, "status": ["scored"] * 4, "s": [2.0, 1.0, 2.0, 9.0]})
    joined = join(captions("c", "b", "a", "b"), scores, tmp_path)
    assert joined.select("first_row", "text", "n_rows", "status", "s").collect().sort("first_row").rows() == [
        (0, "c", 1, None, None),
        (1, "b", 2, "scored", 2.0),
        (2, "a", 1, "scored", 1.0),
    ]
    assert not list(tmp_path.glob("*/*/*")), "what is joined is not kept twice"
    none = join(captions("c"), scores.clear(), tmp_path / "none")
    assert none.select("text", "s").collect().rows() == [("c", None)]


def test_many_scores_are_joined_in_smaller_parts(tmp_path, monkeypatch):
    texts = [str(i) for i in range(2000)]
    scores = pl.LazyFrame({"prompt_id": [prompt_id(text) for text in texts], "status": "scored", "s": range(2000)})
    one = join(captions(*texts), scores, tmp_path / "one").collect().sort("first_row")
    monkeypatch.setattr(partitions, "LARGE", 2000)
    assert join(captions(*texts), scores, tmp_path / "two").collect().sort("first_row").equals(one)
    assert one["s"].to_list() == list(range(2000))
    assert [len(list((tmp_path / name).rglob("joined-*"))) for name in ("one", "two")] == [16, 256]
