"""Closer looks as a page: a card per caption, with its words, pictures and numbers."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from scanner.pages import links, page

TEMPLATE = Path(__file__).parent / "cards.html.j2"
SMALL = 128  # pixels across: shown pixel by pixel


@dataclass(frozen=True)
class Word:
    """A word as it is shown: `style` is strong, some or nothing; `goes`: struck through."""

    text: str
    style: str = ""
    goes: bool = False


@dataclass(frozen=True)
class Card:
    """One caption. `pictures`: (words, PNG); `rows`: of a table under the page's heads; all text made visible."""

    id: str
    words: Sequence[Word]
    verdict: str = ""
    pictures: Sequence[tuple[str, bytes]] = ()
    rows: Sequence[Sequence[str]] = ()
    foot: str = ""


def render(
    name: str, folder: Path, kicker: str, headline: str, lead: str, notes: Sequence[str], heads: Sequence[str],
    cards: Sequence[Card],
) -> str:  # fmt: skip
    """The page called `name` of a folder, which links to the others there."""
    made = f"{datetime.now(UTC):%F}"
    return page.render(
        TEMPLATE, {"style": "cards.css"}, f"{kicker}, {made}",
        kicker=kicker, headline=headline, lead=lead, notes=notes, heads=heads, made=made,
        here=name, pages=links.siblings(folder, name), cards=[_shown(card) for card in cards],
    )  # fmt: skip


def _shown(card: Card) -> Mapping[str, object]:
    return vars(card) | {"pictures": [(words, *_picture(png)) for words, png in card.pictures]}


def _picture(png: bytes) -> tuple[str, str]:
    width = int.from_bytes(png[16:20], "big")  # of its header
    return "data:image/png;base64," + base64.b64encode(png).decode(), "small" if width < SMALL else ""
