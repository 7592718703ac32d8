"""Inputs that were read wrongly, silently lost, or ended a scan: each kind by a few of it."""

import ast
import base64
import bz2
import contextlib
import gzip
import io
import json
import lzma
import os
import socket
import struct
import tarfile
import zlib
from pathlib import Path

import polars as pl
import pytest

from scanner.dataset import captions as prompts
from scanner.dataset import images, readers
from scanner.dataset.readers.dialect import Dialect, told
from scanner.dataset.readers.lines import zstd
from scanner.errors import InputError
from tools import fuzz_inputs

ROOT = Path(__file__).parents[1]
COMMA = "delimiter=comma quotechar=quote escapechar=none doublequote=yes skipinitialspace=no"
NUMBER = "1" + "0" * 400


def read(*inputs, **options):
    rows = readers.read(inputs, **options)
    return rows.frame.collect(engine="streaming")["caption"].to_list()


def refusal(*inputs, **options):
    with pytest.raises(InputError) as error:
        read(*inputs, **options)
    return str(error.value)


def write(path, content):
    path.write_bytes(content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content)
    return path


def tar(path, members):
    with tarfile.open(path, "w:gz" if path.suffix == ".tgz" else "w") as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content.encode())
            archive.addfile(info, io.BytesIO(content.encode()))
    return path


# -- JSON: one record is read alike wherever it stands ---------------------------------------------------------------

RECORDS = [
    ('{"caption": "a cat", "sim": NaN}', ["a cat"]),
    ('{"caption": "a cat", "sim": -Infinity}', ["a cat"]),
    ('{"caption": "a cat", "n": 1e999}', ["a cat"]),
    (f'{{"caption": "a cat", "n": {NUMBER * 20}}}', ["a cat"]),
    (f'{{"caption": {NUMBER}}}', [NUMBER]),
    ('{"caption": 1e-07}', ["1e-07"]),
    ('{"caption": 1.50}', ["1.50"]),
    ('{"caption": Infinity}', ["Infinity"]),
    ('{"caption": NaN}', [None]),
    ('{"caption": "half \\ud83d"}', ["half \ufffd"]),
    ('{"caption": "\\ude00\\ud83d x"}', ["\ufffd\ufffd x"]),
    ('{"\\ud83d": 1, "caption": "a cat"}', ["a cat"]),
    ('{"caption": "\\ud83d\\ude00"}', ["😀"]),
    ('{"caption": "a\tb\x01c\x1fd\x0be\x7f"}', ["a\tb\x01c\x1fd\x0be\x7f"]),
    ('{"caption": "a\u2028b\x85c"}', ["a\u2028b\x85c"]),
    ('\ufeff{"caption": "a cat"}', ["a cat"]),
    ('{"caption": "a cat"}\ufeff', ["a cat"]),
    ('{"caption": "a cat", "n": ' + "[" * 100_000 + "]" * 100_000 + "}", ["a cat"]),
    ('{"n": ' + '{"n": [' * 5_000 + "]}" * 5_000 + ', "caption": "a cat"}', ["a cat"]),
    ('{"caption": ' + "[" * 5_000 + "]" * 5_000 + "}", [None]),
    ('{"caption": [null, "a cat"]}', [None, "a cat"]),
    ('{"caption": [["a"], "b", 1e-07, true]}', [None, "b", "1e-07", "true"]),
    ('{"caption": "first", "caption": "a cat"}', ["a cat"]),
    ('{"caption": {"en": "a"}}', [None]),
]


@pytest.mark.parametrize("form", ["jsonl", "jsonl.gz", "json", "coco.json", "index.json", "tar", "tgz"])
def test_json_records_are_read_alike_in_every_format(tmp_path, form):
    path = tmp_path / f"a.{form}"
    records = [('{"caption": "first"}', ["first"]), *RECORDS]
    if form not in ("jsonl", "jsonl.gz"):  # a mark inside a document is no JSON
        records = [(record.strip("\ufeff") if "json" in form else record, texts) for record, texts in records]
    lines = [record for record, _ in records]
    if form.startswith("jsonl"):
        content = "\n".join(lines).encode()
        write(path, gzip.compress(content) if form.endswith("gz") else content)
    elif form == "json":
        write(path, "[" + ",\n".join(lines) + "]")
    elif form == "coco.json":
        write(path, '{"info": {"a": 1}, "annotations": [' + ", ".join(lines) + "]}")
    elif form == "index.json":
        write(path, "{" + ", ".join(f'"{n}.jpg": {line}' for n, line in enumerate(lines)) + "}")
    else:
        tar(path, [(f"{n}.JSON", line) for n, line in enumerate(lines)])
    expected = [(row, text) for row, (_, texts) in enumerate(records) for text in texts]
    frame = readers.read([path]).frame.collect(engine="streaming")
    assert frame.select("row", "caption").rows() == expected


