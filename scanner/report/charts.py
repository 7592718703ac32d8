"""The charts of a report, drawn from Polars bins: pure functions, coloured by the page's style sheet.

A score that is null has no place in a chart; every series here is finite numbers.
"""

import math
from collections.abc import Iterable, Sequence

import polars as pl
from markupsafe import Markup

from scanner.pages import svg
from scanner.pages.svg import Frame, Scale

SPACE = Frame(width=640, height=280, left=56, right=12, top=18, bottom=40)
BAR, FLAG, NULL = "#8f8b7e", "#a3321f", "#22577a"
BINS = 60
QUANTILES = 200
NIGHTS = 14  # the least that the axis has room for
FEWEST = 0.5  # of a logarithmic count axis: a single prompt still has a height


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
    x = SPACE.x(*svg.widened(min(map(_low, ends)), max(map(_high, ends))))
    counts = _counts(scores, x)
    prompts = len(scores) if prompts is None else prompts
    expected = [count * prompts / len(null) for count in _counts(null, x)] if null is not None else []
    most = max([1, *counts, *expected])
    y = SPACE.y(FEWEST, FEWEST * (most / FEWEST) ** 1.1, logarithmic=True)  # room for a word above the bars
    parts = [*SPACE.y_axis(y, svg.decades(1, y.high)), *SPACE.x_axis(x, svg.ticks(x.low, x.high), "score")]
    parts += _bars("bar", counts, x, y)
    parts += _bars("bar flag", _counts(scores.filter(flagged), x), x, y)
    if null is not None:
        parts.append(_outline(expected, x, y))
    if threshold is not None:
        parts += _threshold(threshold, x, y)
    return SPACE.drawing(f"Histogram of the scores of {len(scores):,} prompts", parts)


def qq(scores: pl.Series, null: pl.Series) -> Markup:
    """Quantiles of `scores` against the same quantiles of `null`; on the diagonal the two are alike."""
    low, high = svg.widened(min(_low(scores), _low(null)), max(_high(scores), _high(null)))
    x, y = SPACE.x(low, high), SPACE.y(low, high)
    spread = math.log10(max(10, min(len(scores), len(null))))
    # dense in the upper tail, where the flagged captions are
    probability = 1 - 10 ** -(pl.int_range(QUANTILES + 1, eager=True) / QUANTILES * spread)
    ticks = svg.ticks(low, high)
    parts = [*SPACE.x_axis(x, ticks, "null captions"), *SPACE.y_axis(y, ticks)]
    parts.append(svg.line(x(low), y(low), x(high), y(high), class_="diagonal", stroke=NULL, stroke_dasharray="4 4"))
    across, up = [x(value) for value in _at(null, probability)], [y(value) for value in _at(scores, probability)]
    parts.append(svg.dots(across, up, 5, class_="point", stroke=FLAG))
    return SPACE.drawing("Quantiles of the scores against quantiles of the null captions", parts)


def nights(history: pl.DataFrame) -> Markup:
    """A bar per night, [date, n_flagged, n_new] oldest first: flagged prompts, the new ones on top."""
    room = [0] * (NIGHTS - len(history))  # a few nights are narrow bars, not blocks
    flagged, new = history["n_flagged"].to_list() + room, history["n_new"].to_list() + room
    x, y = SPACE.x(0, len(flagged)), SPACE.y(0, max(1, *flagged))
    parts = [*SPACE.y_axis(y, svg.ticks(y.low, y.high, whole=True)), *SPACE.x_axis(x, {})]
    parts += [*_bars("bar", flagged, x, y), *_bars("bar flag", new, x, y)]
    under = y.start + 18
    parts.append(svg.text(x.start, under, str(history["date"][0])))
    if len(history) > 1:
        end = x(len(history))
        parts.append(svg.text(end, under, str(history["date"][-1]), "end" if end > SPACE.width / 2 else "start"))
    return SPACE.drawing(f"Flagged prompts over {len(history)} nights", parts)


def _threshold(threshold: float, x: Scale, y: Scale) -> Iterable[Markup]:
    at = x(threshold)
    anchor, dx = ("end", -5) if at > SPACE.width / 2 else ("start", 5)
    yield svg.line(at, y.start, at, y.end, class_="threshold", stroke=FLAG, stroke_dasharray="5 3")
    yield svg.text(at + dx, y.end + 10, f"threshold {threshold:.4g}", anchor)


def _counts(values: pl.Series, x: Scale) -> list[int]:
    """How many values lie in each of BINS equal bins along `x`."""
    place = (
        ((pl.col("value").cast(pl.Float64) - x.low) / (x.high - x.low) * BINS).floor().cast(pl.Int64).clip(0, BINS - 1)
    )
    counted = values.rename("value").to_frame().lazy().group_by(bin=place).len()
    found = dict(counted.collect(engine="streaming").iter_rows())
    return [found.get(i, 0) for i in range(BINS)]


def _at(values: pl.Series, probability: pl.Series) -> list[float]:
    index = (probability * (len(values) - 1)).round().cast(pl.UInt32)
    return values.sort().gather(index).cast(pl.Float64).to_list()


def _low(values: pl.Series) -> float:
    return float(values.min())  # type: ignore[arg-type]


def _high(values: pl.Series) -> float:
    return float(values.max())  # type: ignore[arg-type]


def _bars(style: str, heights: Sequence[float], x: Scale, y: Scale) -> Iterable[Markup]:
    """Bars side by side along `x`; none where a height is at the bottom of the axis."""
    width = (x.end - x.start) / len(heights)
    gap = min(1.0, width / 6)
    for i, height in enumerate(heights):
        if (top := y(height)) < y.start:
            left = x.start + i * width + gap / 2
            fill = FLAG if "flag" in style else BAR
            yield svg.rectangle(left, top, width - gap, y.start - top, class_=style, fill=fill)


def _outline(heights: Sequence[float], x: Scale, y: Scale) -> Markup:
    """A stepped line over the same bins."""
    width = (x.end - x.start) / len(heights)
    xs = [x.start + i * width for k in range(len(heights)) for i in (k, k + 1)]
    return svg.curve(xs, [y(height) for height in heights for _ in (0, 1)], class_="null", stroke=NULL)
