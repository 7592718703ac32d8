"""Plots as plain SVG: ROC curves over a logarithmic false positive rate, scores against severity, lines over steps."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple
from xml.sax.saxutils import escape

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.floating[Any]]
WIDTH, HEIGHT, MARGIN = 520, 360, 56
COLOURS = ("#4269d0", "#efb118", "#ff725c", "#3ca951", "#a463f2", "#9498a0")
GRID, INK = "#8884", "#777"  # readable on light and on dark


@dataclass(frozen=True)
class Axis:
    """A data axis: `label`, `ticks` with their words, `place` from a value to [0, 1]."""

    label: str
    ticks: Mapping[float, str]
    place: Callable[[Values], Values]


def logarithmic(label: str, low: float) -> Axis:
    """From `low` to 1; smaller values lie on the edge."""
    decades = np.arange(np.ceil(np.log10(low) - 1e-9), 1)
    ticks = {float(10**k): f"{10**k:g}" for k in decades}
    return Axis(label, ticks, lambda values: 1 - np.log10(np.maximum(values, low)) / np.log10(low))


def linear(label: str, low: float, high: float) -> Axis:
    """From `low` to `high` in five ticks."""
    span = high - low if high > low else 1.0
    ticks = {float(tick): f"{tick:.3g}" for tick in np.linspace(low, high, 5)}
    return Axis(label, ticks, lambda values: (values - low) / span)


def rounded(label: str, low: float, high: float) -> Axis:
    """From `low` to `high`, with ticks at multiples of 1, 2 or 5 times a power of ten."""
    span = high - low if high > low else 1.0
    power = 10 ** np.floor(np.log10(span / 4))
    unit = float(power * next(n for n in (1, 2, 5, 10) if n * power >= span / 6))
    ticks = {k * unit: f"{k * unit:g}" for k in range(int(np.ceil(low / unit)), int(np.floor(high / unit)) + 1)}
    return Axis(label, ticks, lambda values: (values - low) / span)


def roc_plot(title: str, curves: Mapping[str, tuple[Values, Values]], negatives: int) -> str:
    """SVG of ROC curves (false, true positive rates) by name; the axis starts at one false positive."""
    x, y = logarithmic("false positive rate", 1 / negatives), linear("true positive rate", 0, 1)
    marks = []
    for i, (name, (fpr, tpr)) in enumerate(curves.items()):
        places = dict.fromkeys(f"{px:.0f},{py:.0f}" for px, py in zip(*_pixels(x, y, fpr, tpr), strict=True))
        points = " ".join(places)  # whole pixels, each once
        colour = COLOURS[i % len(COLOURS)]
        marks.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.8"/>')
        marks.append(_text(WIDTH - MARGIN + 10, MARGIN + 16 * i, name, colour, "start"))
    return _figure(title, x, y, marks, legend=190)


def severity_plot(title: str, score: Values, similarity: Values, groups: Mapping[str, NDArray[np.bool_]]) -> str:
    """SVG of a score against the similarity of generated and training images, a colour for each group of prompts."""
    x = linear("similarity to the nearest training image", float(similarity.min()), float(similarity.max()))
    y = linear("score", float(score.min()), float(score.max()))
    marks = []
    for i, (name, chosen) in enumerate(groups.items()):
        colour = COLOURS[i % len(COLOURS)]
        dots = "".join(
            f"M{px:.0f} {py:.0f}h0" for px, py in zip(*_pixels(x, y, similarity[chosen], score[chosen]), strict=True)
        )
        marks.append(
            f'<path d="{dots}" fill="none" stroke="{colour}" stroke-width="4" stroke-linecap="round" opacity=".45"/>'
        )
        marks.append(_text(WIDTH - MARGIN + 10, MARGIN + 16 * i, f"{name} ({int(chosen.sum()):,})", colour, "start"))
    return _figure(title, x, y, marks, legend=150)


class Line(NamedTuple):
    """A curve of one value per step; a dashed one is what to compare with."""

    name: str
    values: Values
    colour: str
    dashed: bool = False


def step_plot(title: str, label: str, lines: Sequence[Line]) -> str:
    """SVG of curves over the denoising steps, from noise to image; the axis begins at 0, or below."""
    values = np.concatenate([line.values for line in lines])
    values = values[np.isfinite(values)]
    high, low = float(values.max(initial=0)), float(values.min(initial=0))
    x = rounded("denoising step", 0, max(len(line.values) for line in lines) - 1)
    y = rounded(label, low if low < -0.02 * high else 0, high)
    marks, named = [], 0
    for line in lines:
        kept = np.isfinite(line.values)
        px, py = _pixels(x, y, np.arange(len(line.values))[kept].astype(np.float64), line.values[kept])
        points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(px, py, strict=True))
        stroke = f'stroke="{line.colour}" stroke-width="1.8"' + (' stroke-dasharray="5 4"' if line.dashed else "")
        marks.append(f'<polyline points="{points}" fill="none" {stroke}/>')
        if line.name:
            marks.append(_text(WIDTH - MARGIN + 10, MARGIN + 18 * named, line.name, line.colour, "start"))
            named += 1
    return _figure(title, x, y, marks, legend=150)


def _pixels(x: Axis, y: Axis, xs: Values, ys: Values) -> tuple[Values, Values]:
    return MARGIN + x.place(xs) * (WIDTH - 2 * MARGIN), HEIGHT - MARGIN - y.place(ys) * (HEIGHT - 2 * MARGIN)


def _figure(title: str, x: Axis, y: Axis, marks: Sequence[str], legend: int) -> str:
    lines = []
    for tick, words in x.ticks.items():
        (px,), _ = _pixels(x, y, np.array([tick]), np.array([0.0]))
        lines.append(f'<path d="M{px:.1f} {MARGIN}V{HEIGHT - MARGIN}" stroke="{GRID}"/>')
        lines.append(_text(px, HEIGHT - MARGIN + 18, words, INK))
    for tick, words in y.ticks.items():
        _, (py,) = _pixels(x, y, np.array([1.0]), np.array([tick]))
        lines.append(f'<path d="M{MARGIN} {py:.1f}H{WIDTH - MARGIN}" stroke="{GRID}"/>')
        lines.append(_text(MARGIN - 6, py + 4, words, INK, "end"))
    lines.append(_text(WIDTH / 2, HEIGHT - 14, x.label, INK))
    lines.append(_text(MARGIN - 6, MARGIN - 12, y.label, INK, "start"))
    lines.append(_text(MARGIN - 6, 20, title, INK, "start", 14))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH + legend} {HEIGHT}" width="{WIDTH + legend}" '
        f'height="{HEIGHT}" font-family="sans-serif">\n' + "\n".join([*lines, *marks]) + "\n</svg>\n"
    )


def _text(x: float, y: float, words: str, colour: str, anchor: str = "middle", size: int = 12) -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    return f'<text {place} fill="{colour}" font-size="{size}">{escape(words)}</text>'
