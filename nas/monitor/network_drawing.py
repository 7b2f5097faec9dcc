"""A picture of a whole network: its parts from left to right, as high as their images are large."""

import math
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from matplotlib.path import Path as Curve

from nas.monitor.drawing import figure_of, text_width
from nas.monitor.theme import Theme, mix, theme_of
from nas.outline import Part

_FONT_PT, _SMALL_PT = 10.0, 8.5
_MIN_HEIGHT, _MAX_HEIGHT = 5.2, 8.6  # of a box, in em
_PADDING, _GAP, _SHADOW, _ROW_GAP = 0.75, 1.5, 0.28, 1.5
_MARGIN, _HEAD = 0.8, 2.6
_PER_ROW = 8
_TIMES = "\N{MULTIPLICATION SIGN}"
_KINDS = {"cell": "conv", "reduction": "dilated", "fixed": "skip"}
"""Whose colour a part has."""


def draw_network(parts: Sequence[Part], title: str, *, dark: bool = False) -> Figure:
    """Draws the parts in rows of at most eight, equal ones in a row as a pile.

    Args:
        parts: At least one; see `nas.outline`.
        title: Above them.
        dark: Light letters on a dark ground.

    Raises:
        ValueError: there is no part.
    """
    if not parts:
        raise ValueError("a network without parts")
    theme = theme_of(dark)
    rows = _rows(parts)
    widths = [[_box_width(part) for part in row] for row in rows]
    total = max(sum(row) + (_GAP + 2 * _SHADOW) * (len(row) - 1) for row in widths)
    left = _MARGIN if len(rows) == 1 else 2 * _MARGIN + 0.3  # an arrow comes around the row before
    width = max(total, 1.2 * text_width(title)) + left + _MARGIN + 2 * _SHADOW
    pitch = _MAX_HEIGHT + _ROW_GAP
    height = _HEAD + len(rows) * pitch - _ROW_GAP + _MARGIN + 2 * _SHADOW
    figure = figure_of(width, height, theme)
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set(xlim=(0, width), ylim=(0, height))
    axes.axis("off")
    head: dict[str, Any] = {"fontweight": "bold", "va": "top", "gid": "title"}
    axes.text(_MARGIN, height - 0.6, title, fontsize=_FONT_PT, color=theme.text, **head)
    largest = max(part.size for part in parts if part.unit != "tokens") or 1
    last: tuple[float, float] | None = None
    for number, (row, row_widths) in enumerate(zip(rows, widths, strict=True)):
        y = height - _HEAD - number * pitch - _MAX_HEIGHT / 2
        x = left
        for part, box_width in zip(row, row_widths, strict=True):
            if last is not None:
                _draw_arrow(axes, last, (x, y), theme)
            _draw_part(axes, part, (x, y), box_width, _box_height(part, largest), theme)
            last = (x + box_width + _shadow(part), y)
            x += box_width + _GAP + 2 * _SHADOW
    return figure


def title_of(parts: Sequence[Part], space: str, in_channels: int, image_size: int) -> str:
    """What stands above the picture: the space, all weights, and for which images."""
    weights = _count(sum(part.num_parameters for part in parts))
    images = f" {_TIMES} ".join(map(str, (in_channels, image_size, image_size)))
    return f"network  ·  {space}  ·  {weights} weights  ·  images of {images}"


def _rows(parts: Sequence[Part]) -> list[Sequence[Part]]:
    """Rows of about the same length."""
    num_rows = -(-len(parts) // _PER_ROW)
    size = -(-len(parts) // num_rows)
    return [parts[start : start + size] for start in range(0, len(parts), size)]


def _lines(part: Part) -> list[str]:
    """What the box of a part says, below its name."""
    if part.unit == "pixels":
        shape = f" {_TIMES} ".join(map(str, (part.channels, part.size, part.size)))
    elif part.unit == "tokens":
        shape = f"{part.size} tokens of {part.channels}"
    else:
        shape = f"{part.channels} classes" if part.name == "classifier" else f"{part.channels}"
    return [shape, f"{_count(part.num_parameters)} weights"]


def _name_of(part: Part) -> str:
    return part.name if part.count == 1 else f"{part.count} {_TIMES} {part.name}"


def _count(number: int) -> str:
    for limit, suffix in ((1_000_000, "M"), (1_000, "k")):
        if number >= limit:
            return f"{number / limit:.3g} {suffix}"
    return str(number)


def _box_width(part: Part) -> float:
    small = _SMALL_PT / _FONT_PT
    texts = [1.15 * text_width(_name_of(part)), *(small * text_width(t) for t in _lines(part))]
    return max(texts) + 2 * _PADDING


def _box_height(part: Part, largest: int) -> float:
    """On a logarithmic scale: full height for the largest images."""
    share = math.log2(part.size + 1) / math.log2(largest + 1) if part.unit == "pixels" else 0.0
    return _MIN_HEIGHT + (_MAX_HEIGHT - _MIN_HEIGHT) * min(1.0, share)


def _shadow(part: Part) -> float:
    return 2 * _SHADOW if part.count > 1 else 0.0


def _draw_part(
    axes: Axes,
    part: Part,
    left: tuple[float, float],
    width: float,
    height: float,
    theme: Theme,
) -> None:
    family = _KINDS[part.kind]
    edge = theme.line(family) if part.kind != "fixed" else mix(theme.text, theme.background, 0.55)
    ground = theme.ground(family) if part.kind != "fixed" else theme.node
    x, y = left
    for depth in range(2 if part.count > 1 else 0, -1, -1):
        place = (x + depth * _SHADOW, y - height / 2 - depth * _SHADOW)
        axes.add_patch(
            FancyBboxPatch(
                place,
                width,
                height,
                boxstyle="round,pad=0,rounding_size=0.4",
                facecolor=ground,
                edgecolor=edge,
                linewidth=1.1,
                zorder=3 - 0.1 * depth,
            )
        )
    style: dict[str, Any] = {"ha": "center", "va": "center", "zorder": 4}
    center = x + width / 2
    axes.text(
        center,
        y + 1.25,
        _name_of(part),
        fontsize=_FONT_PT,
        fontweight="bold",
        color=theme.text,
        **style,
    )
    for number, line in enumerate(_lines(part)):
        axes.text(
            center, y - 0.2 - 1.3 * number, line, fontsize=_SMALL_PT, color=theme.text, **style
        )


def _draw_arrow(
    axes: Axes, start: tuple[float, float], end: tuple[float, float], theme: Theme
) -> None:
    """A straight one within a row; else around the end of the row and below it."""
    if start[1] == end[1]:
        points = [start, end]
    else:
        turn, below = start[0] + 0.5, end[1] + _MAX_HEIGHT / 2 + _ROW_GAP / 2 - _SHADOW
        before = end[0] - 1.3
        points = [start, (turn, start[1]), (turn, below), (before, below), (before, end[1]), end]
    axes.add_patch(
        FancyArrowPatch(
            path=Curve(points),
            arrowstyle="-|>,head_length=5,head_width=2.6",
            mutation_scale=1,
            linewidth=1.3,
            color=theme.bus,
            fill=True,
            joinstyle="miter",
            zorder=1,
        )
    )
