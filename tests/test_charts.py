"""The charts of a report: bars, outlines and points lie where the numbers say."""

import re

import polars as pl
import pytest

from scanner.report import charts

BAR = r'<rect x="([\d.]+)" y="([\d.]+)" width="[\d.]+" height="([\d.]+)" class="(bar[ a-z]*)"'


def test_histogram_bars_count_prompts():
    scores = pl.Series([0.0] * 100 + [1.0] * 10 + [2.0])
    svg = charts.histogram(scores, scores > 1.5, None, 1.5)
    bars = re.findall(BAR, svg)
    assert [bar[3] for bar in bars] == ["bar", "bar", "bar", "bar flag"]
    heights = [float(bar[2]) for bar in bars]
    assert heights[0] - heights[1] == pytest.approx(heights[1] - heights[2], abs=0.2)  # a decade each
    assert bars[2][:3] == bars[3][:3]
    assert ">threshold 1.5</text>" in svg


def test_histogram_scales_the_null_to_the_prompts():
    scores, null = pl.Series([0.0] * 50 + [1.0] * 50), pl.Series([0.0, 1.0])
    svg = charts.histogram(scores, scores > 2, null, None)
    tops = {float(y) for y in re.findall(r'<rect [^>]*y="([\d.]+)" [^>]*class="bar"', svg)}
    (points,) = re.findall(r'<polyline points="([^"]*)" [^>]*class="null"', svg)
    outline = {float(pair.split(",")[1]) for pair in points.split()}
    assert outline == tops | {charts.SPACE.height - charts.SPACE.bottom}


@pytest.mark.parametrize("values", [[0.5], [0.5] * 9, [-1e30, 1e30], [1e-12, 2e-12]])
def test_charts_of_odd_scores_stay_in_the_picture(values):
    scores = pl.Series(values, dtype=pl.Float32)
    for svg in (charts.histogram(scores, scores > 0, scores, None), charts.qq(scores, scores)):
        assert not re.search("nan|inf", svg)
        assert all(-1 <= float(x) <= charts.SPACE.width for x in re.findall(r' (?:x|x1|x2)="([^"]*)"', svg))
        assert all(0 <= float(y) <= charts.SPACE.height for y in re.findall(r' (?:y|y1|y2)="([^"]*)"', svg))


def test_quantiles_of_equal_distributions_lie_on_the_diagonal():
    scores = pl.Series([i / 1000 for i in range(1000)])
    points = re.findall(r"M([\d.]+) ([\d.]+)h0", charts.qq(scores, scores.shuffle(seed=1)))
    assert len(points) == charts.QUANTILES + 1
    x, y = [float(p[0]) for p in points], [float(p[1]) for p in points]
    across, up = charts.SPACE.x(0, 1), charts.SPACE.y(0, 1)
    for a, b in zip(x, y, strict=True):
        share = (a - across.start) / (across.end - across.start)
        assert share == pytest.approx((b - up.start) / (up.end - up.start), abs=0.001)


def test_nights_are_bars_in_order():
    history = pl.DataFrame({"date": ["2026-11-01<", "2026-11-02"], "n_flagged": [10, 5], "n_new": [0, 5]})
    svg = charts.nights(history)
    heights = [float(h) for h in re.findall(r'<rect [^>]* height="([\d.]+)" class="bar', svg)]
    assert heights == [heights[0], heights[0] / 2, heights[0] / 2]
    assert "2026-11-01&lt;" in svg
