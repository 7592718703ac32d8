import base64
import json
import random
import re
import subprocess
import zlib
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import polars as pl
import pytest
from reports import HOSTILE, RECORD, SUMMARY, contents, found, judged, rows_of
from small import BUNDLE

from scanner import Rule, rank, read_store, scan, sources
from scanner.config import Reference, ScanConfig
from scanner.errors import DiskError, ScannerError
from scanner.pages import page as pages
from scanner.report import Places, facts_of, html, markdown, redact, redact_summary, wording, write
from scanner.report.contents import fingerprint, rule_in_words
from scanner.report.wording import number
from scanner.store.ledger import Ledger

DOCUMENT = (Path(__file__).parent.parent / "docs/report.md").read_text()

FILES = [
    "scores.parquet",
    "flagged.parquet",
    "flagged.csv",
    "flagged.jsonl",
    "drop_list.txt",
    "rows_to_drop.parquet",
    "summary.md",
    "report.html",
    "summary.json",
]


def payload(page):
    (packed,) = re.findall(r'id="payload">([A-Za-z0-9+/=]*)</script>', page)
    return json.loads(zlib.decompress(base64.b64decode(packed)))


def tags_of(page):
    """(tag, [(attribute, value)]) of each element, as a browser would parse them."""
    found = []
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, attributes: found.append((tag, attributes))
    parser.feed(page)
    return found


def test_every_file_is_written_whole(tmp_path):
    made = contents()
    assert [path.name for path in write(tmp_path / "new" / "folder", made, SUMMARY)] == FILES
    out = tmp_path / "new" / "folder"
    assert sorted(path.name for path in out.iterdir()) == sorted(FILES)
    assert pl.read_parquet(out / "scores.parquet").equals(made.ranked.collect())
    assert pl.read_parquet(out / "flagged.parquet").equals(made.flagged)
    assert [json.loads(line)["text"] for line in (out / "flagged.jsonl").read_text().splitlines()] == made.flagged[
        "text"
    ].to_list()


def test_a_report_on_a_full_or_closed_disk_says_so(small_disk):
    for text in (random.Random(0).randbytes(400_000).hex(), "long " * 100_000):  # too much for Parquet; for CSV
        with pytest.raises(DiskError, match="disk/out: no space left on that disk: make room or name another folder"):
            write(small_disk / "out", contents([text]), SUMMARY)
    assert list(small_disk.iterdir()) == []
    (small_disk / "out").mkdir()
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(DiskError, match=r"disk/out: cannot be written \(.*Read-only file system.*\): name a folder"):
        write(small_disk / "out", contents(), SUMMARY)
    with pytest.raises(DiskError, match="disk/new: cannot be written"):
        write(small_disk / "new", contents(), SUMMARY)


def test_a_report_that_cannot_be_written_leaves_the_old_one(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ScannerError, match="file: the report cannot be written"):
        write(tmp_path / "file", contents(), SUMMARY)
    write(tmp_path / "out", contents(["kept"]), SUMMARY)
    with pytest.raises(pl.exceptions.ColumnNotFoundError):
        write(tmp_path / "out", replace(contents(), flagged=pl.DataFrame()), SUMMARY)
    assert "kept" in (tmp_path / "out/report.html").read_text()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(FILES)


def test_csv_cells_are_no_formulas_and_other_files_are_exact(tmp_path):
    texts = ["=1+1", "+1", "-1", "@SUM(A1)", "＝1", "1=1", "'quoted'", 'comma, "quote"\nline']
    write(tmp_path, contents(texts), SUMMARY)
    first = pl.col("text").unique(maintain_order=True)
    read = pl.read_csv(tmp_path / "flagged.csv").select(first).to_series().to_list()
    assert read == ["'=1+1", "'+1", "'-1", "'@SUM(A1)", "'＝1", "1=1", "'quoted'", 'comma, "quote"\nline']
    assert pl.read_parquet(tmp_path / "flagged.parquet").select(first).to_series().to_list() == texts