def test_a_caption_with_half_a_character_pair_is_a_row_that_says_so(tmp_path):
    write(tmp_path / "a.jsonl", '{"caption": "half \\ud83d"}\n{"caption": "ok"}\n')
    found = prompts.unique_prompts(prompts.texts(readers.read([tmp_path / "a.jsonl"])))
    assert found.select("text", "status").rows() == [("half \ufffd", "undecodable"), ("ok", "to_score")]


def test_mutated_lines_are_what_python_reads(tmp_path):  # a thousand by python -m tools.fuzz_inputs
    found = fuzz_inputs.run_json(250, tmp_path)
    assert (found["equal"], found["different"]) == (250, 0)


ORIENTS = {
    "records": [{"caption": "a", "u": 1}, {"caption": "b", "u": 2}],
    "columns": {"caption": {"0": "a", "1": "b"}, "u": {"0": 1, "1": 2}},
    "one column": {"caption": {"0": "a", "1": "b"}},
    "labels": {"u": {"x": 1, "y": 2}, "caption": {"x": "a", "y": "b"}},
    "lists": {"caption": ["a", "b"], "u": [1, 2]},
    "index": {"0": {"caption": "a", "u": 1}, "1": {"caption": "b", "u": 2}},
    "split": {"columns": ["u", "caption"], "index": [0, 1], "data": [[1, "a"], [2, "b"]]},
    "table": {"schema": {"fields": [{"name": "caption"}]}, "data": [{"caption": "a"}, {"caption": "b"}]},
    "splits": {"train": [{"caption": "a"}], "test": [{"caption": "b"}], "boxes": [{"x": 1}]},
}


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("orient", ORIENTS)
def test_pandas_orients_are_read_indented_or_not(tmp_path, orient, indent):
    path = write(tmp_path / "a.json", json.dumps(ORIENTS[orient], indent=indent))
    assert read(path) == read(path, column="Caption") == ["a", "b"]


def test_json_without_records_is_refused_by_what_it_holds(tmp_path):
    path = write(tmp_path / "a.json", '[["a", 1], ["b", 2]]')
    assert refusal(path) == f'{path}: lists without names (pandas\' orient "values"): write it with orient="records"'
    needed = "needed a list of records, COCO's 'annotations', JSON lines or one of pandas' orients; it has"
    write(path, json.dumps({f"{n:06}.jpg": {"w": 3} for n in range(5000)}))
    assert refusal(path).startswith(f"{path}: {needed} '000000.jpg', ")
    assert refusal(path).endswith(" and 4,990 more with records of 'w'")
    assert len(refusal(path)) < 400
    write(path, '{\n "caption": "a"\n}\n{\n "caption": "b"\n}\n')  # documents one behind the other
    assert read(path) == ["a", "b"]
    path = write(tmp_path / "a.jsonl", '{\n "caption": "a"\n}\n')
    assert refusal(path).startswith(f"{path}: its first line ends in '{{': one document over several lines, or ")
    path = write(tmp_path / "a.jsonl", "a cat\na dog\n")
    assert refusal(path) == f"{path}: no line of it is a JSON object; one document, indented or not, is a .json file"


@pytest.mark.parametrize("text", ['[\n{"caption":"a"},\n{"caption":"b"}\n]\n', '{"caption":"a"},\n{"caption":"b"}\n'])
def test_a_document_under_the_name_of_json_lines_is_refused(tmp_path, text):
    path = write(tmp_path / "a.jsonl", text)
    said = "one document over several lines, or commas between records; needed an object a line"
    assert said in refusal(path)
    assert read(write(tmp_path / "b.jsonl", '{"caption":"a"}\n{"caption":"b"},\n\n')) == ["a", None, None]
    rows = readers.read([tmp_path / "b.jsonl"])
    rows.frame.collect()
    assert rows.read[str(tmp_path / "b.jsonl")].reasons == {"no JSON": 1, "empty lines": 1}


