"""Plots in SVG files: ROC curves over a logarithmic false positive rate, scores against severity, lines over steps."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from scanner.pages import svg
from scanner.pages.svg import COLOURS, Frame, Key

Values = NDArray[np.floating[Any]]
SPACE = Frame(width=720, height=360, left=56, right=256, top=56, bottom=56)  # the legend is in the right margin
STROKE = 1.8
DOT, FEW = 4, 500  # so many points have dots of twice the size


def roc_plot(title: str, curves: Mapping[str, tuple[Values, Values]], negatives: int) -> Markup:
    """ROC curves (false, true positive rates) by name; the axis starts at one false positive."""
    x, y = SPACE.x(1 / negatives, 1, logarithmic=True), SPACE.y(0, 1)
    keys = [Key(name, COLOURS[i % len(COLOURS)]) for i, name in enumerate(curves)]
    marks = [
        # whole pixels: a curve has as many points as there are scores
        svg.curve([round(x(f)) for f in fpr], [round(y(t)) for t in tpr], stroke=key.colour, stroke_width=STROKE)
        for key, (fpr, tpr) in zip(keys, curves.values(), strict=True)
    ]
    axes = [*SPACE.x_axis(x, svg.decades(x.low, x.high), "false positive rate", grid=True)]
    axes += SPACE.y_axis(y, svg.ticks(0, 1), "true positive rate")
    return _figure(title, axes, marks, keys)


def severity_plot(title: str, score: Values, similarity: Values, groups: Mapping[str, NDArray[np.bool_]]) -> Markup:
    """A score against the similarity of generated and training images, a colour for each group of prompts."""
    x, y = (
        scale(*svg.widened(float(values.min()), float(values.max())))
        for scale, values in ((SPACE.x, similarity), (SPACE.y, score))
    )
    marks, keys = [], []
    for i, (name, chosen) in enumerate(groups.items()):
        keys.append(Key(f"{name} ({int(chosen.sum()):,})", COLOURS[i % len(COLOURS)]))
        xs, ys = [round(x(value)) for value in similarity[chosen]], [round(y(value)) for value in score[chosen]]
        marks.append(svg.dots(xs, ys, DOT if len(score) > FEW else 2 * DOT, stroke=keys[-1].colour, opacity=".45"))
    axes = [*SPACE.x_axis(x, svg.ticks(x.low, x.high), "similarity to the nearest training image", grid=True)]
    axes += SPACE.y_axis(y, svg.ticks(y.low, y.high), "score")
    return _figure(title, axes, marks, keys)


class Line(NamedTuple):
    """A curve of one value per step; a dashed one is what to compare with."""

    name: str
    values: Values
    colour: str
    dashed: bool = False


def step_plot(title: str, label: str, lines: Sequence[Line]) -> Markup:
    """Curves over the denoising steps, from noise to image; the axis begins at 0, or below."""
    steps = range(max(len(line.values) for line in lines))
    return _curves(title, label, "denoising step", steps, lines, whole=True)


def scale_plot(title: str, label: str, scales: Sequence[float], lines: Sequence[Line]) -> Markup:
    """Curves over guidance scales, from the smallest up."""
    return _curves(title, label, "guidance scale", scales, lines)


def _curves(
    title: str, label: str, x_label: str, at: Sequence[float], lines: Sequence[Line], whole: bool = False
) -> Markup:
    """Each line's values at the first of `at`."""
    values = np.concatenate([line.values for line in lines])
    values = values[np.isfinite(values)]
    high, low = float(values.max(initial=0)), float(values.min(initial=0))
    x = SPACE.x(*svg.widened(min(0, *at), max(at)))
    y = SPACE.y(*svg.widened(low if low < -0.02 * high else 0, high))
    marks = []
    for line in lines:
        known = np.flatnonzero(np.isfinite(line.values)).tolist()
        xs, ys = [x(at[i]) for i in known], [y(value) for value in line.values[known]]
        marks.append(svg.curve(xs, ys, line.dashed, stroke=line.colour, stroke_width=STROKE))
    axes = [*SPACE.x_axis(x, svg.ticks(x.low, x.high, whole=whole), x_label, grid=True)]
    axes += SPACE.y_axis(y, svg.ticks(y.low, y.high), label)
    return _figure(title, axes, marks, [Key(line.name, line.colour, line.dashed) for line in lines])


def _figure(title: str, axes: Sequence[Markup], marks: Sequence[Markup], keys: Sequence[Key]) -> Markup:
    heading = svg.text(SPACE.left - 6, 20, title, font_size=14)
    names = svg.legend(SPACE.width - SPACE.right + 12, SPACE.top + 6, keys)
    return SPACE.drawing(title, [heading, *axes, *marks, *names])
