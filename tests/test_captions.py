import gzip

import polars as pl
import pytest

from scanner.dataset.captions import prompt_id, read, unique_prompts
from scanner.dataset.readers import find_files
from scanner.errors import InputError


def texts(*inputs, column=None):
    return read(inputs, column).collect()["text"].to_list()


def test_every_format_gives_the_same_captions(tmp_path):
    captions = ["a cat", "dog; two, three", 'she said "hi"', "\u200fשלום", "日本 🎉"]
    frame = pl.DataFrame({"id": range(5), "caption": captions})
    frame.write_parquet(tmp_path / "a.parquet")
    frame.write_csv(tmp_path / "a.csv")
    frame.write_csv(tmp_path / "b.csv", separator=";")
    frame.write_csv(tmp_path / "a.tsv", separator="\t")
    frame.write_ndjson(tmp_path / "a.jsonl")
    (tmp_path / "a.txt").write_text("\n".join(captions))
    for file in tmp_path.iterdir():
        assert texts(file) == captions, file.name


@pytest.mark.parametrize("name", ["caption", "text", "prompt", "TEXT", "Caption", "sentence"])
def test_guesses_the_column(tmp_path, name):
    pl.DataFrame({"url": ["u"], name: ["a cat"]}).write_parquet(tmp_path / "a.parquet")
    (tmp_path / "a.jsonl").write_text(f'{{"url": "u", "{name}": "a cat"}}\n')
    assert texts(tmp_path) == ["a cat", "a cat"]


def test_missing_column_is_named(tmp_path):
    pl.DataFrame({"url": ["u"], "title": ["a cat"]}).write_parquet(tmp_path / "a.parquet")
    with pytest.raises(InputError, match="a caption column needed; it has 'url', 'title': name one with --column"):
        read([tmp_path / "a.parquet"])
    with pytest.raises(InputError, match="column 'nope' needed; it has 'url', 'title'"):
        read([tmp_path / "a.parquet"], "nope")
    assert texts(tmp_path / "a.parquet", column="title") == ["a cat"]


def test_files_are_found_once_and_in_order(tmp_path):
    for name in ("b.txt", "a.txt", "sub/c.txt", "sub/notes.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    found = find_files([tmp_path, str(tmp_path / "*.txt"), tmp_path / "a.txt"])
    assert [file.name for file in found] == ["a.txt", "b.txt", "c.txt"]
    with pytest.raises(InputError, match="no such file"):
        find_files([tmp_path / "none*.csv"])
    with pytest.raises(InputError, match=r"format \.md; needed one of"):
        find_files([tmp_path / "sub/notes.md"])


def test_bad_lines_are_rows_with_a_status(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"a cat\n\xff\xfe bad\n\n  a cat \r\nnul\x00x\n<b>html</b>\n")
    prompts = unique_prompts(read([tmp_path / "a.txt"]))
    assert prompts.select("text", "n_rows", "status").rows() == [
        ("a cat", 2, "pending"),
        ("\ufffd\ufffd bad", 1, "undecodable"),
        (None, 1, "null"),
        ("nul\x00x", 1, "pending"),
        ("<b>html</b>", 1, "pending"),
    ]


def test_bad_json_lines_are_null(tmp_path):
    (tmp_path / "a.jsonl").write_text(
        '{"caption": "a cat"}\n{"capt\n{"caption": null}\n{"caption": "\\u00e9 \\ud83d\\ude00"}\n'
    )
    assert texts(tmp_path / "a.jsonl") == ["a cat", None, None, "é 😀"]


def test_captions_are_nfc_normalised_and_stripped_only(tmp_path):
    frame = pl.DataFrame({"caption": ["e\u0301tude ", "\u00e9tude", "\u00c9tude", "a  b", None, "", " "]})
    frame.write_parquet(tmp_path / "a.parquet")
    prompts = unique_prompts(read([tmp_path / "a.parquet"]))
    assert prompts["text"].to_list() == ["\u00e9tude", "\u00c9tude", "a  b", None, ""]
    assert prompts["n_rows"].to_list() == [2, 1, 1, 1, 2]
    assert prompts["status"].to_list() == ["pending", "pending", "pending", "null", "empty"]


def test_prompt_ids_never_change():
    # b2sum -l 128 of the UTF-8 bytes
    assert prompt_id("a cat") == "6eda1d6f0337894464a66e34f5d33507"
    assert prompt_id(None) == "0" * 32
    assert prompt_id("é") != prompt_id("e")


def test_rows_count_records_from_zero_and_limit_counts_rows(tmp_path):
    (tmp_path / "a.csv").write_text('caption,x\n"two\nlines",1\nb,2\n')
    (tmp_path / "b.txt").write_text("c\nd\n")
    rows = read([tmp_path / "a.csv", tmp_path / "b.txt"], limit=3).collect()
    assert rows.select("row", "text").rows() == [(0, "two\nlines"), (1, "b"), (0, "c")]


def test_truncated_files_are_refused_by_name(tmp_path):
    frame = pl.DataFrame({"caption": ["a cat"] * 1000})
    frame.write_parquet(tmp_path / "a.parquet")
    whole = (tmp_path / "a.parquet").read_bytes()
    (tmp_path / "a.parquet").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"a\.parquet: cannot be read"):
        unique_prompts(read([tmp_path / "a.parquet"]))
    (tmp_path / "b.csv").write_text('caption\n"never closed\n')
    with pytest.raises(InputError, match="cannot be read"):
        unique_prompts(read([tmp_path / "b.csv"]))
    with gzip.open(tmp_path / "c.txt.gz", "wt") as file:
        file.write("x")
    with pytest.raises(InputError, match=r"format \.gz"):
        read([tmp_path / "c.txt.gz"])


def test_an_empty_file_has_no_rows(tmp_path):
    for name in ("a.txt", "a.jsonl"):
        (tmp_path / name).touch()
    assert unique_prompts(read([tmp_path])).is_empty()
