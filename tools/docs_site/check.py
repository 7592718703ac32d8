"""Does any page of a built site load something from another server? python -m tools.docs_site.check FOLDER

Links that a reader may follow are none of its business; scripts, styles, images, fonts and frames are.
"""

import re
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

LOADS = {
    "script": "src",
    "img": "src",
    "iframe": "src",
    "source": "src",
    "video": "src",
    "audio": "src",
    "link": "href",
}
FOLLOWED = {"canonical", "next", "prev", "alternate"}  # kinds of <link> that load nothing
ELSEWHERE = re.compile(r"^\s*(?:https?:)?//", re.IGNORECASE)
OF_STYLE = re.compile(r"""(?:url\(|@import)\s*["']?((?:https?:)?//[^"')\s]+)""", re.IGNORECASE)


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag == "link" and FOLLOWED & set(given.get("rel", "").split()):
            return
        self.loaded += [given[name] for name in (LOADS.get(tag, ""), "srcset") if ELSEWHERE.match(given.get(name, ""))]
        self.loaded += OF_STYLE.findall(given.get("style", ""))


def loaded(text: str) -> list[str]:
    """What a page loads from elsewhere.

    >>> loaded('<script src="https://cdn.test/a.js"></script><a href="https://b.test">b</a><img src="c.png">')
    ['https://cdn.test/a.js']
    """
    page = _Page()
    page.feed(text)
    styles = re.findall(r"<style[^>]*>(.*?)</style>", text, re.DOTALL)
    return page.loaded + [url for style in styles for url in OF_STYLE.findall(style)]


def findings(site: Path) -> Iterator[str]:
    """Every page and style sheet with what it loads from elsewhere."""
    for path in sorted(site.rglob("*")):
        if path.suffix in (".html", ".css"):
            text = path.read_text(encoding="utf-8")
            for url in loaded(text) if path.suffix == ".html" else OF_STYLE.findall(text):
                yield f"{path.relative_to(site)}: {url}"


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    if not (folder / "index.html").is_file():
        sys.exit(f"{folder}: no site there")
    found = list(findings(folder))
    print("\n".join(found) or f"{sum(1 for _ in folder.rglob('*.html'))} pages load nothing from other servers")
    sys.exit(bool(found))
