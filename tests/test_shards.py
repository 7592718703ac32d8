"""A scan in shards: no prompt in two, one scan_id, and a store as of one process."""

import gzip
import json
import os
import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from hashlib import blake2b
from types import SimpleNamespace

import polars as pl
import pytest
from small import BUNDLE, first
from test_cli import run

from scanner import ScanConfig, ScannerError, read_store, scan
from scanner.cli.shard import scheduled
from scanner.config import Screen
from scanner.dataset import readers
from scanner.dataset.shards import MOST, WHOLE, Shard, shard_of
from scanner.errors import Interrupted
from scanner.identity import prompt_id
from scanner.model import Model
from scanner.scanning import passes, shared
from scanner.scanning.execute import local
from scanner.scanning.passes import commit_seconds
from scanner.scanning.request import Request
from scanner.scanning.screen import remembered
from scanner.store.ledger import Ledger

CAPTION = first(60)
ASKED = {"model": BUNDLE, "backend": "cpu", "batch_size": 16}


def ids_of(texts):
    return pl.DataFrame({"prompt_id": [prompt_id(text) for text in texts]})


def ids(n):
    return pl.DataFrame({"prompt_id": [blake2b(i.to_bytes(4), digest_size=16).hexdigest() for i in range(n)]})


@pytest.mark.parametrize("count", [1, 2, 3, 7, 16, 64, 1000])
def test_every_prompt_is_in_one_shard(count):
    frame = ids(3000).with_columns(shard=shard_of(count))
    edges = pl.DataFrame({"prompt_id": ["0" * 32, "f" * 32]}).with_columns(shard=shard_of(count))
    assert edges["shard"].to_list() == [1, count]
    for index in (1, 2, count // 2, count):
        if not 1 <= index <= count:
            continue
        shard = Shard(index, count)
        held = shard.of(frame.lazy()).collect()
        assert held.equals(frame.filter(shard=index))
        assert set(held["prompt_id"].str.head(1)) <= set(shard.digits)
        assert len(shard.digits) <= 16 // count + 2


def test_shards_of_a_million_are_equal_within_a_percent():
    sizes = ids(1_000_000).with_columns(shard=shard_of(8)).group_by("shard").len()["len"]
    assert len(sizes) == 8
    assert sizes.min() > 0.99 * 125_000
    assert sizes.max() < 1.01 * 125_000


@pytest.mark.parametrize("wrong", [(0, 3), (4, 3), (1, MOST + 1), (-1, -1)])
def test_what_is_no_shard_is_refused(wrong):
    with pytest.raises(ScannerError, match="needed I/N with I from 1 to N"):
        Shard(*wrong)


def slurm(task, tasks, first, last):
    names = ("ID", "COUNT", "MIN", "MAX")
    return {
        f"SLURM_ARRAY_TASK_{name}": str(value) for name, value in zip(names, (task, tasks, first, last), strict=True)
    }


@pytest.mark.parametrize(
    ("environment", "count", "shard"),
    [
        (slurm(1, 8, 1, 8), None, "1/8"),
        (slurm(0, 8, 0, 7), None, "1/8"),
        (slurm(7, 8, 0, 7), 8, "8/8"),
        (slurm(1, 1, 1, 1), 1, "1/1"),
        ({"JOB_COMPLETION_INDEX": "3"}, 8, "4/8"),
    ],
)
def test_a_scheduler_tells_the_shard(environment, count, shard):
    assert str(scheduled(environment, count)) == shard


@pytest.mark.parametrize(
    ("environment", "count", "said"),
    [
        ({}, None, "neither SLURM_ARRAY_TASK_ID"),
        ({"JOB_COMPLETION_INDEX": "3"}, None, "does not say of how many: name the Job's completions, auto/N"),
        ({"JOB_COMPLETION_INDEX": "8"}, 8, "shard 9/8: needed I/N"),
        (slurm(3, 3, 1, 7), 8, "auto/8: the array has 3 tasks"),
        (slurm(3, 1, 3, 3), None, "1 of the array's tasks 3 to 3, whose numbers do not tell the shards"),
        (slurm(1, 1, 1, 1), None, "whose numbers do not tell the shards"),
        (slurm(3, 2, 3, 5), None, "whose numbers do not tell the shards"),
        (slurm(0, 4, 0, 6), None, "4 of the array's tasks 0 to 6, whose numbers do not tell the shards"),
    ],
)
def test_a_scheduler_that_does_not_tell_is_an_error(environment, count, said):
    with pytest.raises(ScannerError, match=said):
        scheduled(environment, count)


@pytest.fixture
def captions(tmp_path):
    (tmp_path / "captions.txt").write_text("\n".join([*CAPTION, *CAPTION[:5], ""]))
    return tmp_path / "captions.txt"


def test_shards_together_are_the_scan(captions, tmp_path):
    whole = scan(captions, store=tmp_path / "whole", **ASKED)
    parts = [scan(captions, store=tmp_path / "store", shard=Shard(i, 3), **ASKED) for i in (2, 1, 3)]
    assert {part.scan_id for part in parts} == {whole.scan_id}
    assert whole.shard == WHOLE
    for name in ("rows", "unique", "scored"):
        assert sum(getattr(part, name) for part in parts) == getattr(whole, name), name
    assert [part.already_scored for part in parts] == [0, 0, 0]
    order = pl.col("prompt_id")
    assert read_store(tmp_path / "store").scores.sort(order).equals(whole.scores.sort(order))
    assert read_store(tmp_path / "store").notes == []
    again = scan(captions, store=tmp_path / "store", shard=Shard(5, 8), **ASKED)
    assert (again.scored, again.already_scored == again.unique) == (0, True)


def test_two_shards_at_once_with_a_screen_have_one_threshold(captions, tmp_path):
    asked = ASKED | {"config": ScanConfig(seeds=(0, 1, 2)), "screen": Screen(0.2)}
    with ThreadPoolExecutor(2) as threads:
        done = list(threads.map(lambda i: scan(captions, store=tmp_path / "store", shard=Shard(i, 2), **asked), (1, 2)))
    assert len({part.scan_id for part in done}) == 1
    assert len({part.screening.threshold for part in done}) == 1
    assert sum(part.unique for part in done) == 60
    scores = read_store(tmp_path / "store").scores
    assert scores["status"].null_count() == 0
    assert scores.group_by("status").len()["len"].sum() == 60


def test_who_begins_second_takes_the_threshold_of_the_first(captions, tmp_path):
    asked = ASKED | {"config": ScanConfig(seeds=(0, 1, 2)), "screen": Screen(0.2)}
    first = scan(captions, store=tmp_path / "store", **asked)
    ledger = Ledger(tmp_path / "store")
    record = ledger.records()[0]
    mine = remembered(record.screening, [], None)
    other = type(mine)(**vars(mine) | {"threshold": mine.threshold + 1})
    found = ledger.agree(lambda records: (remembered(other, records, None).scan_id, record))
    assert found[0] == first.scan_id


def test_the_command_says_its_shard(captions, tmp_path, monkeypatch):
    asked = ("scan", captions, "--model", BUNDLE, "--backend", "cpu", "--batch-size", 16, "--store", tmp_path / "store")
    out, err, code = run(*asked, "--shard", "2/2", "--json")
    assert code == 0, err
    assert json.loads(out)["shard"] == {"index": 2, "count": 2}
    assert "shard           2/2 of the prompts, of which all below is" in err.splitlines()  # a slow machine says more
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "0")
    out, err, code = run(*asked, "--shard", "auto/2", "--dry-run", "--json")
    assert (code, json.loads(out)["shard"]) == (0, {"index": 1, "count": 2})
    for wrong in ("3/2", "2", "auto/x", "auto"):
        _, err, code = run(*asked, "--shard", wrong)
        assert code == 2, wrong
        assert "needed I/N" in err or "auto/N" in err