def test_the_drop_lists_filter_a_dataset(tmp_path):
    made = judged(["one", "two", "three", "four"])  # findings: new, known, allowed, new
    write(tmp_path, made, SUMMARY)
    assert (tmp_path / "drop_list.txt").read_text().split() == [f"{i:032x}" for i in (0, 1, 3)]
    dataset = pl.DataFrame({"caption": [f"row {i}" for i in range(50)]})
    dataset.write_parquet(tmp_path / "a.parquet")
    kept = (
        pl.scan_parquet(tmp_path / "a.parquet", row_index_name="row")
        .with_columns(file=pl.lit("data/a.parquet"), row=pl.col("row").cast(pl.Int64))
        .join(pl.scan_parquet(tmp_path / "rows_to_drop.parquet"), on=["file", "row"], how="anti")
        .collect()
    )
    assert set(range(50)) - set(kept["row"]) == {10, 20, 40}  # the allowed one, row 30, stays
    drop = pl.read_parquet(tmp_path / "rows_to_drop.parquet")
    assert drop.schema == {"file": pl.String, "row": pl.Int64}
    assert drop.rows() == [
        ("data/a.parquet", 10), ("data/a.parquet", 20), ("data/b.parquet", 21), ("data/a.parquet", 40),
    ]  # fmt: skip


def test_redaction_shows_no_word_and_no_place(tmp_path):
    texts = ["Mothers influence on her young hippo", "John Smith", "one", "日本の夜景東京", "x" * 90 + " y z", "", None]
    made = contents(texts, n_flagged=5, notes=["files that cannot be read: /srv/data/x/y.txt, /home/me/z.txt"])
    record = replace(RECORD, inputs=("/srv/data/x/*.parquet", "data"), model="/home/me/sd")
    places = Places.of([record], made.flagged["file"].unique())
    hidden = redact(replace(made, facts={"Dataset": "/srv/data/x/*.parquet, data", "Model": "/home/me/sd"}), places)
    lengths = (36, 10, 3, 7, 94, 0)
    shown = [f"[{i:032x}"[:9] + f"] {length} characters" for i, length in enumerate(lengths)]
    assert hidden.ranked.collect()["text"].to_list() == [*shown, None]
    assert set(hidden.flagged["file"]) == {"data/a.parquet", "data/b.parquet"}
    assert hidden.notes == ["files that cannot be read: x/y.txt, z.txt"]
    assert hidden.facts == {"Dataset": "x/*.parquet, data", "Model": "sd"}
    write(tmp_path, hidden, redact_summary(replace(SUMMARY, made_with=record.made_with), places))
    secrets = [b"Mothers", b"hippo", b"John", b"Smith", b"y z", "夜景".encode(), b"/srv", b"/home"]
    for name in FILES:
        data = (tmp_path / name).read_bytes()
        if name == "report.html":
            data += json.dumps(payload(data.decode()), ensure_ascii=False).encode()
        if name.endswith(".parquet"):
            data = repr(pl.read_parquet(tmp_path / name).rows()).encode()
        assert not [secret for secret in secrets if secret in data], name
    assert "Redacted: captions are replaced" in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize(
    ("inputs", "file", "shown"),
    [
        (("/d/c.txt",), "/d/c.txt", "c.txt"),
        (("/d/c",), "/d/c/a/b.txt", "a/b.txt"),
        (("/d/c/",), "/d/c/a/b.txt", "a/b.txt"),
        (("/d/*/x-[0-9].txt",), "/d/c/x-1.txt", "c/x-1.txt"),
        (("/d/train", "/e/val"), "/e/val/a.txt", "val/a.txt"),
        (("/d/train", "/e/train"), "/e/train/a.txt", "2-train/a.txt"),
        (("/d", "/d/val"), "/d/val/a.txt", "val/a.txt"),
        (("/d/c.txt", "/d/e.txt"), "/d/c.txt", "c.txt"),
        (("s3://bucket/d/",), "s3://bucket/d/a.parquet", "a.parquet"),
        (("s3://bucket/d/*.parquet",), "s3://bucket/d/a.parquet", "a.parquet"),
        (("s3://bucket/d/a.parquet", "s3://bucket/d/b.parquet"), "s3://bucket/d/a.parquet", "a.parquet"),
        (("/gone",), "/elsewhere/a.txt", "a.txt"),
    ],
)
def test_a_redacted_file_is_named_from_the_datasets_folder_on(inputs, file, shown):
    files = [file, *(item for item in inputs if item.endswith(".txt") and "*" not in item)]
    assert Places.of([replace(RECORD, inputs=inputs)], files).file(file) == shown


