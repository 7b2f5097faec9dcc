"""A run at a glance: curves over the epochs, and the probabilities of each choice."""

import math
from collections.abc import Mapping, Sequence
from itertools import zip_longest

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

Curves = Mapping[str, np.ndarray]
_COLUMNS = 3
_MAX_CHOICES = 12
_WIDTH, _ROW = 9.0, 2.1
_COLORS = colormaps["tab10"].colors  # type: ignore[attr-defined]
_GREY = "#8a939b"


def draw_overview(
    epochs: np.ndarray,
    curves: Sequence[tuple[str, Curves]],
    probabilities: Mapping[str, Curves],
    chosen: Mapping[str, str],
) -> Figure:
    """Draws panels of curves, and below a panel for each choice.

    Args:
        epochs: Epochs done, `[E]`.
        curves: Title and curves `[E]` by name of each panel; NaN leaves a gap.
        probabilities: Of each choice, by option, `[E]`. At most 12 choices are drawn, those that
            are least uniform in the end.
        chosen: The option of each choice that was derived, which stands out.
    """
    shown = sorted(probabilities, key=lambda name: _entropy(probabilities[name]))[:_MAX_CHOICES]
    shown = [name for name in probabilities if name in shown]
    rows = math.ceil(len(curves) / 2) + math.ceil(len(shown) / _COLUMNS)
    figure = Figure(figsize=(_WIDTH, _ROW * rows + 0.4), layout="constrained")
    grid = figure.add_gridspec(rows, 2 * _COLUMNS)
    for index, (title, lines) in enumerate(curves):
        axes = figure.add_subplot(grid[index // 2, 3 * (index % 2) : 3 * (index % 2) + 3])
        for (name, values), color in zip_longest(lines.items(), _COLORS[: len(lines)]):
            known = np.isfinite(values)
            _line(axes, epochs[known], values[known], color, name, 1.6)
        _finish(axes, title)
        if len(lines) > 1:
            axes.legend(fontsize=8, frameon=False)
    options = list(dict.fromkeys(option for name in shown for option in probabilities[name]))
    top = math.ceil(len(curves) / 2)
    for index, name in enumerate(shown):
        column = 2 * (index % _COLUMNS)
        axes = figure.add_subplot(grid[top + index // _COLUMNS, column : column + 2])
        for option, values in probabilities[name].items():
            color = _COLORS[options.index(option) % len(_COLORS)]
            width = 2.4 if option == chosen.get(name) else 1.1
            _line(axes, epochs, values, color, option, width)
        axes.set_ylim(bottom=0)
        _finish(axes, f"{name}: {chosen[name]}" if name in chosen else name)
    if shown:
        colors = [_COLORS[index % len(_COLORS)] for index in range(len(options))]
        handles = [Line2D([], [], color=color) for color in colors]
        figure.legend(
            handles, options, loc="outside lower center", ncols=5, fontsize=8, frameon=False
        )
    return figure


def _line(
    axes: Axes, x: np.ndarray, y: np.ndarray, color: object, label: str, width: float
) -> None:
    marker = "o" if len(x) == 1 else None
    axes.plot(x, y, color=color, label=label, linewidth=width, marker=marker)


def _finish(axes: Axes, title: str) -> None:
    axes.set_title(title, fontsize=9, loc="left")
    axes.tick_params(labelsize=8, color=_GREY)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def _entropy(curves: Curves) -> float:
    last = np.array([values[-1] for values in curves.values()])
    return float(-(last * np.log(np.maximum(last, 1e-12))).sum() / max(math.log(len(last)), 1e-12))
