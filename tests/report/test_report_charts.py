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


def test_labels_of_ticks_differ_even_where_values_are_close() -> None:
    for values in ([0.99, 0.995, 1.0], [0, 5, 10], [1e6, 2e6], [0, 0.0001, 0.0002]):
        assert len(set(tick_labels(values))) == len(values)


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