def test_the_page_holds_no_caption_as_markup():
    page = html.render(judged())
    tags = tags_of(page)
    assert [tag for tag, _ in tags if tag in ("script", "img", "iframe", "link", "b")] == ["b"] * 5 + ["script"] * 2
    assert {value for _, attributes in tags for name, value in attributes if name in ("href", "src")} == {"#captions"}
    assert not [name for _, attributes in tags for name, _ in attributes if name.startswith("on") or name == "style"]
    assert "models/&lt;b&gt;sd&lt;/b&gt;" in page
    assert "7 * 7" in page
    assert "\0" not in page
    assert "\u202e" not in page
    assert "invoice ⟨U+202E⟩gnp.exe" in page
    assert "a⟨U+0000⟩null ⟨U+001B⟩[31m and a bell⟨U+0007⟩" in page
    assert "… (9500 more characters)" in page
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', page)
    assert re.fullmatch(
        r"default-src 'none'; img-src data:; style-src 'sha256-[\w+/]{43}='; script-src 'sha256-[\w+/]{43}='; "
        r"require-trusted-types-for 'script'; base-uri 'none'; form-action 'none'",
        policy,
    )


def test_the_page_says_what_a_flag_is():
    ranking, decision = html.render(contents()), html.render(judged())
    for page in (ranking, decision):
        assert "Flagged is not memorized" in page
        assert "A caption without a flag is not cleared" in page
        assert not re.search(r"(are|is|were) memorized", page)
    assert "This is a ranking." in ranking
    assert "the q-value is" not in ranking
    assert "Compared with 999 null captions from null.parquet. The p-value is" in decision
    assert "999 null captions can find 1 or more." in decision
    assert decision.count("<svg") == 3
    assert ranking.count("<svg") == 1


def test_the_payload_holds_scores_and_the_first_dataset_rows():
    made = contents(["popular", "rare"])
    ranked = made.ranked.with_columns(
        n_rows=pl.Series([25, 1]), other_v1=pl.Series([float("nan"), 1 / 3], dtype=pl.Float32)
    )
    data = payload(html.render(replace(made, ranked=ranked, flagged=rows_of(ranked))))
    assert data["scores"] == ["agreement_v1", "other_v1"]
    assert data["rows"]["agreement_v1"] == [1.0, 0.5]
    assert data["rows"]["other_v1"] == [None, 0.33333]
    assert data["files"] == ["data/a.parquet", "data/b.parquet"]
    assert data["sources"] == [[[0, 10], *([1, 10 + i] for i in range(1, html.SOURCES))], [[0, 20]]]


def test_nothing_flagged_and_nothing_scored_are_reports_too(tmp_path):
    page = html.render(contents(["a", "b"], n_flagged=0))
    assert "<h1>The 0 that stand out most, to be checked</h1>" in page
    assert "No caption is flagged." in page
    unscored = contents(["a"]).ranked.with_columns(
        agreement_v1=pl.lit(None, pl.Float32), status=pl.lit(None, pl.String), flagged=False
    )
    write(tmp_path, contents(["a"], ranked=unscored), SUMMARY)
    assert "1 not scored yet" in (tmp_path / "report.html").read_text()
    assert (tmp_path / "drop_list.txt").read_text() == ""