def test_status_and_report_say_which_shard_is_missing(captions, tmp_path, monkeypatch):
    store = tmp_path / "store"
    with monkeypatch.context() as patched:  # captions that were there before, in another file
        patched.chdir(tmp_path)
        (tmp_path / "older.txt").write_text("\n".join(f"older {i}" for i in range(30)))
        scan("older.txt", store=store, **ASKED)
    sizes = ids_of(CAPTION).with_columns(shard=shard_of(3)).group_by("shard").len().sort("shard")["len"].to_list()
    scan(captions, store=store, shard=Shard(2, 3), **ASKED)
    done = []
    with pytest.raises(Interrupted):
        scan(
            captions, store=store, shard=Shard(3, 3), **ASKED | {"batch_size": 4},
            watch=lambda what, count, _: done.extend([count] if what == "scan" else []),
            stop=lambda: max(done, default=0) >= 4,
        )  # fmt: skip
    left = sizes[2] - max(done)
    out, _, code = run("status", "--store", store)
    assert code == 0
    assert "  shards    1 of 3 done\n            1/3 never begun\n" in out
    assert f"            3/3 {left} of {sizes[2]} prompts are missing\n" in out
    (newest, *_) = json.loads(run("status", "--store", store, "--json")[0])["scans"]
    assert [(each["prompts"], each["left"]) for each in newest["shards"]] == [
        (None, None),
        (sizes[1], 0),
        (sizes[2], left),
    ]
    out, err, code = run("report", "--store", store, "--out", tmp_path / "report", "--json", "--last-run")
    assert code == 0
    note = (
        f"UNFINISHED: 2 of 3 shards of this scan have not scored all of their prompts: 1/3 ({sizes[0]} of {sizes[0]} "
        f"prompts), 3/3 ({left} of {sizes[2]} prompts): these prompts cannot be flagged; run the missing shards with "
        "--shard, then report again"
    )
    assert json.loads(out)["notes"][0] == note
    assert err.startswith(f"note: {note}\n")
    scored = f"{100 * (60 - sizes[0] - left) / 60:.3g} %"
    assert json.loads(out)["headline"].startswith(f"UNFINISHED, {scored} of the prompts are scored. ")
    for i in (1, 3):
        scan(captions, store=store, shard=Shard(i, 3), **ASKED)
    assert "  shards    3 of 3 done\n" in run("status", "--store", store)[0]
    out, err, code = run("report", "--store", store, "--out", tmp_path / "report", "--json", "--last-run")
    assert (code, "UNFINISHED" in out + err) == (0, False)


