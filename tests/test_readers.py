"""Every input format, whole and damaged."""

import gzip
import io
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
import zlib
from pathlib import Path

import polars as pl
import pytest
from deltalake import DeltaTable, write_deltalake

from scanner.dataset import readers
from scanner.errors import InputError, PlaceError

CAPTIONS = ["a cat", "dog; two, three", 'she said "hi"', "\u200fשלום", "日本 🎉"]
FRAME = pl.DataFrame({"id": range(5), "caption": CAPTIONS})


def rows(*inputs, column=None, limit=None):
    frame = readers.read(inputs, column, limit, strict=True).frame.collect(engine="streaming")
    return frame.select("row", "caption").rows()


def captions(*inputs, column=None):
    return [caption for _, caption in rows(*inputs, column=column)]


def refusal(*inputs, column=None):
    """The message, with the folder left out."""
    with pytest.raises(InputError) as error:
        readers.read(inputs, column).frame.collect(engine="streaming")
    return str(error.value).replace(f"{Path(inputs[0]).parent}/", "")


def write_tar(path, members, mode="w"):
    with tarfile.open(path, mode) as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


def write_coco(path, captions):
    annotations = [{"image_id": n // 2, "id": n, "caption": caption} for n, caption in enumerate(captions)]
    others = {"info": {"year": 2017}, "images": [{"id": 0, "x": [[1, 2]]}], "licenses": []}
    path.write_text(json.dumps(others | {"annotations": annotations}))


def write_dataset(folder, *shards):
    """As Hugging Face's Dataset.save_to_disk does."""
    folder.mkdir(parents=True)
    names = [f"data-{n:05}-of-{len(shards):05}.arrow" for n in range(len(shards))]
    for name, shard in zip(names, shards, strict=True):
        shard.write_ipc_stream(folder / name)
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name} for name in names]}))
    (folder / "dataset_info.json").write_text("{}")


def test_every_format_gives_the_same_captions(tmp_path):
    FRAME.write_parquet(tmp_path / "a.parquet")
    FRAME.write_csv(tmp_path / "a.csv")
    FRAME.write_csv(tmp_path / "b.csv", separator=";")
    FRAME.write_csv(tmp_path / "c.csv", separator="|")
    FRAME.select("caption").write_csv(tmp_path / "d.csv")
    FRAME.write_csv(tmp_path / "a.tsv", separator="\t")
    FRAME.write_ndjson(tmp_path / "a.jsonl")
    FRAME.write_ndjson(tmp_path / "lines.json")
    FRAME.write_json(tmp_path / "list.json")
    FRAME.write_ipc(tmp_path / "a.feather")
    FRAME.write_ipc(tmp_path / "a.arrow", compression="zstd")
    FRAME.write_ipc_stream(tmp_path / "stream.arrow")
    (tmp_path / "strings.json").write_text(json.dumps(CAPTIONS))
    (tmp_path / "pretty.json").write_text(json.dumps(FRAME.to_dicts(), indent=2))
    (tmp_path / "a.txt").write_text("\n".join(CAPTIONS))
    write_coco(tmp_path / "coco.json", CAPTIONS)
    write_tar(tmp_path / "txt.tar", [(f"{n:05}.txt", caption.encode()) for n, caption in enumerate(CAPTIONS)])
    write_tar(
        tmp_path / "json.tar", [(f"x/{n}.json", json.dumps(row).encode()) for n, row in enumerate(FRAME.to_dicts())]
    )
    write_tar(tmp_path / "a.tgz", [(f"{n}.txt", caption.encode()) for n, caption in enumerate(CAPTIONS)], "w:gz")
    for name in ("a.csv", "a.tsv", "a.jsonl", "a.txt", "coco.json", "list.json"):
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress((tmp_path / name).read_bytes()))
    files = [file for file in tmp_path.iterdir() if file.is_file()]
    assert len(files) == 25
    for file in files:
        assert rows(file) == list(enumerate(CAPTIONS)), file.name


