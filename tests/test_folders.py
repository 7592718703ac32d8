"""What a folder holds: which files are captions, which are not, and why, whatever their names."""

import json
import random
import re
from pathlib import Path

import polars as pl
import pytest
from deltalake import DeltaTable, write_deltalake

from scanner.dataset import readers
from scanner.dataset.readers.prose import no_captions
from scanner.dataset.reading import as_json, of_json
from scanner.errors import InputError

LICENCE = """Permission is hereby granted, free of charge, to any person obtaining a copy
of this software and associated documentation files, to deal in the
software without restriction, including without limitation the rights
to use, copy, modify and merge. The above notice shall be included in all
copies. The software is provided as is, without warranty of any kind.
"""
PROSE = """The pictures were taken between 2011 and 2014 in three towns along the
river. Each of them was described by five people, who did not know each
other. We thank all of them. Descriptions shorter than four words were
removed, and so were those that name a person.

A second collection followed a year later. It is not part of the archive.
"""
LONG = "The pictures come from a river town. They were described by five people.\n\nNobody was paid. It took a year.\n"
HEADINGS = "Kites\n=====\n\n3,000 pictures of kites.\n\nContents\n--------\n\nkites and their strings\n"
MARKDOWN = "# Kites\n\n3,000 pictures of kites\n\n## Contents\n\n- kites\n- strings\n"
PINS = "numpy>=2.0\npolars==1.9.0\ntorch ~= 2.4\n# tests\npytest\n"
BARE = "numpy\npillow\nrequests\nscipy\ntqdm\ntransformers\n"
WORDS = "\n".join(["[PAD]", "[UNK]", "the", "of", "##ing", "cat", "dog", "barn"]) + "\n"
MERGES = "#version: 0.2\n" + "\n".join(["i n", "t h", "a n", "r e", "a r", "e r", "th e</w>", "in g</w>", "o u", "s t"])
COUNTS = "the 23135851162\nof 13151942776\nand 12997637966\nto 12136980858\n"
LABELS = "airplane\nautomobile\nbird\ncat\ndeer\ndog\nfrog\nhorse\n"
TIMES = "2026-01-02 10:00:00 INFO loading shard 3\n2026-01-02 10:00:09 INFO done\n2026-01-02 10:00:10 ERROR no space\n"
STEPS = "step 100 loss 0.3121 lr 1e-4\nstep 200 loss 0.2910 lr 1e-4\nstep 300 loss 0.2807 lr 9e-5\n"
TRACE = "Traceback (most recent call last):\nValueError: no such shard\nRuntimeError: stopped\n"
HASHES = "\n".join(f"{n * 7919:032x}" for n in range(1, 9)) + "\n"
SUMS = "\n".join(f"{n * 7919:032x}  shard-{n:05}.tar" for n in range(1, 9)) + "\n"
URLS = "\n".join(f"https://example.org/pictures/{n}.jpg" for n in range(9)) + "\n"
PATHS = "\n".join(f"images/{n:05}.jpg {n % 7}" for n in range(9)) + "\n"
SETTINGS = "model: sd15\nresolution: 512\nbatch_size: 16\nlr: 1e-4\n"
CMAKE = "cmake_minimum_required(VERSION 3.20)\nproject(kites)\nadd_executable(kites main.cpp)\ninstall(TARGETS kites)\n"
ROBOTS = "User-agent: *\nDisallow: /private/\nAllow: /\n"
BOXES = "0 0.51 0.22 0.10 0.31\n1 0.11 0.42 0.50 0.30\n0 0.31 0.22 0.18 0.11\n"
HTML = "<html>\n<body>\n<p>kites</p>\n</body>\n</html>\n"