def test_ten_thousand_flagged_rows_stay_under_two_megabytes():
    words = [f"{'abcdefghij'[i % 10]}{i * 7919 % 100_003:x}" for i in range(100_000)]
    texts = [" ".join(words[i * 10 : i * 10 + 10]) for i in range(10_000)]
    made = judged(texts)
    page = html.render(made)
    assert len(page.encode()) < 2_000_000
    assert len(payload(page)["rows"]["rank"]) == 10_000


def test_new_findings_are_not_cut_before_others(monkeypatch):
    monkeypatch.setattr(html, "PROMPTS", 3)
    page = html.render(judged(list("abcdefghi")))  # new: ranks 1, 4, 7
    assert payload(page)["rows"]["rank"] == [1, 4, 7]
    assert "This page holds 3 of 9, new and best ranks first; all are in flagged.parquet." in page


def test_without_a_baseline_nothing_is_called_new():
    alone = replace(judged(), compared=False)
    assert "finding" not in payload(html.render(alone))["rows"]
    assert "of them new" not in html.render(alone)
    assert "finding" not in markdown.render(alone)


def test_the_summary_is_inert_markdown():
    text = markdown.render(judged())
    assert text.startswith("## The 10 that stand out most, to be checked\n\nRule: the highest. Compared with 999 null")
    assert "| rank | agreement_v1 | q_value | finding | rows | prompt |\n" in text
    assert "|    1 |        1.000 | 0.01000 |     new |    1 | `<script>document.title = 'owned'</script>` |" in text
    assert "&#91;x&#93;(https&#58;//example.invalid) &#64;someone</code> |\n" in text  # it has a |, too
    assert "`two lines`" in text
    outside = re.sub(r"(`+).*?(?<!`)\1(?!`)", "", text)  # code spans stay code whatever is in them
    assert not re.search(r"<(?!/?code>)|\]\(|@|`|://", outside)
    assert all(re.sub(r"(`+).*?\1", "", line).count("|") == 7 for line in text.splitlines() if line.startswith("|"))
    assert len(markdown.render(contents(["x"] * 5000))) < 3000


def test_the_summary_reads_well_as_it_is():
    lines = markdown.render(found()).splitlines()
    table = [line for line in lines if line.startswith("|")]
    assert table == [
        "| rank | agreement_v1 | captions | rows | prompt |",
        "|-----:|-------------:|---------:|-----:|:---|",
        "|    1 |        1.000 |        2 |    4 | `first` |",
        "|    2 |       0.7500 |        1 |    2 | `second` |",
        "|    4 |       0.2500 |        1 |    1 | `fourth` |",
    ]
    assert "&#" not in "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("plain", "`plain`"),
        ("a `b` c", "``a `b` c``"),
        ("`edge`", "`` `edge` ``"),
        ("a|b", "<code>a&#124;b</code>"),
        ("a\\", "<code>a&#92;</code>"),
        (" ", "<code> </code>"),
    ],
)
def test_a_caption_is_a_code_span_that_nothing_in_it_ends(text, written):
    assert markdown._code(text) == written


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, ""), (12345, "12,345"), (0.5, "0.5000"), (0.0, "0.000"), (3.3e-6, "3.3e-6"), (12345.6, "12,346")],
)
def test_numbers(value, text):
    assert number(value) == text


def test_rules_and_facts_in_words():
    assert rule_in_words(Rule("s", top=1000)) == "the 1,000 highest by s"
    assert rule_in_words(Rule("s", fdr=0.05)) == "false discovery rate of at most 0.05, by s"
    config = ScanConfig(prior_noises=16)
    record = replace(RECORD, inputs=("a", "b"), limit=1000, versions={"overscan": "1"}, config=config)
    assert facts_of("id", record) == {
        "Dataset": "a, b (first 1,000 rows)", "Model": "m", "Computed by": "p", "Seeds": "0, 1",
        "Steps": "first 1 of 50", "Guidance scale": "7.5", "Prior": "of 16 noises", "Scan": "id",
        "Versions": "overscan 1",
    }  # fmt: skip
    compared = replace(record, reference=Reference("r.txt", "0123456789abcdef"))
    assert facts_of("id", compared) == facts_of("id", record) | {"Reference": "r.txt (01234567)"}


