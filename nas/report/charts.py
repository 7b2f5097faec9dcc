"""Curves as SVG, in the colours of the page, light or dark; hovering over a line names it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from nas.report.markup import Markup, tag

NUM_COLORS = 8
"""Classes `s0` to `s7` of the style sheet; lines after them are dashed in the same colours."""
_MAX_POINTS = 300  # of a line: more would not be seen


@dataclass(frozen=True)
class Size:
    """Of a chart in units of its view box, and how many ticks each axis has about."""

    width: float
    height: float
    left: float
    ticks_x: int
    ticks_y: int


LARGE = Size(480, 250, 46, 6, 5)
SMALL = Size(240, 140, 34, 4, 4)
_TOP, _RIGHT, _BOTTOM = 8.0, 12.0, 22.0
_PER_CHAR = 6.6  # width of a digit beside the y axis


@dataclass(frozen=True)
class Line:
    """A line of a chart.

    Attributes:
        label: Its name.
        points: (x, y), in ascending order of x.
        series: Number of its colour.
        weight: `bold` stands out, `faint` is one of many.
        dots: A dot on each point.
    """

    label: str
    points: Sequence[tuple[float, float]]
    series: int
    weight: str = ""
    dots: bool = False


def chart(
    title: str,
    lines: Sequence[Line],
    *,
    size: Size = LARGE,
    y_range: tuple[float, float] | None = None,
    legend: bool = True,
    x_label: str = "epoch",
) -> Markup:
    """A figure with its title, a drawing and, with `legend`, the names and last values.

    Args:
        title: Says what the y axis shows, and in what unit.
        lines: At least one with a point.
        size: `LARGE` or `SMALL`.
        y_range: Of the y axis; that of the points if None.
        legend: Whether the lines are named.
        x_label: What the x axis shows.
    """
    drawn = [line for line in lines if line.points]
    xs = [x for line in drawn for x, _ in line.points]
    ys = [y for line in drawn for _, y in line.points]
    x_ticks = ticks(min(xs), max(xs), size.ticks_x, whole=x_label == "epoch")
    y_ticks = ticks(*(y_range or (min(ys), max(ys))), size.ticks_y)
    x_texts, y_texts = tick_labels(x_ticks), tick_labels(y_ticks)
    room = _PER_CHAR * max(map(len, y_texts)) + 6
    placed = replace(size, left=max(size.left, room))
    plot = _Plot(placed, (min(xs), max(xs)), (y_ticks[0], y_ticks[-1]))
    shown = "; ".join(f"{line.label}: {short(line.points[-1][1])} at the end" for line in drawn)
    drawing = tag(
        "svg",
        tag("title", f"{title}. {shown}"),
        *(plot.y_tick(y, text) for y, text in zip(y_ticks, y_texts, strict=True)),
        *(
            plot.x_tick(x, text)
            for x, text in zip(x_ticks, x_texts, strict=True)
            if min(xs) <= x <= max(xs)
        ),
        *(plot.line(line) for line in sorted(drawn, key=lambda line: line.weight == "bold")),
        viewBox=f"0 0 {size.width:g} {size.height:g}",
        role="img",
        class_="small" if size is SMALL else None,
    )
    names = [key(line.label, line.series, short(line.points[-1][1])) for line in drawn]
    content = [tag("figcaption", title), drawing]
    if legend:
        content.append(tag("ul", *names, class_="legend"))
    return tag("figure", *content)


def key(label: str, series: int, value: str = "") -> Markup:
    """An entry of a legend: a stroke in the colour of the line, its name, its last value."""
    stroke = tag(
        "svg",
        tag("path", d="M0 5H18", class_=_classes(series)),
        viewBox="0 0 18 10",
        class_="key",
        aria_hidden="true",
    )
    return tag("li", stroke, label, *([tag("b", value)] if value else []))


def ticks(low: float, high: float, count: int, whole: bool = False) -> list[float]:
    """About `count` round numbers in steps of 1, 2 or 5, from below `low` to above `high`."""
    if high - low < 1e-12 * max(1.0, abs(low)):
        low, high = low - 0.5 * (abs(low) or 1.0), high + 0.5 * (abs(high) or 1.0)
    rough = (high - low) / count
    magnitude = 10.0 ** math.floor(math.log10(rough))
    step = next(m * magnitude for m in (1, 2, 5, 10) if m * magnitude >= rough * 0.999)
    if whole:
        step = max(1.0, step)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [index * step for index in range(first, last + 1)]


def tick_labels(values: Sequence[float]) -> list[str]:
    """Ticks as texts, with as many digits as tell one from the next."""
    step = (values[-1] - values[0]) / (len(values) - 1)
    largest = max(map(abs, values))
    place = math.floor(math.log10(step) + 1e-3)  # of the digit that differs: -2 is hundredths
    scale, suffix = _scale_of(largest)
    if suffix:
        decimals = max(0, round(math.log10(scale)) - place)
        return [f"{value / scale:.{decimals}f} {suffix}" if value else "0" for value in values]
    if place >= -4:
        return [f"{value:.{max(0, -place)}f}" if value else "0" for value in values]
    digits = math.floor(math.log10(largest) + 1e-9) - place + 1
    return [f"{value:.{digits}g}" for value in values]


def short(value: float) -> str:
    """A number for a label: four digits, large ones with k, M or G."""
    scale, suffix = _scale_of(abs(value))
    return f"{value / scale:.4g} {suffix}".rstrip()


def _scale_of(size: float) -> tuple[float, str]:
    """What a number of that size is divided by, and the letter that says so."""
    scales = ((1e9, 1e9, "G"), (1e6, 1e6, "M"), (1e4, 1e3, "k"))
    return next(((scale, suffix) for limit, scale, suffix in scales if size >= limit), (1.0, ""))


class _Plot:
    """The area between the axes: from values to places."""

    def __init__(
        self, size: Size, x_range: tuple[float, float], y_range: tuple[float, float]
    ) -> None:
        self._size, self._x_range, self._y_range = size, x_range, y_range
        self._right, self._bottom = size.width - _RIGHT, size.height - _BOTTOM

    def _x(self, value: float) -> float:
        low, high = self._x_range
        share = (value - low) / (high - low) if high > low else 0.5
        return self._size.left + share * (self._right - self._size.left)

    def _y(self, value: float) -> float:
        low, high = self._y_range
        return self._bottom - (value - low) / (high - low) * (self._bottom - _TOP)

    def y_tick(self, value: float, label: str) -> Markup:
        y = self._y(value)
        line = tag("path", d=f"M{self._size.left:g} {y:.1f}H{self._right:g}", class_="grid")
        text = tag("text", label, x=self._size.left - 5, y=f"{y + 3.5:.1f}", class_="y")
        return tag("g", line, text)

    def x_tick(self, value: float, label: str) -> Markup:
        return tag("text", label, x=f"{self._x(value):.1f}", y=self._bottom + 15, class_="x")

    def line(self, line: Line) -> Markup:
        points = _thinned(line.points)
        places = [f"{self._x(x):.1f} {self._y(y):.1f}" for x, y in points]
        classes = " ".join(filter(None, [_classes(line.series), line.weight]))
        marks = []
        if line.dots or len(points) == 1:
            # A stroke of no length with round ends is a dot.
            marks = [tag("path", d="".join(f"M{p}h0" for p in places), class_="dots")]
        path = tag("path", d=f"M{'L'.join(places)}")
        return tag("g", tag("title", line.label), path, *marks, class_=classes)


def _classes(series: int) -> str:
    dashes = " dashed" if series % (2 * NUM_COLORS) >= NUM_COLORS else ""
    return f"s{series % NUM_COLORS}{dashes}"


def _thinned(points: Sequence[tuple[float, float]]) -> Sequence[tuple[float, float]]:
    """At most `_MAX_POINTS` of `points` and the last."""
    every = -(-len(points) // _MAX_POINTS)
    kept = list(points[::every])
    return kept if kept[-1] == points[-1] else [*kept, points[-1]]