NO_DATASETS = {  # none of these names stands in the code
    "license": LICENCE, "copying.lesser": LICENCE, "terms_of_use": PROSE, "about": PROSE, "history": LONG,
    "datasheet": HEADINGS, "model_card": MARKDOWN, "changes": HEADINGS, "readme.first": MARKDOWN,
    "requirements-dev": PINS, "constraints": PINS, "deps": BARE, "environment": BARE, "vocab": WORDS, "bpe": MERGES,
    "merges": MERGES, "frequencies": COUNTS, "classes": LABELS, "synsets": LABELS, "train_2026": TIMES, "stdout": STEPS,
    "crash": TRACE, "ids": HASHES, "md5": SUMS, "sources": URLS, "split": PATHS, "run": SETTINGS, "CMakeLists": CMAKE,
    "robots": ROBOTS, "boxes": BOXES, "index.html": HTML, "drops": HASHES,
}  # fmt: skip

CAPTIONS = {
    "captions": "a red barn in a field\ntwo boats on a lake\na man who holds a kite\n",
    "notes": "a red barn\ntwo boats\n",
    "part-00001": "A woman is slicing vegetables on a cutting board.\nTwo dogs play in the snow.\n",
    "vlm": "The image shows a red barn. It stands in tall grass.\nTwo boats lie at a pier. The sky is grey.\n",
    "laion": "Vintage Red Barn Wall Art - 12 x 16\nBest Hotels in Rome | 2019\n\"Kites\" by J. Doe (1920)\nkite, png\n",
    "one": "ok\n",
    "cjk": "赤い納屋\n二隻の船\n凧を持つ男\n湖の上の船\n犬\n猫と犬が遊ぶ\n",
    "lower": "\n".join(
        f"a {random.Random(n).choice(['large red', 'small old', 'blue'])} barn standing in a field of tall grass near "
        + "a lake" * (n % 3) for n in range(30)
    ),
    "counted": "\n".join(f"{n} cats\nmore" for n in range(9)),
    "prompts": "masterpiece, 1girl, (red hair:1.2), standing\n((best quality)), a castle, 8k\nphoto of a cat, bokeh\n",
    "tags": "1girl, solo, red hair\n2boys, outdoors, sky\nno humans, cat\n",
}  # fmt: skip


@pytest.mark.parametrize("name", NO_DATASETS)
def test_texts_that_are_no_captions_are_passed_over_by_what_they_hold(name):
    assert no_captions(f"{name}.txt", NO_DATASETS[name]) is not None


@pytest.mark.parametrize("name", CAPTIONS)
def test_texts_that_are_captions_are_read(name):
    assert no_captions(f"{name}.txt", CAPTIONS[name]) is None


def write(folder, **files):
    for name, content in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")


def read(*inputs, **options):
    """(file name, caption) of every row, and name -> why of what was passed over."""
    rows = readers.read(inputs, **options)
    frame = rows.frame.collect(engine="streaming")
    captions = [(Path(file).name, caption) for file, caption in frame.select("file", "caption").iter_rows()]
    return captions, {Path(p.file).name: p.message.partition(": ")[2] for p in rows.passed_over}


def test_a_folder_of_captions_and_thirty_documents(tmp_path):
    write(tmp_path, **{f"{name}.txt": text for name, text in NO_DATASETS.items()}, **{"pictures.txt": "a red barn\n"})
    captions, passed_over = read(tmp_path)
    assert captions == [("pictures.txt", "a red barn")]
    assert passed_over.keys() == {f"{name}.txt" for name in NO_DATASETS}
    assert passed_over["constraints.txt"] == "a list of requirements"
    assert readers.read([tmp_path / "vocab.txt"]).frame.collect().height == 8  # a file that is named is read


def test_of_very_many_small_texts_all_are_captions_but_those_in_capitals(tmp_path):
    write(tmp_path, **{f"{n:03}.txt": f"kite {n}" for n in range(100)})
    write(tmp_path, **{"099.txt": "See your kite at https://x.org", "README.txt": "How to use this folder\n"})
    captions, passed_over = read(tmp_path)
    assert len(captions) == 100
    assert captions[-1] == ("099.txt", "See your kite at https://x.org")
    assert passed_over == {"README.txt": "a document: its name is in capitals"}