def _luminance(colour):
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("palette", [0, 1], ids=["light", "dark"])
def test_colours_can_be_told_apart(palette):
    style = pages.SHARED.read_text()
    colours = dict(re.findall(r"--(\w+): (#\w+);", re.findall(r":root \{(.*?)\}", style, re.DOTALL)[palette]))
    colours = {name: "#" + "".join(2 * c for c in v[1:]) if len(v) == 4 else v for name, v in colours.items()}
    for needed, names in ((4.5, ("ink", "soft", "flag", "null")), (3.0, ("bar", "focus"))):  # WCAG 2 AA
        for name in names:
            for ground in ("paper", "raised", "mark") if needed > 3 else ("paper",):
                light, dark = sorted((_luminance(colours[name]), _luminance(colours[ground])), reverse=True)
                assert (light + 0.05) / (dark + 0.05) >= needed, (name, ground)


def test_hostile_captions_survive_the_payload():
    texts = payload(html.render(contents()))["rows"]["text"]
    assert texts[0] == HOSTILE[0]
    assert texts[1] == HOSTILE[1]
    assert texts[5] == HOSTILE[5]


def test_the_documented_join_drops_the_flagged_rows(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    for name, captions in {
        "a": ["credit card on brown", "a cat", "credit card on brown"],
        "b": ["a dog", "credit card on brown", "a hat"],
    }.items():
        pl.DataFrame({"caption": captions}).write_parquet(tmp_path / f"data/{name}.parquet")
    scan("data", model=BUNDLE, store="store")
    stored = read_store("store")
    scores = stored.scores.with_columns(s=(pl.col("text") == "credit card on brown").cast(pl.Float32))
    ranked = rank(scores, Rule("s", top=1))
    write(tmp_path / "report", contents(ranked=ranked, score="s", flagged=sources(ranked, stored.captions)), SUMMARY)
    (example,) = re.findall(r"```python\n(.*?)```", DOCUMENT, re.DOTALL)
    exec(compile(example, "report.md", "exec"), {})
    kept = pl.read_parquet(tmp_path / "kept.parquet")
    assert kept.columns == ["caption"]
    assert kept["caption"].to_list() == ["a cat", "a dog", "a hat"]


def test_every_file_is_documented():
    assert [name for name in FILES if f"`{name}`" not in DOCUMENT.replace("`, `.jsonl`", "`, `flagged.jsonl`")] == []
    assert f"up to {html.PROMPTS:,} captions" in DOCUMENT
    assert f"{html.CHARACTERS} characters of each and {html.SOURCES} of its" in DOCUMENT
    assert f"first {html.PRINTED} findings are a plain table" in DOCUMENT


def test_a_report_is_not_written_into_a_store(tmp_path):
    Ledger(tmp_path / "store", ("s_v1",))
    before = sorted(path.name for path in (tmp_path / "store").iterdir())
    with pytest.raises(ScannerError, match="store: a store; a report is a folder of its own: name another"):
        write(tmp_path / "store", contents(), SUMMARY)
    assert sorted(path.name for path in (tmp_path / "store").iterdir()) == before


def test_captions_of_one_image_are_one_finding():
    page = html.render(found())
    assert payload(page)["lead"] == [0, 1, 0, 3]
    assert "<b>3</b> findings: images that they seem to lead to" in page
    assert "<b>4</b> captions flagged" in page
    rows = re.findall(r'<tr data-prompt="(\w+)">(.*?)</tr>', page, re.DOTALL)
    assert [int(prompt, 16) for prompt, _ in rows] == [0, 1, 3]
    assert re.findall(r"<li><bdi[^>]*>(\w+)</bdi> <small>([\d.]+)</small>", rows[0][1]) == [("third", "0.5000")]
    numbers = [re.findall(r'<td class="number">([\d.]+)</td>', cells) for _, cells in rows]
    assert [own for *_, own in numbers] == ["4", "2", "1"]  # rows that bear one of a finding's captions
    alone = html.render(contents(["a", "b"]))
    assert payload(alone)["lead"] == [0, 1]
    assert "findings" not in re.sub(r"<(style|script).*?</\1>", "", alone, flags=re.DOTALL)


def test_what_closer_looks_found_stands_beside_the_caption():
    page = html.render(found())
    (row,) = re.findall(r'<tr data-prompt="0{32}">(.*?)</tr>', page, re.DOTALL)
    assert row.count('<img src="data:image/png;base64,') == 4
    assert 'class="small" alt="seed 3"' in row
    assert "All 4 seeds give the same picture" in row
    assert "<s>&lt;b&gt;a&lt;/b&gt;</s> word" in row
    assert '<a href="verified.html#p000000000000">' in row
    assert "injection</dt><dd><bdi>6.81" in row
    assert page.count("<img") == 4


def test_the_box_says_how_to_read_a_score():
    made = found()
    ranked = made.ranked.with_columns(
        overestimation_v1=pl.Series([7.25, 5.0, 3.0, 2.0], dtype=pl.Float32),
        flagged=pl.Series([True, True, False, False]),
    )
    settings = {"Seeds": "0, 1", "Timesteps": "701", "Base model": "b (f)"}
    facts = settings | {"Scan": "abc", "Model fingerprint": "def", "Run by": "a <team>"}
    page = html.render(replace(made, ranked=ranked, flagged=rows_of(ranked), facts=facts))
    box = re.findall(r'<section class="guide".*?</section>', page, re.DOTALL)[0]
    assert "arXiv 2509.25705" in box
    assert len(re.findall(r"[.)]\.? (?=[A-Z])", wording.METHOD)) == 3  # four sentences
    assert (
        "The lowest flagged caption has 0.7500 by agreement_v1: 50.00% of the scored captions lie below it, and their "
        "median is 0.6250. Guidance moves its first estimate of the image by 5.00 data radii" in box
    )
    assert "that of the median caption by 4.00." in box
    assert "seeds 0, 1; timesteps 701; base model b (f)" in box
    assert "scan abc; model fingerprint def" in box
    assert "a &lt;team&gt;" in box
    assert "<code>overscan explain</code>" in box
    nothing = html.render(contents(["a"], n_flagged=0))
    assert "The lowest flagged" not in nothing


def test_a_report_can_be_mailed():
    """No link leaves its folder, and no path of the machine is in one."""
    for page in (html.render(found()), html.render(judged())):
        links = [value for _, attributes in tags_of(page) for name, value in attributes if name in ("href", "src")]
        assert links
        assert all(re.match(r"#|data:image/png;base64,|[\w-]+\.html(#\w+)?$", link) for link in links)


def test_paper_has_the_documents_id_and_numbers_of_pages():
    made = found()
    page = html.render(made)
    assert f'@bottom-left {{ content: "Overscan report {made.id}, 2026-11-24"' in page
    assert 'counter(page) " of " counter(pages)' in page
    assert f"document {made.id}" in page
    assert replace(made, rule="another").id != made.id


def test_a_fingerprint_is_of_the_captions_and_their_rows_in_any_order():
    ranked = contents(["a", "b", "c"]).ranked
    assert fingerprint(ranked) == fingerprint(ranked.reverse())
    assert fingerprint(ranked) != fingerprint(ranked.with_columns(n_rows=pl.Series([1, 2, 4])))
    assert fingerprint(ranked) != fingerprint(ranked.head(2))


def test_a_spreadsheet_has_no_empty_scores(tmp_path):
    made = contents(["a", "b"])
    flagged = made.flagged.with_columns(other_v1=pl.lit(None, pl.Float32))
    write(tmp_path, replace(made, flagged=flagged), SUMMARY)
    assert "other_v1" not in pl.read_csv(tmp_path / "flagged.csv").columns
    assert "agreement_v1" in pl.read_csv(tmp_path / "flagged.csv").columns
    assert "other_v1" in pl.read_parquet(tmp_path / "flagged.parquet").columns
