"""Probabilities over time: a small panel for each choice, as a heat map or as curves."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from nas.monitor.history import History
from nas.monitor.operations import short_label
from nas.monitor.theme import Theme, theme_of

_DPI = 100
_INCHES_A_CHAR = 0.078
_ROW = 0.17  # of a heat map, a row an option
_GAP, _TITLE, _AXIS, _HEAD = 0.22, 0.24, 0.24, 0.42
_PLOT_WIDTH, _CURVES_HEIGHT = 2.3, 1.15
_MAX_MOMENTS = 200
_LEGEND_KEY = 0.34
_COUNTER = 2.0  # room for the number of the epoch beside the title

Draw = Callable[[Axes, str], None]


@dataclass(frozen=True)
class _Grid:
    """Where the panels go, in inches: `left` is room for what stands beside a panel."""

    places: Sequence[tuple[int, int]]
    left: float
    plot_height: float

    @property
    def panel_width(self) -> float:
        return self.left + _PLOT_WIDTH + _GAP

    @property
    def panel_height(self) -> float:
        return _TITLE + self.plot_height + _AXIS

    def size(self, head: float) -> tuple[float, float]:
        """Width and height of all panels below a head of that height."""
        rows, columns = (1 + max(place[i] for place in self.places) for i in (0, 1))
        return columns * self.panel_width + 0.1, head + rows * self.panel_height + 0.05


def draw_heat_maps(
    history: History, chosen: Mapping[str, str] | None = None, *, dark: bool = False
) -> Figure:
    """Draws a panel for each choice: a row for each option, epochs from left to right.

    The colour says how probable an option is in relation to one among equals, so that what a search
    prefers can be seen long before it is decided.

    Args:
        history: Of a search.
        chosen: Option by choice; its row is bold.
        dark: Light letters on a dark ground.

    Raises:
        ValueError: the history is empty.
    """
    theme = theme_of(dark)
    shown = history.thinned(_MAX_MOMENTS)
    most = max(map(len, _choices_of(shown).values()))
    grid = _grid(list(shown.choices), _left_of(shown), _ROW * most)
    limit = _largest_factor(shown)

    def draw(axes: Axes, choice: str) -> None:
        options = shown.choices[choice]
        relations = [[_relation(p, len(options)) for p in row] for row in options.values()]
        axes.pcolormesh(
            _borders(shown.epochs),
            [row - 0.5 for row in range(len(options) + 1)],
            relations,
            cmap=theme.diverging_map,
            vmin=-math.log(limit),
            vmax=math.log(limit),
        )
        axes.set_ylim(most - 0.5, -0.5)
        _label_rows(axes, list(options), (chosen or {}).get(choice), theme)
        axes.spines[:].set_visible(False)
        _frame(axes, len(options) / most, theme)
        _count_epochs(axes, shown)

    title = f"Probability of each option by epoch, against an equal one.{_bold(chosen)}"
    return _panels(shown, grid, draw, theme, title, limit=limit)


def draw_curves(
    history: History,
    chosen: Mapping[str, str] | None = None,
    *,
    dark: bool = False,
) -> Figure:
    """Draws a panel for each choice: a curve for each option, all with one scale.

    Args:
        history: Of a search.
        chosen: Option by choice; its curve is bold.
        dark: Light letters on a dark ground.

    Raises:
        ValueError: the history is empty.
    """
    theme = theme_of(dark)
    shown = history.thinned(_MAX_MOMENTS)
    top = highest(shown)
    colors = series_of(shown, theme)
    dashed = {o: i >= len(theme.series) for i, o in enumerate(shown.options)}
    first, last = shown.epochs[0], shown.epochs[-1]
    grid = _grid(list(_choices_of(shown)), 0.42, _CURVES_HEIGHT)

    def draw(axes: Axes, choice: str) -> None:
        for option, values in shown.choices[choice].items():
            is_chosen = (chosen or {}).get(choice) == option
            axes.plot(
                shown.epochs,
                values,
                color=colors[option],
                linestyle="dashed" if dashed[option] else "solid",
                linewidth=2.4 if is_chosen else 1.2,
                zorder=3 if is_chosen else 2,
                marker="." if len(shown.epochs) == 1 else None,
                clip_on=False,
            )
        axes.set(xlim=(first, max(last, first + 1)), ylim=(0, top))
        axes.set_yticks(_ticks(0.0, top, 3))
        axes.tick_params(axis="y", labelsize=8, labelcolor=theme.dim)
        axes.grid(axis="y", color=theme.node, linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.spines["bottom"].set_color(theme.bus)
        _count_epochs(axes, shown)

    title = f"Probability of each option by epoch.{_bold(chosen)}"
    keys = [(option, colors[option], dashed[option]) for option in shown.options]
    return _panels(shown, grid, draw, theme, title, keys=keys)


def draw_empty_bars(history: History, chosen: Mapping[str, str] | None, theme: Theme) -> Figure:
    """Draws what does not move in `nas.monitor.animation`: panels with rows, but without bars.

    Raises:
        ValueError: the history is empty.
    """
    most = max(map(len, _choices_of(history).values()))
    grid = _grid(list(history.choices), _left_of(history), _ROW * most)
    top = highest(history)

    def draw(axes: Axes, choice: str) -> None:
        axes.set(xlim=(0, top), ylim=(most - 0.5, -0.5))
        axes.set_xticks(_ticks(0.0, top, 4))
        _label_rows(axes, list(history.choices[choice]), (chosen or {}).get(choice), theme)
        axes.spines[["top", "right", "bottom"]].set_visible(False)
        axes.spines["left"].set_color(theme.bus)

    title = f"Probability of each option.{_bold(chosen)}"
    return _panels(history, grid, draw, theme, title, reserved=_COUNTER)


def series_of(history: History, theme: Theme) -> dict[str, str]:
    """The colour of each option."""
    return {o: theme.series[i % len(theme.series)] for i, o in enumerate(history.options)}


def highest(history: History) -> float:
    """Upper end of an axis that shows all of `history`."""
    values = [
        v for options in _choices_of(history).values() for row in options.values() for v in row
    ]
    largest = max((value for value in values if not math.isnan(value)), default=1.0)
    return min(1.0, 1.08 * largest)


def _choices_of(history: History) -> Mapping[str, Mapping[str, Sequence[float]]]:
    if not history.epochs or not history.choices:
        raise ValueError("the history is empty")
    return history.choices


def _largest_factor(history: History) -> float:
    """How many times as probable as one among equals the most probable option is, at least 1.25."""
    factors = [
        len(options) * probability
        for options in history.choices.values()
        for row in options.values()
        for probability in row
        if not math.isnan(probability)
    ]
    return max([1.25, *factors])


def _relation(probability: float, num_options: int) -> float:
    """Logarithm of how many times as probable as one among equals."""
    return math.log(max(num_options * probability, 1e-6))


def _grid(choices: Sequence[str], left: float, plot_height: float) -> _Grid:
    """As many columns as make the whole about as wide as high, up to 6; a cell begins a row."""
    aspect = (_TITLE + plot_height + _AXIS) / (left + _PLOT_WIDTH + _GAP)
    wished = min(6, max(1, math.ceil(1.25 * math.sqrt(len(choices) * aspect))))
    groups = [choice.rpartition("/")[0] for choice in choices]
    largest = max(map(groups.count, groups))
    columns = min(wished, largest) if largest > 1 else min(wished, len(choices))
    columns = -(-largest // -(-largest // columns)) if largest > 1 else columns
    places: list[tuple[int, int]] = []
    row = column = 0
    for before, group in zip(["", *groups], groups, strict=False):
        if places and (column == columns or (largest > 1 and group != before)):
            row, column = row + 1, 0
        places.append((row, column))
        column += 1
    return _Grid(places, left, plot_height)


def _panels(
    history: History,
    grid: _Grid,
    draw: Draw,
    theme: Theme,
    title: str,
    *,
    limit: float | None = None,
    reserved: float = 0.0,
    keys: Sequence[tuple[str, str, bool]] = (),
) -> Figure:
    width = grid.size(0.0)[0]
    lines = _lines_of_keys(keys, width)
    head = _HEAD + 0.2 * len(lines) + (0.2 if limit else 0.0)
    width, height = grid.size(head)
    width = max(width, 0.2 + _INCHES_A_CHAR * 1.12 * len(title) + reserved)
    figure = Figure(figsize=(width, height), dpi=_DPI, facecolor=theme.background)
    place = (0.12 / width, 1 - 0.1 / height)
    figure.text(*place, title, fontsize=10, fontweight="bold", color=theme.text, va="top")
    _draw_keys(figure, lines, theme)
    if limit:
        _draw_bar(figure, theme, limit)
    for (row, column), choice in zip(grid.places, history.choices, strict=True):
        x = column * grid.panel_width + grid.left
        y = height - head - row * grid.panel_height - _TITLE - grid.plot_height
        box = (x / width, y / height, _PLOT_WIDTH / width, grid.plot_height / height)
        axes = figure.add_axes(box, facecolor=theme.background, label=choice)
        axes.set_title(choice, fontsize=9, color=theme.text, pad=3, loc="left")
        draw(axes, choice)
        axes.tick_params(axis="x", labelsize=8, labelcolor=theme.dim, color=theme.bus, length=2.5)
        axes.tick_params(axis="y", length=0)
    return figure


def _lines_of_keys(
    keys: Sequence[tuple[str, str, bool]], width: float
) -> list[list[tuple[float, str, str, bool]]]:
    """The legend in lines of at most `width`: (x, option, colour, dashed) of each key."""
    lines: list[list[tuple[float, str, str, bool]]] = []
    x = math.inf
    for option, color, dashed in keys:
        needed = _LEGEND_KEY + _INCHES_A_CHAR * len(option) + 0.22
        if x + needed > width:
            lines.append([])
            x = 0.12
        lines[-1].append((x, option, color, dashed))
        x += needed
    return lines


def _draw_keys(
    figure: Figure, lines: Sequence[Sequence[tuple[float, str, str, bool]]], theme: Theme
) -> None:
    width, height = figure.get_size_inches()
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set(xlim=(0, width), ylim=(0, height))
    axes.axis("off")
    for number, line in enumerate(lines):
        y = height - _HEAD - 0.2 * number
        for x, option, color, dashed in line:
            style = "dashed" if dashed else "solid"
            axes.plot([x, x + 0.26], [y, y], color=color, linewidth=2.2, linestyle=style)
            axes.text(x + _LEGEND_KEY, y, option, fontsize=8.5, color=theme.text, va="center")


def _draw_bar(figure: Figure, theme: Theme, limit: float) -> None:
    """What the colours of a heat map mean."""
    width, height = figure.get_size_inches()
    y = height - _HEAD - 0.03
    ends = (f"{limit:.3g} times less", f"{limit:.3g} times more")
    x = 0.12 + _INCHES_A_CHAR * len(ends[0])
    axes = figure.add_axes((x / width, (y - 0.07) / height, 1.4 / width, 0.13 / height))
    axes.imshow([[i / 99 for i in range(100)]], aspect="auto", cmap=theme.diverging_map)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_color(theme.bus)
    for place, text in zip((0.12, x + 1.46), ends, strict=True):
        figure.text(place / width, y / height, text, fontsize=8.5, color=theme.dim, va="center")


def _left_of(history: History) -> float:
    """Room for the names of options beside a panel, in inches."""
    return _INCHES_A_CHAR * max(len(_row_label(option)) for option in history.options) + 0.12


def _label_rows(axes: Axes, options: Sequence[str], chosen: str | None, theme: Theme) -> None:
    axes.set_yticks(range(len(options)), [_row_label(o) for o in options], fontsize=8.5)
    for label, option in zip(axes.get_yticklabels(), options, strict=True):
        label.set(
            color=theme.text if option == chosen else theme.dim,
            fontweight="bold" if option == chosen else "normal",
        )


def _count_epochs(axes: Axes, history: History) -> None:
    first, last = history.epochs[0], history.epochs[-1]
    axes.set_xticks(_ticks(first, last, 5, whole=True))


def _ticks(low: float, high: float, count: int, *, whole: bool = False) -> list[float]:
    """About `count` round numbers between `low` and `high`."""
    values = MaxNLocator(count, integer=whole).tick_values(low, high)
    return [float(value) for value in values if low <= value <= high]


def _frame(axes: Axes, height: float, theme: Theme) -> None:
    """Around the upper share of a panel: what is undecided is as light as the page."""
    style: dict[str, Any] = {"edgecolor": theme.bus, "linewidth": 0.6, "clip_on": False}
    place = (0.0, 1.0 - height)
    axes.add_patch(Rectangle(place, 1.0, height, fill=False, transform=axes.transAxes, **style))


def _bold(chosen: Mapping[str, str] | None) -> str:
    return " Bold: what was chosen." if chosen else ""


def _borders(epochs: Sequence[int]) -> list[float]:
    """Of the columns of a heat map: each moment reaches back to the one before."""
    step = epochs[1] - epochs[0] if len(epochs) > 1 else 1
    return [epochs[0] - step, *map(float, epochs)]


def _row_label(option: str) -> str:
    return short_label(option).replace("\n", " ")