def test_texts_beside_images_are_one_caption_each(tmp_path):
    write(
        tmp_path,
        **{
            "1.jpg": "",
            "1.txt": "a red kite\nover a lake\n",
            "2.PNG": "",
            "2.TXT": "a barn",
            "3.caption": "one\n\nmore\n",
        },
        **{"captions.txt": "a b c\n", "1.json": '{"caption": "a red kite"}', "sub__4.caption": "boats"},
    )
    captions, passed_over = read(tmp_path)
    assert captions == [
        ("1.txt", "a red kite\nover a lake"),
        ("2.TXT", "a barn"),
        ("3.caption", "one\n\nmore"),
        ("4.caption", "boats"),
    ]
    assert passed_over == {
        "1.json": "the caption of 1 is in a text beside it",
        "captions.txt": "captions lie beside images here, and no image has this name",
        "*.jpg": "no format of captions (1 files)",
        "*.png": "no format of captions (1 files)",
    }
    assert read(tmp_path / "1.txt", tmp_path / "captions.txt")[0] == [
        ("1.txt", "a red kite\nover a lake"),
        ("captions.txt", "a b c"),
    ]


@pytest.mark.parametrize(
    "kohya", [{"1": {"caption": "a kite", "tags": "red, sky"}}, {"/d/1.png": {"caption": "a kite"}}]
)
def test_metadata_of_trainers_by_image(tmp_path, kohya):
    write(tmp_path, **{"1.png": "", "meta_cap.json": json.dumps(kohya)})
    assert read(tmp_path)[0] == [("meta_cap.json", "a kite")]


def test_captions_by_the_name_of_their_image(tmp_path):
    write(tmp_path, **{"captions.json": json.dumps({"1.jpg": "a kite", "2.jpg": ["two boats", "a lake"]})})
    assert [caption for _, caption in read(tmp_path)[0]] == ["a kite", "two boats", "a lake"]


def test_own_outputs_are_passed_over_in_folders(tmp_path):
    ids = [f"{n:032x}" for n in range(3)]
    (tmp_path / "out").mkdir()
    rows = pl.DataFrame({"prompt_id": ids, "text": ["a", "b", "c"]})
    rows.write_parquet(tmp_path / "out/scores.parquet")
    rows.write_csv(tmp_path / "out/flagged.csv")
    rows.write_ndjson(tmp_path / "out/flagged.jsonl")
    rows.select("prompt_id").write_parquet(tmp_path / "out/rows.parquet")
    pl.DataFrame({"file": ["captions.csv"], "row": [0]}).write_parquet(tmp_path / "out/drop.parquet")
    verified = {"sampling": {}, "prompts": [{"prompt_id": ids[0], "prompt": "a"}]}
    write(tmp_path, **{"out__verify.json": json.dumps(verified, indent=1)})
    write(
        tmp_path,
        **{"out__summary.json": '{\n "format": "overscan report 1"}', "out__drop_list.txt": "\n".join(ids)},
    )
    write_deltalake(tmp_path / "store/scores", rows, description="overscan store 1")
    write(tmp_path, **{"captions.csv": "caption,prompt_id\na kite,7\n"})
    captions, passed_over = read(tmp_path)
    assert captions == [("captions.csv", "a kite")]
    own = dict.fromkeys(
        (
            "scores.parquet",
            "flagged.csv",
            "flagged.jsonl",
            "rows.parquet",
            "summary.json",
            "drop.parquet",
            "verify.json",
        ),
        "written by overscan",
    )
    assert passed_over == own | {
        "drop_list.txt": "a list of ids",
        "scores": "a table of an overscan store",
    }
    assert readers.read([tmp_path / "out/scores.parquet"]).frame.collect().height == 3


# -- tables of many files ---------------------------------------------------------------------------------------------


def test_delta_tables_are_read_as_such(tmp_path):
    table = tmp_path / "delta"
    write_deltalake(table, pl.DataFrame({"caption": ["a", "b"], "part": [1, 2]}), partition_by=["part"])
    write_deltalake(table, pl.DataFrame({"caption": ["c", "d"], "part": [1, 1]}), mode="append", partition_by=["part"])
    DeltaTable(table).delete("caption = 'b' or caption = 'c'")
    DeltaTable(table).optimize.compact()
    for named in (table, tmp_path, table / "part=1/*.parquet"):
        captions, _ = read(named)
        assert sorted(captions) == [("delta", "a"), ("delta", "d")], named


