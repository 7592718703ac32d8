"""Plots: curves and points lie where the numbers say, and only for those that are numbers."""

import re

import numpy as np

from scanner.evidence.plots import Line, roc_plot, severity_plot, step_plot


def test_plots_place_their_points():
    curve = {"a < b": (np.array([0, 0.01, 1]), np.array([0, 0.5, 1]))}
    svg = roc_plot("title", curve, negatives=100)
    (points,) = re.findall(r'points="([^"]+)"', svg)
    assert points == "56,304 56,180 464,56"  # the axis starts at one false positive of a hundred
    assert "a &lt; b" in svg
    groups = {"no": np.array([True, False]), "yes": np.array([False, True])}
    svg = severity_plot("title", np.array([1.0, 3.0]), np.array([0.2, 0.6]), groups)
    assert re.findall(r' d="(M[^"]+h0)"', svg) == ["M56 304h0", "M464 56h0"]
    assert ">yes (1)<" in svg


def test_steps_leave_out_what_is_no_number():
    lines = [Line("a", np.array([np.nan, 1.0, 2.0]), "#111"), Line("b", np.array([4.0, 0.0, 0.0]), "#222", dashed=True)]
    svg = step_plot("title", "label", lines)
    assert re.findall(r'points="([^"]+)"', svg) == ["260,242 464,180", "56,56 260,304 464,304"]
    assert re.findall(r'<polyline [^>]*stroke-dasharray="5 4"[^>]* stroke="(#\d+)"', svg) == ["#222"]
    assert re.findall(r'<line [^>]*stroke="(#\d+)"[^>]*stroke-dasharray="5 4"', svg) == ["#222"]  # the legend
    assert re.findall(r'text-anchor="middle">(\d)</text>', svg) == ["0", "1", "2"]


def test_one_step_of_zeros_has_a_picture():
    svg = step_plot("title", "label", [Line("a", np.zeros(1), "#111")])
    assert 'points="260,180"' in svg  # the middle