def parts(folder, n=5):
    """The captions in several files, one of them damaged in its middle, some in two files."""
    for i in range(n):
        pl.DataFrame({"caption": CAPTION[i * 60 // n : (i + 1) * 60 // n + 2]}).write_parquet(folder / f"{i}.parquet")
    (folder / "5.txt.gz").write_bytes(gzip.compress(random.randbytes(90_000).hex().encode())[:-9])
    return folder


def test_captions_are_split_once_for_all_shards(tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    data, store = parts(tmp_path / "data"), tmp_path / "store"
    whole = scan(data, store=tmp_path / "whole", **ASKED)
    read = []
    batches = readers.Rows.batches
    monkeypatch.setattr(
        readers.Rows, "batches", lambda self, file, *rest: read.append(file) or batches(self, file, *rest)
    )
    found = []
    for i in (1, 2, 3):
        found.append(scan(data, store=store, shard=Shard(i, 3), **ASKED))
        kept = sorted(path.name for path in (tmp_path / "store.split").iterdir())
        assert len(kept) == 1
        assert kept[0].endswith(".done") == (i == 3)
        assert i == 3 or (tmp_path / "store.split" / kept[0]).stat().st_mode & 0o777 == 0o700
    assert len(whole.left_out) == 1
    assert sorted(map(os.path.basename, read)) == [*(f"{i}.parquet" for i in range(5)), *["5.txt.gz"] * 2]
    assert sum(part.rows for part in found) == whole.rows
    for part in found:
        assert part.left_out == whole.left_out
        assert part.reading == whole.reading
    order = pl.col("prompt_id")
    assert read_store(store).scores.sort(order).equals(read_store(tmp_path / "whole").scores.sort(order))
    again = scan(data, store=store, shard=Shard(2, 3), **ASKED)
    assert (again.scored, again.unique) == (0, found[1].unique)
    assert [path.name for path in (tmp_path / "store.split").iterdir()] == kept  # captions do not stay


def test_shards_at_once_split_each_its_part_and_a_killed_ones_part_is_taken_over(tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    data, store = parts(tmp_path / "data"), tmp_path / "store"
    monkeypatch.setattr(shared, "STALE", 1.0)
    request = Request(data, model=BUNDLE, store=store, shard=Shard(1, 2))
    first = shared.Shared.of(request, request.rows, lambda: False, lambda *_: None)
    assert first._claim("0")  # and is killed
    with ThreadPoolExecutor(2) as threads:
        done = list(threads.map(lambda i: scan(data, store=store, shard=Shard(i, 2), **ASKED), (1, 2)))
    assert sum(part.unique for part in done) == len(read_store(store).scores) == 60
    other = shared.Shared.of(replace(request, limit=3), request.rows, lambda: True, lambda *_: None)
    with pytest.raises(Interrupted, match="while reading captions"):
        other.split()


def test_shards_share_the_result_of_one_trial(captions, tmp_path):
    request = Request(captions, model=BUNDLE, store=tmp_path / "store", backend="cpu", shard=Shard(1, 2))
    both = [shared.Shared.of(request, request.rows, lambda: False, lambda *_: None) for _ in range(2)]
    sizes = iter((4, 16))
    tried = []

    class Trial(Model):
        def prepare(self, watch):
            if self.batch_size is None:
                tried.append(next(sizes))
                return self.adapted(batch_size=tried[-1])
            return super().prepare(watch)

    found = [each.prepared(Trial(BUNDLE, "cpu"), lambda *_: None) for each in both]
    assert tried == [4]
    assert [model.batch_size for model in found] == [4, 4]
    assert all(model.prepared is not None for model in found)


def test_compact_removes_what_unfinished_shards_left(captions, tmp_path):
    scan(captions, store=tmp_path / "store", shard=Shard(1, 2), **ASKED)
    out, err, code = run("compact", "--store", tmp_path / "store")
    assert (code, "never all finished" in out) == (0, False), err
    (kept,) = (tmp_path / "store.split").iterdir()
    for path in [kept, *kept.rglob("*")]:
        os.utime(path, (0, 0))
    out, err, code = run("compact", "--store", tmp_path / "store")
    assert (code, "1 scans whose shards never all finished: their split captions are deleted" in out) == (0, True), err
    assert not kept.exists()


def test_shards_commit_the_more_seldom_the_more_they_are():
    """Eight commit every ten seconds, a hundred as often together."""
    assert [commit_seconds(Shard(1, count)) for count in (1, 2, 8, 16, 100, 1000)] == [10, 10, 10, 20, 125, 1250]


@pytest.mark.parametrize(("shard", "after"), [(WHOLE, [3, 6]), (Shard(1, 2), [2, 5]), (Shard(2, 2), [3, 6])])
def test_shards_that_begin_together_take_turns(tmp_path, monkeypatch, shard, after):
    """By a clock that moves four seconds with each chunk: chunks after which there is a commit, but for the last."""
    clock, commits, chunks = [0.0], [], []
    monkeypatch.setattr(passes, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    append = Ledger.append
    monkeypatch.setattr(Ledger, "append", lambda *asked: (commits.append(len(chunks)), append(*asked)))

    def slow(model, given, stop):
        for frame in local(model, given, stop):
            chunks.append(frame)
            clock[0] += 4
            yield frame

    texts = [text for text in CAPTION if shard_of_text(text, shard.count) == shard.index][:7]
    pl.DataFrame({"caption": texts}).write_parquet(tmp_path / "captions.parquet")
    scan(
        tmp_path / "captions.parquet", store=tmp_path / "store", shard=shard, executor=slow, **ASKED | {"batch_size": 1}
    )
    assert len(chunks) == 7
    assert commits == [*after, 7]


def shard_of_text(text, count):
    return ids_of([text]).select(shard_of(count)).item()