@pytest.mark.parametrize("name", ["a%20b", "a[1]"])
def test_a_delta_table_at_a_path_that_deltalake_cannot_read_is_refused(tmp_path, name):
    write_deltalake(tmp_path / "table", pl.DataFrame({"caption": ["a"]}))
    write(tmp_path, **{"a.txt": "a kite"})
    (tmp_path / "table").rename(tmp_path / name)
    rows = readers.read([tmp_path])
    assert rows.frame.collect()["caption"].to_list() == ["a kite"]
    reason = "a Delta table whose path holds %XX, [ or ], which deltalake cannot read: rename it"
    assert [problem.message for problem in rows.problems] == [f"{tmp_path / name}: {reason}"]


@pytest.mark.parametrize(
    ("files", "what"),
    [
        (("metadata__v1.metadata.json", "data__0.parquet"), "an Iceberg table"),
        ((".hoodie__hoodie.properties", "0.parquet"), "a Hudi table"),
        (("_versions__1.manifest", "data__0.lance"), "a Lance table"),
        (("snapshot__snapshot-1", "schema__schema-0", "bucket-0__0.parquet"), "a Paimon table"),
    ],
)
def test_other_tables_are_refused_by_name(tmp_path, files, what):
    write(tmp_path, **dict.fromkeys((f"table__{name}" for name in files), ""), **{"a.txt": "a kite"})
    rows = readers.read([tmp_path])
    message = f"{tmp_path}/table: {what}, whose deleted rows overscan cannot tell: write the captions to a file"
    assert [problem.message for problem in rows.problems] == [message]


@pytest.mark.parametrize(
    ("files", "part", "what"),
    [
        (("metadata__v1.metadata.json",), "data/day=1/0.parquet", "an Iceberg table"),
        ((".hoodie__hoodie.properties",), "eu=1/0.parquet", "a Hudi table"),
        (("snapshot__snapshot-1", "schema__schema-0"), "bucket-0/0.parquet", "a Paimon table"),
    ],
)
def test_a_part_of_another_table_is_refused_however_it_is_named(tmp_path, files, part, what):
    write(tmp_path, **dict.fromkeys((f"table__{name}" for name in files), ""))
    file = tmp_path / "table" / part
    file.parent.mkdir(parents=True)
    pl.DataFrame({"caption": ["a"]}).write_parquet(file)
    said = f"a part of {what} ({tmp_path}/table), whose deleted rows overscan cannot tell: write the captions to a file"
    for named in (file, file.parent, tmp_path / "table" / Path(part).parts[0], f"{file.parent}/*.parquet"):
        with pytest.raises(InputError, match=re.escape(said)):
            readers.read([named])
    beside = tmp_path / "metadata.parquet"
    pl.DataFrame({"caption": ["b"]}).write_parquet(beside)
    assert readers.read([beside]).frame.collect()["caption"].to_list() == ["b"]


def test_a_partition_of_a_delta_table_is_no_folder_of_files(tmp_path):
    frame = pl.DataFrame({"caption": ["a", "b"], "region": ["eu", "us"]})
    write_deltalake(tmp_path / "table", frame, partition_by=["region"])
    with pytest.raises(InputError, match="a part of a Delta table: name the table, "):
        readers.read([tmp_path / "table/region=eu"])
    (file,) = (tmp_path / "table/region=eu").glob("*.parquet")
    assert sorted(readers.read([file]).frame.collect()["caption"].to_list()) == ["a", "b"]