KINDS = {
    "gzip": gzip.compress(b"a cat\n" * 99), "zstd": zstd.compress(b"a cat\n" * 99), "xz": lzma.compress(b"a cat\n"),
    "bzip2": bz2.compress(b"a cat\n"), "a zip archive or a spreadsheet": b"PK\x03\x04\x14\0\6\0\n" + bytes(80),
    "an image": b"\x89PNG\r\n\x1a\n" + bytes(99), "PDF": b"%PDF-1.4\n%\xe2\xe3\n1 0 obj\n",
    "Parquet": b"PAR1\x15\x04\x15\n\x15\x1cL\0",
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_text_is_refused_by_what_it_is(tmp_path, kind):
    for name in ("a.txt", "a.csv", "a.jsonl", "a.tsv", "a.json"):
        assert refusal(write(tmp_path / name, KINDS[kind])).endswith(
            f"{name}: {kind} under the name of a text; needed the name of what it is, or text in it"
        )
    if kind == "gzip":
        said = "a.tar: gzip under the name of a tar; needed a tar: rename it, to .tar.gz if it is packed"
        assert refusal(write(tmp_path / "a.tar", KINDS[kind])).endswith(said)


@pytest.mark.parametrize(
    "text", ["BZh is no word\n", "PK\x03\x04\n", "%PDF-file on a desk\na cat\n", "GIF89 party\n", "PAR1"]
)
def test_text_that_begins_like_another_kind_is_text(tmp_path, text):
    assert read(write(tmp_path / "a.txt", text)) == text.splitlines()


@pytest.mark.parametrize("sign", [",", "\t", ";", "|"])
def test_a_table_under_the_name_of_lines_is_refused(tmp_path, sign):
    table = f"image{sign}caption\n1.jpg{sign}A child, in a dress; there | ok .\n2.jpg{sign}A girl\n"
    assert refusal(write(tmp_path / "captions.txt", table)).endswith(
        "captions.txt: a table with the columns 'image', 'caption'; needed lines: rename it to .csv or .tsv"
    )
    for text in (
        f"image{sign} caption of a cat\na dog{sign} a cat\n",
        f"text{sign}prompt\na cat\n",
        "caption\na cat\n",
    ):
        assert read(write(tmp_path / "a.txt", text)) == text.splitlines()


def test_lines_that_are_all_empty_are_rows(tmp_path):
    assert read(write(tmp_path / "a.txt", "\n\n")) == [None, None]


def test_lines_with_a_tab_each_are_noted(tmp_path):
    rows = readers.read([write(tmp_path / "a.txt", "1.jpg#0\tA child\n1.jpg#1\tA girl\n")])
    rows.frame.collect()
    (found,) = rows.read.values()
    assert found.reading().notes[0].startswith("every line has a tab: if that divides columns")
    rows = readers.read([write(tmp_path / "b.txt", "a cat\nA\tgirl\n")])
    rows.frame.collect()
    assert [found.reading().notes for found in rows.read.values()] == [()]


def test_a_number_that_is_none_is_null_in_tables_too(tmp_path):
    frame = pl.DataFrame({"caption": [1.5, float("nan"), None]})
    frame.write_parquet(tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet") == ["1.5", None, None]


# -- no caption at all -----------------------------------------------------------------------------------------------

NO_TEXT = {
    "a.jsonl": ('{"caption": {"en": "a"}}\n' * 2, "column 'caption' holds 2 objects with the keys en"),
    "b.jsonl": ('{"text": [{"from": "x", "value": "y"}]}\n', "column 'text' holds 1 objects with the keys from, value"),
    "c.jsonl": ('{"caption": null}\n{"u": 1}\n', "column 'caption' holds 1 null, 1 no such key"),
    "a.json": ('[{"caption": []}, {"caption": [[1]]}]', "column 'caption' holds 1 empty lists, 1 lists in lists"),
    "a.csv": ("caption,u\n,1\n,2\n", "column 'caption' holds 2 empty fields"),
}


@pytest.mark.parametrize("name", NO_TEXT)
def test_a_column_that_is_never_text_is_an_error_that_names_what_was_found(tmp_path, name):
    content, found = NO_TEXT[name]
    path = write(tmp_path / name, content)
    needed = "needed text: name another with --column, or a key inside it as in --column a.b"
    assert refusal(path).endswith(f"{found}; {needed}")
    write(tmp_path / "sound.txt", "a kite")
    rows = readers.leave_out_damaged(readers.read([tmp_path]))
    assert [problem.file for problem in rows.problems] == [str(path)]
    assert rows.frame.collect()["caption"].to_list() == ["a kite"]


def test_a_null_column_of_any_table_is_an_error(tmp_path):
    frame = pl.DataFrame({"caption": [None, None]}, schema={"caption": pl.String})
    frame.write_parquet(tmp_path / "a.parquet")
    frame.write_ipc_stream(tmp_path / "a.arrow")
    for path in (tmp_path / "a.parquet", tmp_path / "a.arrow"):
        assert "no caption in 2 rows: column 'caption' holds nulls only" in refusal(path)


# -- CSV -------------------------------------------------------------------------------------------------------------

DIALECTS = {  # file -> text, captions, what is told
    "backslash.csv": ('caption,u\n"he said \\"hi\\" to me",1\n', ['he said "hi" to me'], "escapechar=backslash"),
    "doubled.csv": ('caption,u\n"he said ""hi""",1\n"x, \\n y",2\n', ['he said "hi"', "x, \\n y"], COMMA),
    "inch.csv": ('caption,url\nsize 12" wheel,u0\na bowl,u1\n', ['size 12" wheel', "a bowl"], COMMA),
    "unquoted.tsv": ('caption\turl\n"open\tu0\nb\tu1\nend"\tu2\n', ['"open', "b", 'end"'], "quotechar=none"),
    "quoted.tsv": ('caption\turl\n"a ""b"" c"\tu0\n"d\te"\tu1\n', ['a "b" c', "d\te"], "quotechar=quote"),
    "behind.tsv": ('caption\turl\n"a" cat\tu0\n"b"\tu1\n', ['"a" cat', '"b"'], "quotechar=none"),
    "escaped.tsv": ("id\tcaption\n1\ta\\\tb\n2\tc\n", ["a\tb", "c"], "escapechar=backslash"),
    "spaces.csv": ("u| caption\n1.jpg| two dogs\n", ["two dogs"], "skipinitialspace=yes"),
    "blanks.csv": ('u, caption\n1, "two, dogs"\n', ["two, dogs"], "skipinitialspace=yes"),
    "single.csv": ("id,caption\n1,'a, b'\n2,'c'\n", ["a, b", "c"], "quotechar='"),
    "never.csv": ('caption,x\na,1\n"never closed,2\n', ["a", '"never closed'], "quotechar=none"),
    "behind.csv": ('caption,x\n"a" cat,1\nb,2\n', ['"a" cat', "b"], "quotechar=none"),
    "lines.csv": ('caption,u\r\n"two\r\nlines",1\r\n', ["two\r\nlines"], COMMA),
    "mac.csv": ("caption,u\ra,1\rb,2\r", ["a", "b"], COMMA),
    "large.csv": ('caption,u\n"' + "x" * 200_000 + '",1\n', ["x" * 200_000], COMMA),
    "semicolons.csv": ("id;caption\n1;a, b\n2;c, d, e\n", ["a, b", "c, d, e"], "delimiter=semicolon"),
    "bom.csv": ("\ufeff caption ,u\na,1\n", ["a"], COMMA),
    "excel.csv": ("\ufeffsep=;\r\nid;caption\r\n1;a, b\r\n", ["a, b"], "delimiter=semicolon"),
    "quoted.csv": ('"sep=|"\nid|caption\n1|"a, ""b"""\n', ['a, "b"'], "delimiter=pipe"),
    "tabs.csv": ("SEP=\t\nid\tcaption\n1\ta, b\n", ["a, b"], "delimiter=tab"),
    "header.csv": ('id,"caption\n(en)",u\n1,"a\nb",2\n', ["a\nb"], COMMA),
    "named.csv": ("sep=,caption\n1,a\n", ["a"], COMMA),
}


@pytest.mark.parametrize("name", DIALECTS)
def test_csv_dialects_are_found_and_told(tmp_path, name):
    text, expected, dialect = DIALECTS[name]
    column = "caption\n(en)" if name == "header.csv" else None
    rows = readers.read([write(tmp_path / name, text)], column)
    assert rows.frame.collect()["caption"].to_list() == expected
    (found,) = rows.read.values()
    assert dialect in found.reading().dialect


def test_csv_files_are_what_python_reads_in_the_dialect_told(tmp_path):  # 1,500 by python -m tools.fuzz_inputs
    found = fuzz_inputs.run_csv(200, tmp_path)
    assert found["equal"] == 200


def test_a_csv_dialect_may_be_told_in_part(tmp_path):
    path = write(tmp_path / "a.csv", 'caption,u\n"a, b",1\n')
    assert read(path, dialect="quotechar=none") == [None]
    assert read(path, dialect="quotechar=quote delimiter=,") == ["a, b"]
    assert told("delimiter=tab quotechar=none skipinitialspace=yes") == {
        "delimiter": "\t", "quotechar": None, "skipinitialspace": True,
    }  # fmt: skip
    assert told(str(Dialect(";", None, "\\", False, True))) == {
        "delimiter": ";", "quotechar": None, "escapechar": "\\", "doublequote": False, "skipinitialspace": True,
    }  # fmt: skip
    for wrong in ("delimiter=ab", "quote=none", "doublequote=maybe", "quotechar"):
        with pytest.raises(InputError, match="csv dialect"):
            told(wrong)


def test_a_dialect_without_a_csv_file_is_refused(tmp_path):
    path = write(tmp_path / "a.txt", "a\n")
    assert refusal(path, dialect="quotechar=none") == "csv dialect 'quotechar=none': none of the inputs is a CSV file"
    assert refusal(path, dialect="quotes=none").startswith("csv dialect 'quotes=none': needed words such as delimiter=")


def test_a_csv_file_cut_inside_a_quote_says_in_which_line(tmp_path):
    records = "".join(f'"a, {n}","u"\n' for n in range(50))
    rows = readers.read([write(tmp_path / "a.csv", f'caption,u\n{records}"cut, he\nre')])
    assert rows.frame.collect()["caption"].to_list() == [*(f"a, {n}" for n in range(50)), "cut, he\nre"]
    (found,) = rows.read.values()
    assert found.reading().notes == ("a quote opens in line 52 that never closes: 2 lines are one record",)


def test_records_that_do_not_fit_are_rows_without_a_caption(tmp_path):
    rows = readers.read([write(tmp_path / "a.csv", "u,caption\n1,a,b\n2,ok\n3\n\n5,\n")])
    assert rows.frame.collect()["caption"].to_list() == [None, "ok", None, None, None]
    (found,) = rows.read.values()
    assert found.reading().notes == ("records that do not fit the header begin in line 2, 4",)
    assert found.reasons == {
        "records with more fields than the header": 1,
        "records with fewer fields than the header": 1,
        "empty lines": 1,
        "empty fields": 1,
    }


def test_records_that_do_not_fit_are_noted_with_their_lines(tmp_path):
    lines = ["sep=,", "u,caption", '1,"two', 'lines"', *(f"{n},a,b" for n in range(7)), "8,ok", '9,"a', 'b",c']
    rows = readers.read([write(tmp_path / "a.csv", "\n".join(lines))])
    assert rows.frame.collect()["caption"].to_list() == ["two\nlines", *[None] * 7, "ok", None]
    (found,) = rows.read.values()
    assert found.reading().notes == ("records that do not fit the header begin in line 5, 6, 7, 8, 9 and 3 more",)


@pytest.mark.parametrize("text", ['caption,u\n"two\r\nlines",1\n"o\nne",2\r\n"\r\n",3\r"', 'caption\r\n"a\r\n\nb"\n'])
def test_packed_csv_is_read_as_the_plain_file_to_the_character(tmp_path, text):
    plain = write(tmp_path / "a.csv", text)
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(text.encode()))
    (tmp_path / "a.csv.zst").write_bytes(zstd.compress(text.encode()[:9]) + zstd.compress(text.encode()[9:]))
    assert read(plain)[0] in ("two\r\nlines", "a\r\n\nb")
    assert read(tmp_path / "a.csv.gz") == read(tmp_path / "a.csv.zst") == read(plain)


# -- columns ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["Caption", "CAPTIONS", " text ", "Prompts", "SENTENCE", "captions"])
def test_usual_names_in_any_case_and_number(tmp_path, name):
    frame = pl.DataFrame({"url": ["u"], name: ["a kite"]})
    frame.write_csv(tmp_path / "a.csv")
    frame.write_parquet(tmp_path / "a.parquet")
    frame.write_ndjson(tmp_path / "a.jsonl")
    assert read(tmp_path) == ["a kite"] * 3
    assert read(tmp_path, column=name.strip().swapcase()) == ["a kite"] * 3


def test_keys_that_come_late_are_found(tmp_path):
    records = ['{"image": 1}'] * 1100 + ['{"caption": "a"}']
    write(tmp_path / "a.jsonl", "\n".join(records))
    write(tmp_path / "a.json", f"[{','.join(records)}]")
    tar(tmp_path / "a.tar", [(f"{n}.json", record) for n, record in enumerate(records)])
    for path in sorted(tmp_path.iterdir()):
        assert read(path) == read(path, column="caption") == [None] * 1100 + ["a"]


def test_nested_and_several_columns(tmp_path):
    records = [{"id": 1, "Task2": {"Caption": "a"}, "alt": "b", "talk": [{"value": "c"}, {"value": "d"}]}]
    pl.DataFrame(records).write_parquet(tmp_path / "a.parquet")
    pl.DataFrame(records).write_ipc_stream(tmp_path / "a.arrow")
    write(tmp_path / "a.jsonl", json.dumps(records[0]))
    write(tmp_path / "a.json", json.dumps(records))
    tar(tmp_path / "a.tar", [("0.json", json.dumps(records[0]))])
    for path in sorted(tmp_path.iterdir()):
        assert read(path, column="Task2.Caption") == read(path, column="task2.caption") == ["a"], path
        assert read(path, column="talk.value") == ["c", "d"], path
        frame = readers.read([path], "Task2.Caption, alt").frame.collect()
        assert frame.select("row", "caption").rows() == [(0, "a"), (0, "b")], path
        assert "column 'Task2.None' needed" in refusal(path, column="Task2.None")
    talk = {"messages": [{"content": [{"text": "a"}, {"type": "image"}]}, {"content": [{"text": ["b", "c"]}]}]}
    assert read(write(tmp_path / "b.jsonl", json.dumps(talk)), column="messages.content.text") == ["a", None, "b", "c"]
    write(tmp_path / "a.csv", 'alt,"a, b",Task2.Caption\n1,2,3\n')
    assert [read(tmp_path / "a.csv", column=name) for name in ("a, b", "Task2.Caption", "alt,Task2.Caption")] == [
        ["2"], ["3"], ["1", "3"],
    ]  # fmt: skip


def test_a_column_asked_of_plain_text_is_refused(tmp_path):
    path = write(tmp_path / "a.txt", "a\n")
    message = f"{path}: plain text has no columns, and --column title was asked: leave out one of the two"
    assert refusal(path, column="title") == message


def test_a_column_that_is_not_there_lists_few_names(tmp_path):
    path = write(tmp_path / "a.jsonl", json.dumps({f"key{n}" * 9: 1 for n in range(5000)}))
    assert len(refusal(path)) < 700
    assert "and 4,990 more: name one with --column" in refusal(path)


# -- tars and Arrow --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("extension", ["caption", "TXT", "Caption", "text", "PROMPT", "Captions", "JSON"])
def test_members_that_are_guessed_are_read_in_any_case(tmp_path, extension):
    content = '{"caption": "a kite"}' if extension == "JSON" else "a kite"
    assert read(tar(tmp_path / "a.tar", [(f"0.{extension}", content), ("0.jpg", "x")])) == ["a kite"]
    assert read(tar(tmp_path / "b.tar", [("0.Alt", "a kite"), ("0.jpg", "x")]), column="aLT") == ["a kite"]


def member(name, size, body=b"", packed=False):
    info = tarfile.TarInfo(name)
    info.size = size
    content = info.tobuf(tarfile.GNU_FORMAT) + body + bytes(1024)
    return gzip.compress(content) if packed else content


@pytest.mark.parametrize("name", ["a.tar", "a.tgz", "a.tar.gz"])
def test_a_member_that_declares_a_terabyte_ends_at_once(tmp_path, name):
    path = write(tmp_path / name, member("0.txt", 1 << 40, packed=not name.endswith(".tar")))
    assert "a damaged or truncated tar (a member of 1,099,511,627,776 bytes in a file of" in refusal(path)


# streams of pyarrow: two batches, the dictionary of the second replaces or adds to that of the first
STREAMS = {
    'replaced': (
        'c-rMryA8rH6ubn7SSUq`2&K#jumfe52+$xQpddY?P%;WznX~;&J_-x~PkKJv@6LW_8)M89Kn@!VWSAp?=8O?3D8h{#i!rli7LH$#'
        'HAhN?U3q<!<Wg7g5iwilooD1I-x{kA8q41>tDY`p?wZT>a6VC^UB!;}HqB9!q2&s%^S$yK^N=3k_=PyioEEWiwNmQdsXsfsK}n{P'
        'N-g^_x|rc}WP-V1Ul)zmQ~S-<qmh5<d@P4PX3BY}-lq)vK2G$VeCb<{aJ(OUg?CduPCVi3lh05K`gYZ>@dN+1+yC#sS$qMX12b{'
    ),
    'nested': (
        'c-q}jITC_E5bTBJC~E@($|5i@@F|8q!35EOz#|~^F@`?DXZWLaW*N@HvJ7>oW_FGqrdeyPeF8|pHiJQk05P4&l!hjEr5^T*kh<QK'
        'IzmL$%~8!&hHDE#)4L)>gd)FG<@tmg%}J28T%IG`fVpeJQuq*GR)-^>V|qBlZ{uP^h+NDAYMySn^eKCnec?E%C^L=^PrF(s^;&T~'
        'zxfv#b!w?>B=4a!AMeeGPsI0mY7|f9^IfOoG0-s|>hQJGkhN2Wdv7Q9)?e(6Q5^Sj-h_@%x|;ac@2A-R|NZd!1(3`!m;'
    ),
    'two': (
        'c-q}mOHRWu5PeSE#zJ0LRfV!((W9_n$r0EDT0|vOSXAP38kSvl$&t8)d1JfHM@glw5E<!tCiBZYj}q^_{{b+^K`vl1#RP^HMQLcN'
        'CG$jQ#1kR*o<1f_r1qM)N`8@?sGhg%GAA?vIBADkcA*|>!Q+dzL&>};3Qpiy=R#KOe?u%9{R`rudfl#HHmorrBBvz`Ps0ooQ&p^s'
        'Jop;FYw)$SB3m13k?9aCQ#{^6J-^&f$xNLhx5=M1c;y%to3u;1S*JSBeg5h`YT>azi^uG^hqASYzvc7(QS<q3@wsgC$#t094a|Ml'
        'Gq*l5x9R9p{;Y?`5U+zC%YHuJ#<3sO(f|EFuzDQtcO&*M?IKN2'
    ),
    'delta': (
        'c-oaxF>b>!45Vb)77C-#U=$uRc1-$)j`>8IsX)<osP{glW5+%tzfw*jl_-Mkqy%VMB2VJ!=)Ly`B61Y$jyh_nCW}9qGGq|GQ4^wu'
        'Z{dBc?@`rI3q)8kUe!+WhS(H*g#X|SN5csd@Cg&@pW&+v*TVO^&#%{ycVKMHgm1Xb;%iZ1<qF1eueiqlN)Ht4dtuZ?ENK&SgXEbh'
        'pPk-dK&6q)R`xZWt)hABBsz&XP8I8^{oM;kFS?w0JY4dqOysaSopRat+eF{>Lf^KC<$mIo-pyn+dV<#+&y-8}aXoGl-@hfkn)$kn'
        '?|tmA<ypn?OZurB^()^&75%FjUVHkVZjV=Vt8Ub-oHr`gDW*AT3XRIQsIJUsu3sbijZe%w<c`>@GxG'
    ),
}  # fmt: skip


def stream(path, name):
    return write(path, zlib.decompress(base64.b85decode(STREAMS[name])))


def test_each_arrow_batch_has_the_dictionary_that_holds_then(tmp_path):
    assert read(stream(tmp_path / "a.arrow", "replaced")) == ["a", "b", "c", "d"]
    assert read(stream(tmp_path / "a.arrow", "nested")) == ["a", "b", "c", "d"]
    path = stream(tmp_path / "a.arrow", "two")
    assert read(path) == ["a", "b", "b", "a", "e", "f"]
    assert read(path, column="alt") == ["x", "y", "w", "z", "z", "w"]
    path = stream(tmp_path / "a.arrow", "delta")
    needed = "needed whole ones: write it again without them"
    assert refusal(path) == f"{path}: Arrow with delta dictionaries; {needed}"


def test_arrow_messages_of_impossible_lengths_end_at_once(tmp_path):
    whole = zlib.decompress(base64.b85decode(STREAMS["replaced"]))
    pl.DataFrame({"caption": ["a"]}).write_ipc_stream(tmp_path / "b.arrow")
    plain = (tmp_path / "b.arrow").read_bytes()
    for content in (whole, plain):
        for at in range(4, len(content) - 8, 12):
            for value in (-8, -(1 << 31), 1 << 30):
                changed = content[:at] + struct.pack("<i", value) + content[at + 4 :]
                path = write(tmp_path / "a.arrow", changed)
                with contextlib.suppress(InputError):
                    read(path)


@pytest.mark.parametrize("form", ["arrow", "feather"])
def test_packed_arrow_buffers_that_declare_a_petabyte_are_refused(tmp_path, form):  # Polars ends the process
    path, frame = tmp_path / f"a.{form}", pl.DataFrame({"caption": ["a kite", None, "two boats"] * 9})
    frame.write_ipc_stream(path, compression="zstd") if form == "arrow" else frame.write_ipc(path, compression="zstd")
    assert read(path) == frame["caption"].to_list()
    whole, refused = path.read_bytes(), 0
    for at in range(8, len(whole) - 8, 8):
        write(path, whole[:at] + struct.pack("<q", 1 << 50) + whole[at + 8 :])
        try:
            read(path)
        except InputError as error:
            refused += "a broken message in Arrow IPC" in str(error)
    assert refused > 3


# -- one bad file among good ones ------------------------------------------------------------------------------------


def test_whatever_one_file_raises_is_its_own_problem(tmp_path):
    good = write(tmp_path / "good.csv", "caption\na kite\n")
    bad = {
        "deep.json": "[" * 100_000,
        "deep2.json": '{"a": ' * 50_000,
        "cut.json": '[{"caption": "a"}, {"capt',
        "half.arrow": b"\xff\xff\xff\xff" + struct.pack("<i", -5) + bytes(50),
        "short.arrow": b"\xff\xff\xff\xff" + struct.pack("<i", 16) + b"\xff" * 16,
        "junk.parquet": b"PAR1" + b"\xff" * 200 + b"PAR1",
        "junk.feather": b"ARROW1\0\0" + b"\xff" * 200 + b"ARROW1",
        "noise.tar": b"\xff" * 2048 + bytes(1024),
        "junk.tgz": b"\x1f\x8b" + b"\xff" * 200,
        "junk.csv.gz": b"no gzip",
        "junk.json.gz": b"\x1f\x8b\x08" + bytes(50),
        "cut.jsonl.gz": gzip.compress(b'{"caption": "a"}\n' * 150_000, 1)[:-9],
    }
    for name, content in bad.items():
        write(tmp_path / name, content)
    opened = readers.read([tmp_path])
    with pytest.raises(InputError):
        opened.frame.collect(engine="streaming")
    rows = readers.leave_out_damaged(opened)
    assert rows.frame.collect().rows() == [(str(good), 0, "a kite")]
    assert {Path(problem.file).name for problem in rows.problems} == bad.keys()
    for problem in rows.problems:
        assert problem.message.startswith(f"{problem.file}: ")
    with pytest.raises(InputError, match=f"{len(bad)} of {len(bad) + 1} files cannot be read"):
        readers.leave_out_damaged(readers.read([tmp_path]), strict=True)


def test_pipes_sockets_and_links_to_nothing_do_not_hang_a_folder(tmp_path):
    write(tmp_path / "a.txt", "ok")
    os.mkfifo(tmp_path / "p.txt")
    (tmp_path / "l.csv").symlink_to(tmp_path / "none.csv")
    with contextlib.chdir(tmp_path), socket.socket(socket.AF_UNIX) as here:
        here.bind("s.jsonl")
    rows = readers.read([tmp_path])
    assert rows.frame.collect()["caption"].to_list() == ["ok"]
    assert {Path(problem.file).name: problem.message.partition(": ")[2] for problem in rows.problems} == {
        "l.csv": "a link to nothing",
        "p.txt": "a pipe or device; needed a file",
        "s.jsonl": "a pipe or device; needed a file",
    }


def test_a_file_name_that_is_no_utf8_is_read_and_shown_with_escapes(tmp_path):
    write(tmp_path / "a.txt", "ok")
    for name in (b"stra\xdfe.txt", b"stra\xdfe.csv", b"stra\xdfe.json"):
        write(
            Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)),
            '["caption"]' if b"json" in name else "caption\na kite",
        )
    found = readers.read([tmp_path]).frame.collect()
    shown = "stra\\xdfe"
    assert [(Path(file).name, caption) for file, _, caption in found.rows()] == [
        ("a.txt", "ok"), (f"{shown}.csv", "a kite"), (f"{shown}.json", "caption"), (f"{shown}.txt", "caption"),
        (f"{shown}.txt", "a kite"),
    ]  # fmt: skip


