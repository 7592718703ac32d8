"""What `explain` leaves in a folder, and what a report reads of it."""

from scanner.evidence import explain_page
from scanner.evidence.explain import Edit, Explanation, Variant, Word

ONE = Explanation(
    "p" * 32, "a <b>", "scored", 2.0, (Word("a", True, 1.0, 1.0), Word("<b>", True, 1.9, 0.1)),
    Edit((0,), "<b>", 1.0, True), (Variant((), "a <b>", 2.0), Variant((0,), "<b>", 1.0)),
)  # fmt: skip


def test_a_report_reads_the_words_of_its_own_scan_score_and_threshold(tmp_path):
    explain_page.write(tmp_path, [ONE], "s_v1", 1.5, "scan")
    assert explain_page.read(tmp_path, "scan", "s_v1", 1.5) == {"p" * 32: [("a", True), ("<b>", False)]}
    for asked in (("scan", "s_v1", 0.9), ("scan", "s_v1", None), ("other", "s_v1", 1.5), ("scan", "t_v1", 1.5)):
        assert explain_page.read(tmp_path, *asked) == {}
    assert explain_page.read(tmp_path / "nothing", "scan", "s_v1", 1.5) == {}


def test_the_page_strikes_through_what_must_go(tmp_path):
    explain_page.write(tmp_path, [ONE], "s_v1", 1.5, "scan")
    page = (tmp_path / "explain.html").read_text()
    assert "<h1>1 of 1 captions get under the threshold without some of their words</h1>" in page
    assert '<span class="strong"><s>a</s></span> <span class="">&lt;b&gt;</span>' in page
    assert "href=" not in page  # there is no other page