def test_what_is_read_is_told(tmp_path):
    write(
        tmp_path, **{"a.csv": "caption;url\na;u\n;v\n", "b.jsonl": '{"Text": "b"}\n{"Text": null}\n', "c.txt": "c\nd\n"}
    )
    rows = readers.read([tmp_path])
    rows.frame.collect()
    dialect = "delimiter=semicolon quotechar=quote escapechar=none doublequote=yes skipinitialspace=no"
    files = [
        {
            "file": f"{tmp_path}/a.csv",
            "rows": 2,
            "without_caption": 1,
            "reasons": {"empty fields": 1},
            "column": "caption",
        }
        | {"column": "caption", "dialect": dialect},
        {"file": f"{tmp_path}/b.jsonl", "rows": 2, "without_caption": 1, "reasons": {"null": 1}, "column": "Text"},
        {"file": f"{tmp_path}/c.txt", "rows": 2},
    ]
    reasons = {"empty fields": 1, "null": 1}
    told = {"rows": 6, "without_caption": 2, "reasons": reasons, "files": files, "passed_over": []}
    assert json.loads(json.dumps(as_json(rows.reading()))) == told
    assert of_json(told | {"of a newer version": 1}) == rows.reading()


def test_very_many_files_are_told_by_their_folders(tmp_path):
    write(tmp_path, **{f"{n}.txt": "a kite" for n in range(1001)})
    rows = readers.read([tmp_path])
    rows.frame.collect()
    assert as_json(rows.reading())["files"] == [{"file": f"{tmp_path}/*.txt", "files": 1001, "rows": 1001}]
    assert len(rows.reading(each=True).files) == 1001
    write(tmp_path, **{"7.csv": "u,caption\n1,a\n2\n", **{f"{n}.csv": "caption\na\n" for n in range(1000, 1002)}})
    rows = readers.read([tmp_path])
    rows.frame.collect()
    assert list(rows.reading().notes) == [
        (f"{tmp_path}/*.csv", "7.csv: records that do not fit the header begin in line 3"),
    ]  # fmt: skip


def test_the_state_of_others_is_no_dataset_of_hugging_face(tmp_path):
    write(tmp_path, **{"state.json": '{"epoch": 3}', "a.txt": "a kite"})
    captions, passed_over = read(tmp_path)
    assert captions == [("a.txt", "a kite")]
    assert passed_over == {"state.json": "notes of Hugging Face or img2dataset"}


def test_json_documents_without_records_are_passed_over(tmp_path):
    write(
        tmp_path, **{"vocab.json": '{"a": 0, "b": 1}', "package.json": '{"name": "x"}', "a.json": '[{"caption": "a"}]'}
    )
    captions, passed_over = read(tmp_path, strict=True)
    assert captions == [("a.json", "a")]
    needed = "needed a list of records, COCO's 'annotations', JSON lines or one of pandas' orients; it has"
    assert passed_over == {"vocab.json": f"{needed} 'a', 'b'", "package.json": f"{needed} 'name'"}
    write(tmp_path, **{"metrics.csv": "epoch,loss\n1,2\n"})
    with pytest.raises(InputError, match=r"metrics\.csv: a caption column needed"):
        read(tmp_path, strict=True)


@pytest.mark.parametrize(("image", "text"), [("1.jpg", "1.txt"), ("1.JPEG", "1.TXT"), ("1.webp", "1.webp.txt")])
def test_a_text_beside_its_image_is_one_caption_in_a_folder_a_glob_or_by_name(tmp_path, image, text):
    write(tmp_path, **{image: "", text: "a red kite,\nflying\n"})
    for named in (tmp_path, tmp_path / text, tmp_path / "*.[tT]*"):
        assert read(named)[0] == [(text, "a red kite,\nflying")], named


def test_a_link_to_a_file_beside_it_counts_no_row_twice(tmp_path):
    (tmp_path / "data").mkdir()
    write(tmp_path / "data", **{"a.csv": "caption\na kite\n"})
    write(tmp_path, **{"elsewhere.csv": "caption\na bell\n"})
    (tmp_path / "data/again.csv").symlink_to("a.csv")
    (tmp_path / "data/other.csv").symlink_to(tmp_path / "elsewhere.csv")
    rows = readers.read([tmp_path / "data"])
    assert [caption for _, _, caption in rows.frame.collect().rows()] == ["a kite", "a bell"]
    assert [problem.message for problem in rows.passed_over] == [
        f"{tmp_path}/data/again.csv: a link to a.csv, which is read"
    ]
