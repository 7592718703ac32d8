"""One small SVG library: scales from data to pixels, axes, and marks, for every chart that a page or a file shows.

What is drawn has plain colours, readable on light and on dark; a page's style sheet may colour it anew by its class.
Text and attributes are escaped, pixels rounded to what an eye can see. A mark's further attributes are SVG's own, with
`_` for `-`; `class_` is `class`.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

from markupsafe import Markup

COLOURS = ("#4269d0", "#efb118", "#ff725c", "#3ca951", "#a463f2", "#9498a0")
GRID, INK = "#8884", "#777"
SIZE = 12  # of text
DASHES = "5 4"
Style = str | float | None  # of an attribute: a pixel or a word; None leaves it out


@dataclass(frozen=True)
class Scale:
    """Data from `low` to `high` onto pixels from `start` to `end`; logarithmic, what is smaller lies at the start."""

    low: float
    high: float
    start: float
    end: float
    logarithmic: bool = False

    def __call__(self, value: float) -> float:
        """Pixel of a value."""
        low, high, at = self.low, self.high, float(value)
        if self.logarithmic:
            low, high, at = math.log(low), math.log(high), math.log(max(at, low))
        return round(self.start + (at - low) / (high - low) * (self.end - self.start), 1)


@dataclass(frozen=True)
class Frame:
    """A drawing of `width` by `height` pixels, and the margins around the area where data lie."""

    width: float
    height: float
    left: float
    right: float
    top: float
    bottom: float

    def x(self, low: float, high: float, logarithmic: bool = False) -> Scale:
        """Data from left to right."""
        return Scale(low, high, self.left, self.width - self.right, logarithmic)

    def y(self, low: float, high: float, logarithmic: bool = False) -> Scale:
        """Data from the bottom up."""
        return Scale(low, high, self.height - self.bottom, self.top, logarithmic)

    def x_axis(self, x: Scale, ticks: Mapping[float, str], label: str = "", grid: bool = False) -> Iterator[Markup]:
        """The axis at the bottom: a line, words under each tick, and a label under the middle."""
        floor = self.height - self.bottom
        for tick, words in ticks.items():
            if grid:
                yield line(x(tick), self.top, x(tick), floor, class_="grid", stroke=GRID)
            yield text(x(tick), floor + 18, words, "middle")
        yield line(x.start, floor, x.end, floor, class_="axis", stroke=INK)
        if label:
            yield text((x.start + x.end) / 2, floor + 36, label, "middle")

    def y_axis(self, y: Scale, ticks: Mapping[float, str], label: str = "") -> Iterator[Markup]:
        """The axis at the left: a line across and words for each tick, and a label above."""
        for tick, words in ticks.items():
            yield line(self.left, y(tick), self.width - self.right, y(tick), class_="grid", stroke=GRID)
            yield text(self.left - 8, y(tick) + 4, words, "end")
        if label:
            yield text(self.left - 6, self.top - 12, label)

    def drawing(self, title: str, parts: Iterable[Markup]) -> Markup:
        """The whole picture; who cannot see it hears the title."""
        return element(
            "svg", Markup("\n").join(parts), xmlns="http://www.w3.org/2000/svg", role="img", aria_label=title,
            viewBox=f"0 0 {self.width:g} {self.height:g}", width=self.width, height=self.height, fill=INK,
            font_family="sans-serif", font_size=SIZE,
        )  # fmt: skip


class Key(NamedTuple):
    """A line of a legend."""

    name: str
    colour: str
    dashed: bool = False


def legend(x: float, y: float, keys: Iterable[Key]) -> Iterator[Markup]:
    """A stroke and a name for each key, from [x, y] down."""
    for i, (name, colour, dashed) in enumerate(keys):
        at = y + 18 * i
        yield line(
            x, at - 4, x + 18, at - 4, stroke=colour, stroke_width=2, stroke_dasharray=DASHES if dashed else None
        )
        yield text(x + 24, at, name)


def ticks(low: float, high: float, wanted: int = 6, whole: bool = False) -> dict[float, str]:
    """Round numbers from `low` to `high`, steps of 1, 2 or 5 times a power of ten, with their words."""
    rough = (high - low) / wanted
    power = 10 ** math.floor(math.log10(rough))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= rough)
    found = [i * step for i in range(math.ceil(low / step), math.floor(high / step) + 1)]
    if whole:
        return {tick: f"{int(tick):,}" for tick in found if tick == int(tick)}
    return {tick: f"{tick:.6g}" for tick in found}


def decades(low: float, high: float) -> dict[float, str]:
    """Powers of ten from `low` to `high`, with their words."""
    first, last = math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9)
    return {10.0**k: f"{10**k:,}" if k >= 0 else f"{10.0**k:g}" for k in range(first, last + 1)}


def widened(low: float, high: float) -> tuple[float, float]:
    """A range of equal ends as one with a width."""
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def line(x1: float, y1: float, x2: float, y2: float, **style: Style) -> Markup:
    """A straight line."""
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, **style)


def rectangle(x: float, y: float, width: float, height: float, **style: Style) -> Markup:
    """A filled rectangle, by its upper left corner."""
    return element("rect", x=x, y=y, width=width, height=height, **style)


def curve(xs: Sequence[float], ys: Sequence[float], dashed: bool = False, **style: Style) -> Markup:
    """A line through points; of neighbours that share a pixel, one."""
    places = " ".join(place for place, _ in groupby(f"{_number(x)},{_number(y)}" for x, y in zip(xs, ys, strict=True)))
    return element("polyline", points=places, fill="none", stroke_dasharray=DASHES if dashed else None, **style)


def dots(xs: Sequence[float], ys: Sequence[float], size: float, **style: Style) -> Markup:
    """A round dot at each point: one element, as there may be thousands."""
    places = "".join(f"M{_number(x)} {_number(y)}h0" for x, y in zip(xs, ys, strict=True))
    return element("path", d=places, fill="none", stroke_width=size, stroke_linecap="round", **style)


def text(x: float, y: float, words: str, anchor: str = "start", **style: Style) -> Markup:
    """Words that start at, end at or are centred on a point: `anchor` is start, end or middle."""
    return element("text", words, x=x, y=y, text_anchor=anchor, **style)


def element(name: str, content: str = "", /, **attributes: Style) -> Markup:
    """An SVG element. `content` is escaped unless it is Markup."""
    given = Markup("").join(
        Markup(' {}="{}"').format(
            key.rstrip("_").replace("_", "-"), value if isinstance(value, str) else _number(value)
        )
        for key, value in attributes.items()
        if value is not None
    )
    return Markup("<{0}{1}>{2}</{0}>" if content else "<{0}{1}/>").format(name, given, content)


def _number(value: float) -> str:
    return f"{round(float(value), 1):g}"
