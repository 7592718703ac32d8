"""`overscan evidence`: what a report rests on, and whether it is still so."""

import hashlib
import json

import pytest
from small import BUNDLE
from test_cli import run

from scanner.errors import ScannerError
from scanner.report.attestation import differences
from scanner.report.formats import FILES


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def night(tmp_path_factory):
    folder = tmp_path_factory.mktemp("evidence")
    (folder / "data").mkdir()
    (folder / "data/a.txt").write_text("Ada's kite\na bell\n")
    (folder / "data/b.jsonl").write_text('{"caption": "a dog"}\n')
    options = ["--model", BUNDLE, "--backend", "cpu", "--batch-size", "4", "--store", folder / "store"]
    assert run("scan", folder / "data", *options)[2] == 0
    assert run("report", "--store", folder / "store", "--out", folder / "report", "--top", "1")[2] == 0
    return folder


@pytest.fixture
def stated(night, tmp_path):
    """The statement's path, of a night whose files a test may spoil: they are put back."""
    before = {path: path.read_bytes() for path in (night / "data").iterdir()}
    before |= {night / "report" / name: (night / "report" / name).read_bytes() for name in FILES}
    out = tmp_path / "evidence.json"
    arguments = ["evidence", night / "report", "--store", night / "store", "--out", out, "--by", "the data team"]
    found = run(*arguments)
    assert found == (f"{out}\n", f"{len(FILES) + 3} files hashed\n", 0)
    yield out
    for path, data in before.items():
        path.write_bytes(data)


def test_a_statement_names_all_that_the_report_rests_on(night, stated):
    found = json.loads(stated.read_text())
    assert (found["_type"], found["predicateType"]) == ("https://in-toto.io/Statement/v1", "urn:overscan:evidence:1")
    assert found["subject"] == [{"name": name, "digest": {"sha256": sha256(night / "report" / name)}} for name in FILES]
    predicate = found["predicate"]
    files = [night / "data/a.txt", night / "data/b.jsonl"]
    assert predicate["dataset"]["files"] == [{"name": str(path), "digest": {"sha256": sha256(path)}} for path in files]
    engine = BUNDLE / "engine.json"
    assert predicate["model"] == {
        "name": BUNDLE.name, "files": [{"name": str(engine), "digest": {"sha256": sha256(engine)}}],
    }  # fmt: skip
    assert predicate["by"] == "the data team"
    assert predicate["result"] == json.loads((night / "report/summary.json").read_text())
    (ran,) = predicate["runs"]
    assert (ran["settings"]["seeds"], ran["computed_by"]["backend"]) == ([0, 1], "cpu")
    assert "kite" not in stated.read_text()


def test_what_is_as_stated_passes(night, stated):
    out, err, code = run("evidence", night / "report", "--check", stated)
    assert (out, err, code) == ("", f"{len(FILES) + 3} files are as stated\n", 0)


@pytest.mark.parametrize(
    ("name", "spoil", "message"),
    [
        ("report/drop_list.txt", lambda path: path.write_text(""), "report file drop_list.txt: another content"),
        ("data/a.txt", lambda path: path.write_text("Ada's kite\n"), "data/a.txt: another content"),
        ("data/b.jsonl", lambda path: path.unlink(), "data/b.jsonl: [Errno 2] No such file"),
    ],
)
def test_what_has_changed_is_named(night, stated, name, spoil, message):
    spoil(night / name)
    out, err, code = run("evidence", night / "report", "--check", stated)
    assert (out, code) == ("", 2)
    assert "evidence.json: not as stated:" in err
    assert message in err
    assert err.count("another content") + err.count("No such file") == 1


def test_other_files_are_no_statement(night, tmp_path):
    (tmp_path / "x.json").write_text("[]")
    assert run("evidence", night / "report", "--check", tmp_path / "x.json")[2] == 2
    with pytest.raises(ScannerError, match="no statement of evidence"):
        differences({"_type": 1}, night / "report")
    with pytest.raises(ScannerError, match="a statement of else; this overscan reads urn:overscan:evidence:1"):
        differences({"_type": "https://in-toto.io/Statement/v1", "predicateType": "else"}, night / "report")


def test_a_report_of_another_scan_is_refused(night, tmp_path):
    (tmp_path / "c.txt").write_text("a red barn\n")
    options = ["--model", BUNDLE, "--backend", "cpu", "--seeds", "1", "--store", tmp_path / "store"]
    run("scan", tmp_path / "c.txt", *options)
    _, err, code = run("evidence", night / "report", "--store", tmp_path / "store", "--out", tmp_path / "e.json")
    assert code == 2
    assert "no scan of scan_id" in err
    assert run("evidence", night / "report")[2] == 2
