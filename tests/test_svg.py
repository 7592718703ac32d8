"""The SVG library: where values lie, which ticks are round, and that no text can become markup."""

from xml.etree import ElementTree

import pytest
from markupsafe import Markup

from scanner.pages.svg import Frame, Key, Scale, curve, decades, dots, element, legend, rectangle, text, ticks, widened

SPACE = Frame(width=200, height=100, left=20, right=30, top=10, bottom=40)


def test_scales_span_the_space_between_the_margins():
    x, y = SPACE.x(-1, 1), SPACE.y(0, 10)
    assert (x(-1), x(0), x(1)) == (20, 95, 170)
    assert (y(0), y(5), y(10)) == (60, 35, 10)
    assert Scale(0, 3, 0, 100)(1) == 33.3


def test_a_logarithmic_scale_keeps_small_values_at_its_start():
    scale = Scale(0.01, 1, 0, 100, logarithmic=True)
    assert [scale(value) for value in (1, 0.1, 0.01, 0.001, 0)] == [100, 50, 0, 0, 0]


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, ["0", "0.2", "0.4", "0.6", "0.8", "1"]),
        (-0.5, 1.2, ["-0.5", "0", "0.5", "1"]),
        (1e-12, 2e-12, ["1e-12", "1.2e-12", "1.4e-12", "1.6e-12", "1.8e-12", "2e-12"]),
        (3, 31, ["5", "10", "15", "20", "25", "30"]),
    ],
)
def test_ticks_are_round(low, high, expected):
    assert list(ticks(low, high).values()) == expected


def test_whole_ticks_are_counts():
    assert ticks(0, 2, whole=True) == {0: "0", 1: "1", 2: "2"}
    assert list(ticks(0, 5000, whole=True).values()) == ["0", "1,000", "2,000", "3,000", "4,000", "5,000"]


def test_decades_are_powers_of_ten():
    assert decades(0.001, 1) == {0.001: "0.001", 0.01: "0.01", 0.1: "0.1", 1: "1"}
    assert decades(1 / 300, 1) == {0.01: "0.01", 0.1: "0.1", 1: "1"}
    assert decades(1, 20_000) == {1: "1", 10: "10", 100: "100", 1000: "1,000", 10_000: "10,000"}


def test_a_range_without_a_width_gets_one():
    assert widened(2, 2) == (1.5, 2.5)
    assert widened(2, 3) == (2, 3)


def test_axes_draw_a_tick_for_each_word():
    x_axis = Markup("").join(SPACE.x_axis(SPACE.x(0, 10), {0: "none", 10: "ten"}, "label", grid=True))
    assert x_axis.count('class="grid"') == 2
    assert '<text x="170" y="78" text-anchor="middle">ten</text>' in x_axis
    assert '<line x1="20" y1="60" x2="170" y2="60" class="axis" stroke="#777"/>' in x_axis
    assert '<text x="95" y="96" text-anchor="middle">label</text>' in x_axis
    y_axis = Markup("").join(SPACE.y_axis(SPACE.y(0, 10), {5: "five"}))
    assert y_axis == (
        '<line x1="20" y1="35" x2="170" y2="35" class="grid" stroke="#8884"/>'
        '<text x="12" y="39" text-anchor="end">five</text>'
    )


def test_marks_are_where_they_are_put():
    assert 'points="0,0 10,5.2"' in curve([0, 0.01, 10], [0, 0, 5.15], stroke="red")
    assert 'd="M1 2h0M3 4h0"' in dots([1, 3], [2, 4], 5)
    assert rectangle(1, 2, 3.04, 4, class_="bar") == '<rect x="1" y="2" width="3" height="4" class="bar"/>'


def test_a_legend_has_a_stroke_for_each_name():
    keys = "".join(legend(10, 20, [Key("plain", "#111"), Key("other", "#222", dashed=True)]))
    assert keys.count("stroke-dasharray") == 1
    assert '<text x="34" y="20" text-anchor="start">plain</text>' in keys
    assert '<text x="34" y="38" text-anchor="start">other</text>' in keys


def test_text_and_attributes_stay_text():
    assert "<script" not in text(0, 0, "<script>alert(1)</script>")
    assert element("g", "a & b", id='"><x', fill=None) == '<g id="&#34;&gt;&lt;x">a &amp; b</g>'


def test_a_drawing_is_a_file_of_its_own_that_says_what_it_shows():
    root = ElementTree.fromstring(SPACE.drawing("5 < 6", [text(1, 2, "é")]))
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert root.attrib["viewBox"] == "0 0 200 100"
    assert root.attrib["aria-label"] == "5 < 6"
    assert root[0].text == "é"
