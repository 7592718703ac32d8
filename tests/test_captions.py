import polars as pl

from scanner.dataset.captions import as_prompt, read, unique_prompts
from scanner.identity import prompt_id


def test_bad_lines_are_rows_with_a_status(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"a cat\n\xff\xfe bad\n\n  a cat \r\nnul\x00x\n<b>html</b>\n")
    prompts = unique_prompts(read([tmp_path / "a.txt"]))
    assert prompts.select("text", "n_rows", "status").rows() == [
        ("a cat", 2, "to_score"),
        ("\ufffd\ufffd bad", 1, "undecodable"),
        (None, 1, "null"),
        ("nul\x00x", 1, "to_score"),
        ("<b>html</b>", 1, "to_score"),
    ]


def test_captions_are_nfc_normalised_and_stripped_only(tmp_path):
    frame = pl.DataFrame({"caption": ["e\u0301tude ", "\u00e9tude", "\u00c9tude", "a  b", None, "", " "]})
    frame.write_parquet(tmp_path / "a.parquet")
    prompts = unique_prompts(read([tmp_path / "a.parquet"]))
    assert prompts["text"].to_list() == ["\u00e9tude", "\u00c9tude", "a  b", None, ""]
    assert prompts["n_rows"].to_list() == [2, 1, 1, 1, 2]
    assert prompts["status"].to_list() == ["to_score", "to_score", "to_score", "null", "empty"]


def test_compatibility_characters_are_other_words():
    """NFKC would make them one with what they look like; a text encoder reads each as it is."""
    words = ["\ufb01sh", "fish", "x\u00b2", "x2", "\uff21", "A", "\u2460", "1", "\u2126", "\u00bd"]
    prompts = unique_prompts(pl.LazyFrame({"text": words}).select(as_prompt(pl.col("text"))))
    assert prompts["text"].to_list() == [*words[:8], "\u03a9", "\u00bd"]  # the ohm sign is canonically omega
    assert prompts["n_rows"].to_list() == [1] * 10


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