@pytest.mark.skipif(shutil.which("zstd") is None, reason="needs the zstd command to write")
@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.txt"])
def test_zstd_is_read_as_gzip_is(tmp_path, name):
    (tmp_path / "a.csv").write_text("caption,x\na cat,1\n")
    (tmp_path / "a.jsonl").write_text('{"caption": "a cat"}\n')
    (tmp_path / "a.txt").write_text("a cat\n")
    subprocess.run(["zstd", "-q", tmp_path / name], check=True)
    assert captions(tmp_path / f"{name}.zst") == ["a cat"]


@pytest.mark.parametrize("name", readers.COLUMN_GUESSES)
def test_guesses_the_column(tmp_path, name):
    frame = pl.DataFrame({"url": ["u"], name: ["a cat"]})
    frame.write_parquet(tmp_path / "a.parquet")
    frame.write_ndjson(tmp_path / "a.jsonl")
    frame.write_json(tmp_path / "a.json")
    frame.write_ipc_stream(tmp_path / "a.arrow")
    write_tar(tmp_path / "a2.tar", [("0.json", json.dumps({"url": "u", name: "a cat"}).encode()), ("0.jpg", b"...")])
    assert captions(tmp_path) == ["a cat"] * 5


def test_the_first_guess_wins_and_a_named_column_beats_it(tmp_path):
    FRAME.select("caption", text="id", prompt=pl.lit("p")).write_csv(tmp_path / "a.csv")
    assert captions(tmp_path / "a.csv") == CAPTIONS
    assert captions(tmp_path / "a.csv", column="prompt") == ["p"] * 5


