"""Charts as inline SVG, drawn from Polars bins: pure functions, coloured by the page's style sheet.

A score that is null has no place in a chart; every series here is finite numbers.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import polars as pl
from markupsafe import Markup, escape

WIDTH, HEIGHT = 640, 280
LEFT, RIGHT, TOP, BOTTOM = 56, 12, 18, 40
BINS = 60
QUANTILES = 200
NIGHTS = 14  # the least that the axis has room for
FEWEST = 0.5  # of a logarithmic count axis: a single prompt still has a height


@dataclass(frozen=True)
class Axis:
    """Data from `low` to `high` onto pixels from `start` to `end`."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """Pixel of a value, rounded to what an eye can see."""
        return round(self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start), 1)


def histogram(
    scores: pl.Series,
    flagged: pl.Series,
    null: pl.Series | None,
    threshold: float | None,
    prompts: int | None = None,
) -> Markup:
    """Prompts per bin of score, the flagged ones on top; counts are logarithmic.

    `scores`: of all scored prompts; `flagged`: bool, as long; `null`: drawn scaled to as many prompts, or to `prompts`,
    where some were screened out and have no score.
    """
    ends = [scores] + ([null] if null is not None else []) + ([pl.Series([threshold])] if threshold is not None else [])
    low, high = _widened(min(map(_low, ends)), max(map(_high, ends)))
    x = Axis(low, high, LEFT, WIDTH - RIGHT)
    counts = _counts(scores, low, high)
    prompts = len(scores) if prompts is None else prompts
    expected = [count * prompts / len(null) for count in _counts(null, low, high)] if null is not None else []
    y = _count_axis(max([1, *counts, *expected]))
    parts = [*_count_grid(y), *_x_axis(x, "score")]
    parts += _bars("bar", _log(counts), x, y)
    parts += _bars("bar flag", _log(_counts(scores.filter(flagged), low, high)), x, y)
    if null is not None:
        parts.append(_outline(_log(expected), x, y))
    if threshold is not None:
        at = x(threshold)
        side, dx = ("end", -5) if at > WIDTH / 2 else ("start", 5)
        parts += [_line("threshold", at, TOP, at, HEIGHT - BOTTOM)]
        parts += [_text(at + dx, TOP + 10, side, f"threshold {threshold:.4g}")]
    return _svg(f"Histogram of the scores of {len(scores):,} prompts", parts)


def qq(scores: pl.Series, null: pl.Series) -> Markup:
    """Quantiles of `scores` against the same quantiles of `null`; on the diagonal the two are alike."""
    low, high = _widened(min(_low(scores), _low(null)), max(_high(scores), _high(null)))
    x, y = Axis(low, high, LEFT, WIDTH - RIGHT), Axis(low, high, HEIGHT - BOTTOM, TOP)
    spread = math.log10(max(10, min(len(scores), len(null))))
    # dense in the upper tail, where the flagged captions are
    probability = 1 - 10 ** -(pl.int_range(QUANTILES + 1, eager=True) / QUANTILES * spread)
    points = (_at(null, probability), _at(scores, probability))
    parts = [_line("diagonal", x(low), y(low), x(high), y(high)), *_x_axis(x, "null captions"), *_y_axis(y)]
    parts += [
        Markup('<circle class="point" cx="{}" cy="{}" r="2.5"/>').format(x(a), y(b))
        for a, b in zip(*points, strict=True)
    ]
    return _svg("Quantiles of the scores against quantiles of the null captions", parts)


def nights(history: pl.DataFrame) -> Markup:
    """A bar per night, [date, n_flagged, n_new] oldest first: flagged prompts, the new ones on top."""
    room = [0] * (NIGHTS - len(history))  # a few nights are narrow bars, not blocks
    flagged, new = history["n_flagged"].to_list() + room, history["n_new"].to_list() + room
    x = Axis(0, len(flagged), LEFT, WIDTH - RIGHT)
    highest = max(1, *flagged)
    y = Axis(0, highest, HEIGHT - BOTTOM, TOP)
    parts = [*_y_axis(y, whole=True), *_bars("bar", flagged, x, y), *_bars("bar flag", new, x, y)]
    parts.append(_line("axis", LEFT, HEIGHT - BOTTOM, WIDTH - RIGHT, HEIGHT - BOTTOM))
    parts.append(_text(LEFT, HEIGHT - BOTTOM + 18, "start", str(history["date"][0])))
    if len(history) > 1:
        end = x(len(history))
        side = "end" if end > WIDTH / 2 else "start"
        parts.append(_text(end, HEIGHT - BOTTOM + 18, side, str(history["date"][-1])))
    return _svg(f"Flagged prompts over {len(history)} nights", parts)


def _counts(values: pl.Series, low: float, high: float) -> list[int]:
    """How many values lie in each of BINS equal bins from `low` to `high`."""
    place = ((values.cast(pl.Float64) - low) / (high - low) * BINS).floor().cast(pl.Int64).clip(0, BINS - 1)
    found = dict(place.alias("bin").to_frame().group_by("bin").len().iter_rows())
    return [found.get(i, 0) for i in range(BINS)]


def _at(values: pl.Series, probability: pl.Series) -> list[float]:
    index = (probability * (len(values) - 1)).round().cast(pl.UInt32)
    return values.sort().gather(index).cast(pl.Float64).to_list()


def _low(values: pl.Series) -> float:
    return float(values.min())  # type: ignore[arg-type]


def _high(values: pl.Series) -> float:
    return float(values.max())  # type: ignore[arg-type]


def _widened(low: float, high: float) -> tuple[float, float]:
    """A range of equal ends as one with a width."""
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _ticks(low: float, high: float, wanted: int = 6) -> list[float]:
    """Round numbers from `low` to `high`, steps of 1, 2 or 5 times a power of ten."""
    rough = (high - low) / wanted
    power = 10 ** math.floor(math.log10(rough))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= rough)
    return [i * step for i in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _count_axis(highest: float) -> Axis:
    low = math.log10(FEWEST)
    high = low + (math.log10(highest) - low) * 1.1  # room for a word above the bars
    return Axis(low, high, HEIGHT - BOTTOM, TOP)


def _count_grid(y: Axis) -> Iterable[Markup]:
    for power in range(math.floor(y.high) + 1):
        yield _line("grid", LEFT, y(power), WIDTH - RIGHT, y(power))
        yield _text(LEFT - 8, y(power) + 4, "end", f"{10**power:,}")


def _x_axis(x: Axis, label: str) -> Iterable[Markup]:
    yield _line("axis", LEFT, HEIGHT - BOTTOM, WIDTH - RIGHT, HEIGHT - BOTTOM)
    for tick in _ticks(x.low, x.high):
        yield _text(x(tick), HEIGHT - BOTTOM + 18, "middle", f"{tick:.6g}")
    yield _text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 4, "middle", label)


def _y_axis(y: Axis, whole: bool = False) -> Iterable[Markup]:
    for tick in _ticks(y.low, y.high):
        if not whole or tick == int(tick):
            yield _line("grid", LEFT, y(tick), WIDTH - RIGHT, y(tick))
            yield _text(LEFT - 8, y(tick) + 4, "end", f"{int(tick):,}" if whole else f"{tick:.6g}")


def _log(counts: Sequence[float]) -> list[float]:
    return [math.log10(max(count, FEWEST)) for count in counts]


def _bars(style: str, heights: Sequence[float], x: Axis, y: Axis) -> Iterable[Markup]:
    """Bars side by side along `x`; none where a height is at the bottom of the axis."""
    width = (x.end - x.start) / len(heights)
    gap = min(1.0, width / 6)
    for i, height in enumerate(heights):
        if (top := y(height)) < y.start:
            yield Markup('<rect class="{}" x="{}" y="{}" width="{}" height="{}"/>').format(
                style, round(x.start + i * width + gap / 2, 1), top, round(width - gap, 1), round(y.start - top, 1)
            )


def _outline(heights: Sequence[float], x: Axis, y: Axis) -> Markup:
    """A stepped line over the same bins."""
    width = (x.end - x.start) / len(heights)
    ends = [(x.start + i * width, x.start + (i + 1) * width, y(height)) for i, height in enumerate(heights)]
    steps = " ".join(f"{left:.1f},{top} {right:.1f},{top}" for left, right, top in ends)
    return Markup('<polyline class="null" points="{}"/>').format(steps)


def _line(style: str, x1: float, y1: float, x2: float, y2: float) -> Markup:
    return Markup('<line class="{}" x1="{}" y1="{}" x2="{}" y2="{}"/>').format(style, x1, y1, x2, y2)


def _text(x: float, y: float, anchor: str, text: str) -> Markup:
    return Markup('<text x="{}" y="{}" text-anchor="{}">{}</text>').format(round(x, 1), round(y, 1), anchor, text)


def _svg(title: str, parts: Iterable[Markup]) -> Markup:
    start = Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">').format(WIDTH, HEIGHT, title)
    return start + Markup("").join(map(escape, parts)) + Markup("</svg>")
