"""Curves as SVG: round ticks, points where they belong, names that are escaped."""

import math
import re
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nas.report.charts import LARGE, Line, chart, short, tick_labels, ticks


@settings(deadline=None, derandomize=True, max_examples=100)
@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6), st.integers(3, 8))
def test_ticks_are_round_even_and_around_the_values(low: float, width: float, count: int) -> None:
    found = ticks(low, low + width, count)
    step = found[1] - found[0]
    assert found[0] <= low + 1e-6 * step and found[-1] >= low + width - 1e-6 * step
    assert 2 <= len(found) <= count + 3
    mantissa = step / 10 ** math.floor(math.log10(step) + 1e-6)
    assert min(abs(mantissa - m) for m in (1, 2, 5, 10)) < 1e-3


@settings(deadline=None, derandomize=True, max_examples=300)
@given(st.floats(-1e7, 1e7), st.floats(-5, 6), st.integers(3, 8))
def test_labels_of_ticks_tell_them_apart(low: float, exponent: float, count: int) -> None:
    values = ticks(low, low + 10**exponent, count)
    assert len(set(tick_labels(values))) == len(values)


@pytest.mark.parametrize(
    ("values", "labels"),
    [
        ([0.99, 0.995, 1.0], ["0.990", "0.995", "1.000"]),
        ([0, 5, 10], ["0", "5", "10"]),
        ([0, 1e6, 2e6], ["0", "1 M", "2 M"]),
        ([0, 2e-6, 4e-6], ["0", "2e-06", "4e-06"]),
        ([2.3025, 2.3026, 2.3027], ["2.3025", "2.3026", "2.3027"]),
        ([2.30258, 2.3026, 2.30262], ["2.30258", "2.3026", "2.30262"]),
        ([86780, 86785, 86790], ["86.780 k", "86.785 k", "86.790 k"]),
    ],
)
def test_labels_of_ticks_have_no_more_digits_than_that_takes(
    values: list[float], labels: list[str]
) -> None:
    assert tick_labels(values) == labels


def test_long_labels_of_ticks_are_not_cut() -> None:
    figure = ElementTree.fromstring(chart("cost", [Line("a", [(1, 86781.0), (2, 86789.0)], 0)]))
    label = next(text for text in figure.iter("text") if text.get("class") == "y")
    assert label.text and float(label.attrib["x"]) >= 6.5 * len(label.text)


def test_labels_below_a_narrow_range_differ() -> None:
    points = [(1_234_000.0, 1.0), (1_234_900.0, 2.0)]
    figure = ElementTree.fromstring(chart("accuracy", [Line("a", points, 0)], x_label="parameters"))
    labels = [text.text for text in figure.iter("text") if text.get("class") == "x"]
    assert labels == ["1.2340 M", "1.2342 M", "1.2344 M", "1.2346 M", "1.2348 M"]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.60712, "0.6071"), (224442, "224.4 k"), (1844864, "1.845 M"), (3e9, "3 G")],
)
def test_numbers_are_short(value: float, text: str) -> None:
    assert short(value) == text


def test_a_line_goes_from_corner_to_corner_of_the_plot() -> None:
    figure = ElementTree.fromstring(chart("loss", [Line("a", [(1, 0.0), (11, 10.0)], 0)]))
    path = next(g for g in figure.iter("g") if g.get("class") == "s0").find("path")
    assert path is not None
    numbers = [float(n) for n in re.findall(r"[\d.]+", path.attrib["d"])]
    left, bottom, right, top = numbers
    assert (left, right) == (LARGE.left, LARGE.width - 12)
    assert (top, bottom) == (8, LARGE.height - 22)


def test_one_point_constant_lines_and_long_lines_are_drawn() -> None:
    assert "dots" in chart("one", [Line("a", [(1, 3.0)], 0)])
    assert "<path" in chart("flat", [Line("a", [(1, 0.0), (2, 0.0)], 0)])
    long = chart("long", [Line("a", [(x, float(x)) for x in range(10_000)], 0)])
    assert len(long) < 20_000


def test_names_in_charts_are_escaped() -> None:
    drawing = chart("<script>t", [Line("<script>l", [(1, 1.0), (2, 2.0)], 0)])
    assert "<script" not in drawing
    ElementTree.fromstring(drawing)