def test_names_of_files_are_escaped_in_messages(tmp_path):
    folder = tmp_path / "a\n::error title=x::y"
    folder.mkdir()
    for name in ("b\n::error::.parquet", "c\x1b[31m.csv", "d\u202e.json", "e\r::stop.tar", "f\n.txt.bz2", "g\n.arrow"):
        write(folder / name, "junk")
    write(folder / "h\n::error::.jsonl", '{"::error::\\n::x": 1}')
    write(folder / "ok.txt", "a kite")
    os.mkfifo(folder / "i\n::error::.txt")
    rows = readers.read([folder])
    assert len(rows.problems) == 8
    for message in (*(problem.message for problem in rows.problems), refusal(folder / "none\n::error::*")):
        assert message.isprintable(), message


# -- images and encodings ---------------------------------------------------------------------------------------------


def test_an_image_that_declares_very_many_pixels_is_refused_before_it_is_decoded():
    from PIL import Image

    out = io.BytesIO()
    Image.new("1", (40, 40)).save(out, "PNG")
    data = bytearray(out.getvalue())
    data[16:24] = struct.pack(">II", 13_000, 13_000)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    with pytest.raises(InputError) as error:
        images.decode(bytes(data), 64, 64)
    needed = "needed 67,108,864 pixels or fewer: scale it down"
    assert str(error.value) == f"an image of 13,000 x 13,000 pixels; {needed}"


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_a_large_image_made_smaller_first_stays_upright_and_the_same(monkeypatch, form):
    from PIL import Image

    slope = Image.linear_gradient("L").resize((900, 700))
    picture, out = Image.merge("RGB", [slope, slope.rotate(180), Image.new("L", slope.size, 60)]), io.BytesIO()
    exif = Image.Exif()
    exif[0x112] = 6  # turned by 90 degrees
    picture.save(out, form, exif=exif)
    whole = images.decode(out.getvalue(), 32, 32)
    monkeypatch.setattr(images, "LARGE", 1000)
    assert abs(images.decode(out.getvalue(), 32, 32) - whole).max() < 0.03  # of 2: another filter, before the first


def test_every_file_is_read_in_a_named_encoding():
    for path in (path for folder in ("scanner", "engines", "tools") for path in (ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "read_text":
                assert node.args or node.keywords, f"{path}:{node.lineno}"