@pytest.mark.parametrize("suffix", ["parquet", "csv", "jsonl", "json", "arrow", "tar"])
def test_a_missing_column_is_refused_with_those_found(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    frame = pl.DataFrame({"url": ["u"], "title": ["a cat"]})
    if suffix == "tar":
        write_tar(path, [("0.json", b'{"url": "u", "title": "a cat"}')])
    else:
        {"parquet": frame.write_parquet, "csv": frame.write_csv, "jsonl": frame.write_ndjson}.get(
            suffix, frame.write_json if suffix == "json" else frame.write_ipc_stream
        )(path)
    found = "it has 'url', 'title': name one with --column"
    assert refusal(path) == f"{path.name}: a caption column needed; {found}"
    assert refusal(path, column="nope") == f"{path.name}: column 'nope' needed; {found}"
    assert captions(path, column="title") == ["a cat"]


def test_rows_count_records_from_zero_and_limit_counts_rows(tmp_path):
    (tmp_path / "a.csv").write_text('caption,x\n"two\nlines",1\nb,2\n')
    (tmp_path / "b.txt").write_text("c\nd\n")
    assert rows(tmp_path, limit=3) == [(0, "two\nlines"), (1, "b"), (0, "c")]


# -- which files ------------------------------------------------------------------------------------------------------


def files(*inputs):
    return [Path(source).name for source in readers.find.sources(inputs, list(readers.FORMATS)).files]


def test_files_are_found_once_in_order_and_hidden_ones_are_not(tmp_path):
    for name in ("b.txt", "a.txt", "sub/c.txt", "sub/notes.md", ".d.txt", "_SUCCESS", "_tmp/e.txt", ".git/f.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    assert files(tmp_path, str(tmp_path / "*.txt"), tmp_path / "a.txt") == ["a.txt", "b.txt", "c.txt"]
    assert files(tmp_path / "**/c.txt", tmp_path / ".d.txt") == ["c.txt", ".d.txt"]
    assert captions(tmp_path / "a*.txt") == ["a.txt"]


def test_img2dataset_captions_are_read_once(tmp_path):
    for shard in ("00000", "00001"):
        write_tar(tmp_path / f"{shard}.tar", [("000000000.txt", b"a cat"), ("000000000.json", b'{"caption": "a cat"}')])
        pl.DataFrame({"caption": ["a cat"], "key": ["000000000"]}).write_parquet(tmp_path / f"{shard}.parquet")
        (tmp_path / f"{shard}_stats.json").write_text("{}")
    assert files(tmp_path) == ["00000.parquet", "00001.parquet"]
    assert files(tmp_path / "*.tar") == ["00000.parquet", "00001.parquet"]
    (tmp_path / "00001.parquet").unlink()
    assert files(tmp_path) == ["00000.parquet", "00001.tar"]
    (tmp_path / "00002").mkdir()  # img2dataset's output_format=files
    (tmp_path / "00002/000020000.txt").write_text("a cat")
    pl.DataFrame({"caption": ["a cat"]}).write_parquet(tmp_path / "00002.parquet")
    assert files(tmp_path) == ["00000.parquet", "00001.tar", "00002.parquet"]


def test_hugging_face_datasets_on_disk(tmp_path):
    write_dataset(tmp_path / "data/train", FRAME.head(2), FRAME.tail(3))
    write_dataset(tmp_path / "data/test", FRAME.head(1))
    FRAME.write_ipc_stream(tmp_path / "data/train/cache-0123456789abcdef.arrow")  # a cache of .map()
    (tmp_path / "data/dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    assert rows(tmp_path / "data/train") == [(0, CAPTIONS[0]), (1, CAPTIONS[1]), *enumerate(CAPTIONS[2:])]
    assert captions(tmp_path / "data") == [CAPTIONS[0], *CAPTIONS]
    (tmp_path / "data/train/data-00001-of-00002.arrow").unlink()
    found = readers.read([tmp_path / "data"])
    assert [problem.file for problem in found.problems] == [str(tmp_path / "data/train/data-00001-of-00002.arrow")]
    assert "No such file" in found.problems[0].message


def test_inputs_that_name_nothing(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.md").touch()
    (tmp_path / "a.tsv.bz2").touch()
    os.mkfifo(tmp_path / "pipe.txt")
    known = ".parquet, .csv, .tsv, .jsonl, .ndjson, .txt, .caption, .arrow, .feather, .json, .tar, .tgz"
    known += " (text also .gz, .zst)"
    assert refusal(tmp_path / "none*.csv") == f"none*.csv: no such file, or none of {known} in it"
    assert refusal(tmp_path / "empty") == f"empty: no such file, or none of {known} in it"
    assert refusal(tmp_path / "notes.md") == f"notes.md: format .md; needed one of {known}"
    assert refusal(tmp_path / "a.tsv.bz2") == f"a.tsv.bz2: packed as .bz2; needed one of {known}: unpack it"
    assert refusal(tmp_path / "pipe.txt") == "pipe.txt: a pipe or device; needed a file: write the captions to one"
    assert refusal("ftp://host/a.csv").startswith(
        "ftp://host/a.csv: needed a path or one of s3://, gs://, az://, hf://"
    )
    refused = readers.find.sources([tmp_path], list(readers.FORMATS)).refused  # not passed over in silence
    assert refused == {
        f"{tmp_path}/a.tsv.bz2": f"packed as .bz2; needed one of {known}: unpack it",
        f"{tmp_path}/pipe.txt": "a pipe or device; needed a file",
    }


def test_thousands_of_files(tmp_path):
    for n in range(1000):
        (tmp_path / f"{n:04}.txt").write_text(f"{n} cats\nmore")
    frame = readers.read([tmp_path]).frame.collect(engine="streaming")
    assert frame["row"].to_list() == [0, 1] * 1000
    assert frame["caption"][-2] == "999 cats"


# -- values -----------------------------------------------------------------------------------------------------------


def test_columns_that_are_not_text(tmp_path):
    frame = pl.DataFrame(
        {
            "int": [7, None],
            "several": [["a", "b"], []],
            "array": pl.Series([["a", "b"], ["c", None]], dtype=pl.Array(pl.String, 2)),
            "binary": [b"a cat", b"\xff"],
            "category": pl.Series(["a", "b"], dtype=pl.Categorical),
            "struct": [{"raw": "a"}, {"raw": "b"}],
            "structs": [[{"raw": "a"}], []],
        }
    )
    frame.write_parquet(tmp_path / "a.parquet")
    frame.write_ipc_stream(tmp_path / "a.arrow")
    for path in (tmp_path / "a.parquet", tmp_path / "a.arrow"):
        assert rows(path, column="int") == [(0, "7"), (1, None)]
        assert rows(path, column="several") == [(0, "a"), (0, "b"), (1, None)]
        assert rows(path, column="array") == [(0, "a"), (0, "b"), (1, "c"), (1, None)]
        assert rows(path, column="binary") == [(0, "a cat"), (1, "\ufffd")]
        assert rows(path, column="category") == [(0, "a"), (1, "b")]
        for name in ("struct", "structs"):
            assert f"column '{name}' holds" in refusal(path, column=name)
            assert "needed text: name another with --column" in refusal(path, column=name)


VALUES = [
    ('"a cat"', ["a cat"]),
    ("7", ["7"]),
    ("1.5", ["1.5"]),
    ("true", ["true"]),
    ("null", [None]),
    ('["a", "b [c], \\"d\\""]', ["a", 'b [c], "d"']),
    ("[1, null]", ["1", None]),
    ("[]", [None]),
    ('{"en": "a"}', [None]),
    ('"[not a list]"', ["[not a list]"]),
    ('"{not an object}"', ["{not an object}"]),
    ('"\\u00e9 \\ud83d\\ude00"', ["é 😀"]),
    ('"nul\\u0000x"', ["nul\x00x"]),
]


def test_json_values_are_the_same_in_every_json_format(tmp_path):
    records = [f'{{"id": 1, "caption": {value}}}' for value, _ in VALUES]
    expected = [(row, caption) for row, (_, texts) in enumerate(VALUES) for caption in texts]
    (tmp_path / "a.jsonl").write_text("\n".join(records))
    (tmp_path / "a.json").write_text("[" + ",\n".join(records) + "]")
    (tmp_path / "coco.json").write_text('{"annotations": [' + ",".join(records) + "]}")
    write_tar(tmp_path / "a.tar", [(f"{n}.json", record.encode()) for n, record in enumerate(records)])
    for path in sorted(tmp_path.iterdir()):
        assert rows(path) == expected, path.name


def test_json_lines_that_are_no_records_have_no_caption(tmp_path):
    lines = ['{"caption": "a cat"}', '{"capt', "[1]", '"s"', "", '{"other": 1}', '{"caption": [["a"]]}', "\xff"]
    (tmp_path / "a.jsonl").write_bytes("\r\n".join(lines).encode("latin-1"))
    assert captions(tmp_path / "a.jsonl") == ["a cat", *[None] * 7]


def test_json_keys_of_any_spelling(tmp_path):
    for n, key in enumerate(("it's", "a b", "a.b", "$x", "ü", 'q"q', "]")):
        (tmp_path / f"{n}.jsonl").write_text(json.dumps({key: "a cat"}))
        assert captions(tmp_path / f"{n}.jsonl", column=key) == ["a cat"]


def test_csv_quotes_ragged_lines_and_byte_order_marks(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(
        b'\xef\xbb\xbf"caption","x, y"\r\n"a, ""b""",1\r\ntoo,many,fields\r\ntrailing,1,\r\nfew\r\n\r\nnul\x00,1\r\n'
        b"caf\xe9,1\r\n"
    )
    assert captions(path) == ['a, "b"', None, "trailing", "few", None, "nul\x00", "caf\ufffd"]
    path.write_text("caption\na cat, a dog\n")
    assert captions(path) == ["a cat, a dog"]
    path.write_text("caption,caption,x\na,b,c\n")
    assert refusal(path) == "a.csv: two columns are called 'caption': rename one"
    assert captions(path, column="x") == ["c"]
    path.write_text(",caption,\n0,a cat,1\n")
    assert captions(path) == ["a cat"]
    path.write_text("caption,x\n")
    assert captions(path) == []


def test_lines_keep_everything_but_the_line_end(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfa \x1f b\nc\x1fd\nd\x00\r\n\n# \"e',;\xff\nlast")
    assert captions(tmp_path / "a.txt") == ["a \x1f b", "c\x1fd", "d\x00", None, "# \"e',;\ufffd", "last"]


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "txt", "json"])
@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_utf16_is_refused(tmp_path, suffix, encoding):
    (tmp_path / f"a.{suffix}").write_text('{"caption": "a, b"}\n' * 3, encoding=encoding)
    message = f"a.{suffix}: UTF-16 text; needed UTF-8: convert it (iconv -f UTF-16 -t UTF-8)"
    assert refusal(tmp_path / f"a.{suffix}") == message


def test_tar_samples(tmp_path):
    members = [
        ("d/0.txt", b"a cat\n"),
        ("d/0.jpg", bytes(3000)),
        ("d/1.cls", b"3"),
        ("d/._2.txt", b"of a Mac"),
        ("d/2.seg.png", b""),
        ("d/2.txt", b"caf\xe9"),
        ("d/2.json", b"{broken"),
        ("e/2.txt", b"another folder's"),
        ("e/3.alt", b"alternative"),
    ]
    write_tar(tmp_path / "a.tar", members)
    assert captions(tmp_path / "a.tar") == ["a cat\n", None, "caf\ufffd", "another folder's", None]
    assert captions(tmp_path / "a.tar", column="alt") == [None, None, None, None, "alternative"]
    assert refusal(tmp_path / "a.tar", column="nope") == (
        "a.tar: column 'nope' needed; it has 'txt', 'jpg', 'cls', 'seg.png', 'alt': name one with --column"
    )


# -- damage -----------------------------------------------------------------------------------------------------------


def test_empty_files(tmp_path):
    for suffix in ("txt", "jsonl", "csv"):
        (tmp_path / f"a.{suffix}").touch()
        assert captions(tmp_path / f"a.{suffix}") == []
    for suffix in ("arrow", "json", "tar", "tgz", "parquet"):
        (tmp_path / f"a.{suffix}").touch()
        assert refusal(tmp_path / f"a.{suffix}").startswith(f"a.{suffix}: ")
        assert refusal(tmp_path / f"a.{suffix}").endswith("repair or leave out the file")


def test_files_cut_in_half_are_refused_when_opened(tmp_path):
    many = pl.DataFrame({"caption": [f"{n} cats" for n in range(20_000)]})
    many.write_parquet(tmp_path / "table.parquet")
    many.write_ipc(tmp_path / "a.feather")
    many.write_ipc_stream(tmp_path / "a.arrow")
    write_tar(tmp_path / "a.tar", [(f"{n}.txt", b"cat") for n in range(50)])
    for path in sorted(tmp_path.iterdir()):
        whole = path.read_bytes()
        for size in (len(whole) * 4 // 5, len(whole) // 2, 5):
            path.write_bytes(whole[:size])
            with pytest.raises(InputError, match=f"{path.name}: .*repair or leave out the file"):
                readers.read([path])


def damaged_in_the_middle(folder):
    """A file of each format that opens well."""
    names = [f"{n} cats" for n in range(20_000)]
    body = "\n".join(names).encode()
    packed = gzip.compress(body)
    (folder / "whole.gz").write_bytes(packed)  # of unknown suffix
    (folder / "cut.txt.gz").write_bytes(packed[:-100])
    (folder / "flipped.txt.gz").write_bytes(packed[:-8] + b"junk" + packed[-4:])
    write_coco(folder / "cut.json", names)
    (folder / "cut.json").write_text((folder / "cut.json").read_text()[:-20])
    write_tar(folder / "header.tar", [(f"{n}.txt", b"cat") for n in range(300)])
    content = bytearray((folder / "header.tar").read_bytes())
    content[200 * 1024 : 200 * 1024 + 512] = b"\x07" * 512
    (folder / "header.tar").write_bytes(content)
    write_tar(folder / "cut.tgz", [(f"{n}.txt", os.urandom(99).hex().encode()) for n in range(300)], "w:gz")
    (folder / "cut.tgz").write_bytes((folder / "cut.tgz").read_bytes()[:-100])


def test_damage_in_the_middle_is_found_when_read_and_named(tmp_path):
    damaged_in_the_middle(tmp_path)
    (tmp_path / "sound.txt").write_text("a cat")
    opened = readers.read([tmp_path])
    assert opened.problems == ()
    with pytest.raises(InputError, match=r"cut\.json: broken or truncated JSON"):
        opened.frame.collect(engine="streaming")
    sound = readers.leave_out_damaged(opened)
    assert sound.frame.collect().rows() == [(str(tmp_path / "sound.txt"), 0, "a cat")]
    checksum = hex(zlib.crc32(gzip.decompress((tmp_path / "whole.gz").read_bytes())))
    cannot = "cannot be read ({}): repair or leave out the file".format
    assert {Path(problem.file).name: problem.message.split(": ", 1)[1] for problem in sound.problems} == {
        "cut.json": "broken or truncated JSON (Unterminated string starting at: line 1 column 87091 (char 87090)): "
        "repair or leave out the file",
        "cut.tgz": "a damaged or truncated tar (unexpected end of data): repair or leave out the file",
        "cut.txt.gz": cannot("Compressed file ended before the end-of-stream marker was reached"),
        "flipped.txt.gz": cannot(f"CRC check failed {hex(int.from_bytes(b'junk', 'little'))} != {checksum}"),
        "header.tar": "a damaged or truncated tar (invalid header): repair or leave out the file",
    }
    with pytest.raises(InputError, match="5 of 6 files cannot be read"):
        readers.leave_out_damaged(opened, strict=True)
    with pytest.raises(InputError, match="though each of its files can"):
        readers.leave_out_damaged(sound)


def test_damage_behind_the_rows_asked_for_is_not_met(tmp_path):
    damaged_in_the_middle(tmp_path)
    assert len(rows(tmp_path / "cut.json", limit=150)) == 150  # sources made in Python stop early, too


def test_problems_are_counted_with_examples_and_strict_makes_them_an_error(tmp_path):
    (tmp_path / "a.txt").write_text("a cat")
    for n in range(5):
        (tmp_path / f"{n}.parquet").write_text("junk")
    found = readers.read([tmp_path])
    reason = "cannot be read (parquet: File out of specification: A Parquet file must contain a header and footer with "
    reason += "at least 12 bytes): repair or leave out the file"
    expected = "5 of 6 files cannot be read:\n"
    expected += "".join(f"  {tmp_path}/{n}.parquet: {reason}\n" for n in range(3)) + "  and 2 more"
    assert found.summary() == expected
    assert found.frame.collect()["caption"].to_list() == ["a cat"]
    with pytest.raises(InputError) as error:
        readers.read([tmp_path], strict=True)
    assert str(error.value) == expected
    assert readers.read([tmp_path / "a.txt"]).summary() == ""


def test_nothing_readable_is_an_error_and_one_file_alone_says_its_own(tmp_path):
    (tmp_path / "a.parquet").write_text("junk")
    assert refusal(tmp_path / "a.parquet").startswith("a.parquet: cannot be read")
    (tmp_path / "b.parquet").write_text("junk")
    assert refusal(tmp_path).startswith("2 of 2 files cannot be read:\n  ")


def test_files_without_permission():
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "a.txt").write_text("a cat")
        (folder / "b.txt").write_text("secret")
        (folder / "b.txt").chmod(0)
        (folder / "closed").mkdir(mode=0)
        root = os.geteuid() == 0
        if root:
            os.seteuid(65534)
        try:
            found = readers.read([folder])
        finally:
            if root:
                os.seteuid(0)
        assert found.summary().replace(f"{folder}/", "") == (
            "2 of 3 files cannot be read:\n"
            "  closed: this folder cannot be listed: check its permissions\n"
            "  b.txt: cannot be read ([Errno 13] Permission denied: 'b.txt'): repair or leave out the file"
        )


# -- object stores ----------------------------------------------------------------------------------------------------


def test_objects_of_an_s3_store(s3, tmp_path):
    FRAME.write_parquet(tmp_path / "a.parquet")
    FRAME.write_parquet(tmp_path / "sub.parquet")
    FRAME.write_csv(tmp_path / "a.csv")
    FRAME.write_ipc(tmp_path / "a.arrow")
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress("\n".join(CAPTIONS).encode()))
    (tmp_path / "a.jsonl").write_text(FRAME.write_ndjson())
    (tmp_path / "junk.parquet").write_text("junk")
    write_tar(tmp_path / "a.tar", [("0.txt", b"a cat")])
    for path in tmp_path.iterdir():
        s3.upload_file(str(path), "bucket", f"d/{path.name.replace('sub', 'sub/b')}")
    for name in ("a.parquet", "a.csv", "a.arrow", "a.txt.gz", "a.jsonl"):
        assert rows(f"s3://bucket/d/{name}") == list(enumerate(CAPTIONS)), name
    for text in ('caption,u\n"two\r\nlines",1\n"o\nne",2\r\n', ',caption\r\n0,"a\n"\r\n', 'caption\n"two \r\nlines"\n'):
        (tmp_path / "odd.csv").write_bytes(text.encode())
        s3.upload_file(str(tmp_path / "odd.csv"), "bucket", "odd.csv")
        assert rows("s3://bucket/odd.csv") == rows(tmp_path / "odd.csv"), text
    (tmp_path / "odd.csv").unlink()
    frame = readers.read(["s3://bucket/d/**/[ab].parquet"]).frame.collect(engine="streaming")
    assert frame.group_by("file", maintain_order=True).agg("row").rows() == [
        ("s3://bucket/d/a.parquet", [0, 1, 2, 3, 4]),
        ("s3://bucket/d/sub/b.parquet", [0, 1, 2, 3, 4]),
    ]
    write_deltalake(tmp_path / "table", FRAME)
    DeltaTable(tmp_path / "table").delete("id > 1")
    for path in (tmp_path / "table").rglob("*.*"):
        if path.is_file():
            s3.upload_file(str(path), "bucket", f"tables/{path.relative_to(tmp_path)}")
    s3.upload_file(str(tmp_path / "a.parquet"), "bucket", "tables/ice/data/a.parquet")
    s3.upload_file(str(tmp_path / "a.txt.gz"), "bucket", "tables/ice/metadata/v1.metadata.json")
    assert rows("s3://bucket/tables/table/") == list(enumerate(CAPTIONS[:2]))
    tables = readers.read(["s3://bucket/tables/"])
    assert list(tables.files) == ["s3://bucket/tables/table"]
    refused = "an Iceberg table, whose deleted rows overscan cannot tell: write the captions to a file"
    assert [problem.message for problem in tables.problems] == [f"s3://bucket/tables/ice: {refused}"]
    everything = readers.read(["s3://bucket/d/"])
    assert len(everything.files) == 6
    assert [problem.message for problem in everything.passed_over] == [
        "s3://bucket/d/a.tar: its captions are in a.parquet"
    ]
    assert [problem.message.split(" (")[0] for problem in everything.problems] == [
        "s3://bucket/d/junk.parquet: cannot be read",
    ]
    assert refusal("s3://bucket/d/none.parquet").startswith("s3://bucket/d/none.parquet: cannot be read (object-store")
    assert refusal("s3://bucket/none/*.csv").startswith("s3://bucket/none/*.csv: no such file")
    with pytest.raises(PlaceError, match=r"^s3://nobucket/\*\.csv: no such bucket or container \(object-store error"):
        readers.read(["s3://nobucket/*.csv"])
    assert readers.absolute(["s3://bucket/d/", tmp_path]) == ["s3://bucket/d/", str(tmp_path)]
