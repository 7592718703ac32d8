"""The page in a real browser. Skipped where there is none: apt-get install chromium."""

from types import SimpleNamespace

import pytest
from browser import Browser, installed
from reports import HOSTILE, SUMMARY, contents, found, judged

from scanner.report import write

pytestmark = pytest.mark.skipif(installed() is None, reason="no Chromium on this machine: apt-get install chromium")
READY = "document.documentElement.classList.contains('scripted')"
TEXTS = "[...document.querySelectorAll('#body .row .caption')].map(cell => cell.textContent)"
MANY = 10_000


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reports")
    made = {
        "hostile": judged(),
        "many": judged([f"caption number {i}, {'even' if i % 2 == 0 else 'odd'}" for i in range(MANY)]),
        "plain": contents(["beta", "alpha", "Gamma"]),
        "found": found(),
    }
    for name, report in made.items():
        write(folder / name, report, SUMMARY)
    return SimpleNamespace(**{name: folder / name / "report.html" for name in made})


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    browser = Browser(installed(), tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


def opened(browser, page, **how):
    browser.open(page, **how)
    browser.wait(READY)
    return browser


def count(browser):
    return browser.run("document.getElementById('count').textContent")


def ranks(browser):
    cells = browser.run("[...document.querySelectorAll('#body .row td:first-child')].map(cell => cell.textContent)")
    return [int(cell.replace(",", "")) for cell in cells]


def test_hostile_captions_are_shown_and_nothing_else_happens(browser, pages):
    opened(browser, pages.hostile, height=2000)
    shown = browser.run(TEXTS)
    assert shown[0] == HOSTILE[0]
    assert shown[1] == HOSTILE[1]
    assert shown[4] == "invoice ⟨U+202E⟩gnp.exe"
    assert shown[9] == HOSTILE[9]
    for place in range(len(HOSTILE)):
        browser.click(f"#row-{place} .caption")
    assert browser.run("document.title") == "The 10 that stand out most, to be checked - Overscan report"
    assert browser.run("document.scripts.length") == 2
    assert browser.run("document.images.length") == 0
    assert browser.requests() == [pages.hostile.as_uri()]
    assert browser.complaints() == []


def test_the_policy_stops_what_is_not_the_pages_own_script(browser, pages):
    opened(browser, pages.plain)
    tried = """(() => { try { document.body.innerHTML += '<b>x</b>'; return 'done' } catch (e) { return e.name } })()"""
    assert browser.run(tried) == "TypeError"
    assert browser.run("fetch('https://example.invalid/').then(() => 'sent', () => 'stopped')") == "stopped"
    assert "Content Security Policy" in str(browser.complaints())


def test_right_to_left_captions_keep_to_themselves(browser, pages):
    opened(browser, pages.hostile)
    directions = "[...document.querySelectorAll('#body bdi')].map(b => getComputedStyle(b).direction)"
    assert browser.run(directions) == ["ltr"] * 5 + ["rtl"] + ["ltr"] * 4


def test_sorting(browser, pages):
    opened(browser, pages.plain)
    assert browser.run(TEXTS) == ["beta", "alpha", "Gamma"]
    browser.click("button[data-key=text]")
    assert browser.run(TEXTS) == ["alpha", "beta", "Gamma"]
    browser.click("button[data-key=text]")
    assert browser.run(TEXTS) == ["Gamma", "beta", "alpha"]
    browser.click("button[data-key=n_rows]")
    assert browser.run(TEXTS) == ["Gamma", "alpha", "beta"]  # 3, 2 and 1 rows
    assert browser.run("[...document.querySelectorAll('#grid [aria-sort]')].map(h => [h.textContent, h.ariaSort])") == [
        ["rows", "descending"]
    ]


def test_search_by_caption_id_and_file(browser, pages):
    opened(browser, pages.many)
    assert count(browser) == "10,000 captions"
    browser.press("/")
    browser.type("NUMBER 999")
    assert count(browser) == "11 of 10,000 captions"
    assert ranks(browser) == [1000, *range(9991, 10001)]
    for wanted, n in ((f"{77:032x}", 1), ("b.parquet", 6666), ("nothing like it", 0), ("", 10000)):
        browser.run(f"document.getElementById('search').value = '{wanted}'")
        browser.run("document.getElementById('search').dispatchEvent(new Event('input'))")
        assert count(browser) == (f"{n:,} of 10,000 captions" if n < MANY else "10,000 captions")


def test_filter_by_status(browser, pages):
    opened(browser, pages.hostile)
    browser.click("input[value=known]")
    assert ranks(browser) == [2, 5, 8]
    assert count(browser) == "3 of 10 captions"


def test_ten_thousand_rows_open_fast_and_few_are_drawn(browser, pages):
    opened(browser, pages.many)
    took = "performance.getEntriesByType('navigation')[0].duration"
    assert browser.run(took) < 5000  # a tenth of it on a quiet machine
    assert browser.run("document.querySelectorAll('#body tr').length") < 60
    browser.run("document.getElementById('scroller').scrollTop = 1e9")
    browser.settle()
    assert ranks(browser)[-1] == MANY
    height = browser.run("document.querySelector('#body .row').getBoundingClientRect().height")
    assert browser.run("document.getElementById('body').offsetHeight") == pytest.approx(MANY * height, abs=2)


def test_the_keyboard_is_enough(browser, pages):
    opened(browser, pages.many)
    browser.run("document.getElementById('grid').focus()")
    browser.run("document.getElementById('scroller').style.maxHeight = '420px'")
    for key in ("ArrowDown", "ArrowDown", "Enter"):
        browser.press(key)
    active = "document.getElementById(document.getElementById('grid').getAttribute('aria-activedescendant'))"
    assert browser.run(f"[{active}.ariaExpanded, {active}.ariaRowIndex]") == ["true", "4"]
    details = browser.run("document.querySelector('.details').innerText")
    assert "caption number 2, even" in details
    assert f"{2:032x}" in details
    assert "data/b.parquet: rows 31, 32" in details
    assert "agreement_v1 (decides)\n0.9998" in details
    seen = "(e => [e.top, e.bottom])(document.querySelector('{}').getBoundingClientRect())"
    assert browser.run(seen.format(".details"))[1] <= browser.run(seen.format("#scroller"))[1]
    browser.press("End")
    assert ranks(browser)[-1] == MANY
    assert browser.run(f"{active}.ariaRowIndex") == str(MANY + 1)
    browser.press("Home")
    browser.press("Enter")
    browser.press("Enter")
    assert browser.run("document.querySelectorAll('.details').length") == 0


def test_an_id_is_copied(browser, pages):
    opened(browser, pages.plain)
    browser.call("Browser.grantPermissions", permissions=["clipboardReadWrite", "clipboardSanitizedWrite"])
    browser.call("Page.bringToFront")
    browser.click("#row-1 .copy")
    browser.wait(f"document.getElementById('count').textContent === 'copied {1:032x}'")
    assert browser.run("navigator.clipboard.readText()") == f"{1:032x}"
    assert browser.run("document.querySelectorAll('.details').length") == 0


def test_light_and_dark(browser, pages):
    ground = "getComputedStyle(document.documentElement).backgroundColor"
    opened(browser, pages.plain)
    light = browser.run(ground)
    browser.emulate(prefers_color_scheme="dark")
    assert (light, browser.run(ground)) == ("rgb(251, 250, 247)", "rgb(23, 23, 22)")


def test_paper_gets_a_plain_table(browser, pages):
    opened(browser, pages.many)
    seen = "[...document.querySelectorAll('.live, .static')].map(part => part.checkVisibility())"
    assert browser.run(seen) == [True, False]
    browser.emulate("print", prefers_color_scheme="dark")
    assert browser.run(seen) == [False, True]
    assert browser.run("document.querySelectorAll('.static tbody tr').length") == 100
    assert "The first 100 of 10,000 flagged captions" in browser.run("document.querySelector('.static').innerText")
    assert browser.run("getComputedStyle(document.documentElement).backgroundColor") == "rgb(251, 250, 247)"
    pdf = browser.pdf()
    assert pdf.startswith(b"%PDF")
    assert 3 <= pdf.count(b"/Type /Page\n") <= 10


def test_without_scripts_the_first_rows_are_there(browser, pages):
    browser.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.open(pages.plain)
        assert browser.run("document.querySelector('.static').checkVisibility()")
        assert not browser.run("document.querySelector('.live').checkVisibility()")
        assert "need JavaScript" in browser.run("document.querySelector('.static').innerText")
    finally:
        browser.call("Emulation.setScriptExecutionDisabled", value=False)


def test_a_narrow_window_does_not_scroll_sideways(browser, pages):
    opened(browser, pages.hostile, width=390)
    assert browser.run("document.documentElement.scrollWidth") <= 390
    assert browser.run("document.querySelector('#body .caption').offsetWidth") > 150


def test_findings_open_to_their_captions_and_pictures(browser, pages):
    opened(browser, pages.found)
    assert count(browser) == "3 findings, 4 captions"
    assert browser.run(TEXTS) == ["first+ 1 caption", "second", "fourth"]
    rows = "[...document.querySelectorAll('#body .row .n_rows')].map(cell => cell.textContent)"
    assert browser.run(rows) == ["4", "2", "1"]  # 1 and 3 rows bear the first finding
    card = browser.run("document.querySelector('.seen .card').innerText")
    assert "1. first" in card
    assert "All 4 seeds give the same picture" in card
    assert browser.run("document.querySelectorAll('.seen img').length") == 4
    assert browser.run("[...document.images].every(image => image.naturalWidth === 32)")
    browser.click("#row-0 .caption")
    details = browser.run("document.querySelector('.details').innerText")
    assert "seem to lead to the same image:" in details
    assert "third" in details
    assert browser.run("document.querySelector('.details s').textContent") == "<b>a</b>"
    browser.run("document.getElementById('search').value = 'third'")
    browser.run("document.getElementById('search').dispatchEvent(new Event('input'))")
    assert count(browser) == "1 of 3 findings"
    assert browser.run(TEXTS) == ["first+ 1 caption"]
    asked = [url for url in browser.requests() if not url.startswith("data:")]
    assert asked == [pages.found.as_uri()]
    assert browser.complaints() == []


def test_the_printed_table_begins_on_the_first_page(browser, pages):
    opened(browser, pages.found)
    browser.emulate("print")
    browser.resize(680, 960)  # about a page's
    place = "document.querySelector('.static tbody tr').getBoundingClientRect().bottom"
    assert browser.run(place) < 960
    assert browser.run("getComputedStyle(document.querySelector('.static tbody tr')).breakInside") == "avoid"
    assert not browser.run("document.querySelector('.seen').checkVisibility()")
