"""The probabilities of all choices as one picture."""

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from nas.monitor.operations import short_label
from nas.monitor.theme import LIGHT, readable_on

_DPI = 100
_CELL_WIDTH, _CELL_HEIGHT = 0.74, 0.3  # inches
_TOP, _MARGIN = 0.95, 0.12
_INCHES_A_CHAR = 0.088


def draw_probabilities(
    names: Sequence[str], options: Sequence[str], probabilities: Tensor
) -> Figure:
    """Draws the probabilities as a heat map with the values, in percent, printed in it.

    The largest value of each row is framed. A row whose choice has fewer options than there are
    columns holds NaN in the others, which stay empty.

    Args:
        names: Names of the choices, N.
        options: Names of the options, K.
        probabilities: Rows of probabilities, shape [N, K], on any device.

    Raises:
        ValueError: the shape is not [N, K].
    """
    if probabilities.shape != (len(names), len(options)):
        raise ValueError(
            f"probabilities of shape {tuple(probabilities.shape)} for {len(names)} choices and "
            f"{len(options)} options"
        )
    values = probabilities.detach().cpu().double().tolist()
    figure, axes = _frame(names, len(options))
    axes.imshow(values, cmap=LIGHT.color_map, vmin=0.0, vmax=1.0, aspect="auto")
    axes.set_xticks(range(len(options)), [_column_label(o) for o in options], fontsize=9)
    axes.set_yticks(range(len(names)), names, fontsize=9.5)
    axes.tick_params(length=0, labeltop=True, labelbottom=False)
    axes.spines[:].set_visible(False)
    for row, shares in enumerate(values):
        _print_row(axes, row, shares)
    return figure


def _frame(names: Sequence[str], num_options: int) -> tuple[Figure, Axes]:
    """Returns a figure with room for the labels and its axes, a fixed size a value."""
    left = _INCHES_A_CHAR * max([14, *map(len, names)]) + 2 * _MARGIN
    inner_width, inner_height = _CELL_WIDTH * num_options, _CELL_HEIGHT * len(names)
    width, height = left + inner_width + _MARGIN, _TOP + inner_height + _MARGIN
    figure = Figure(figsize=(width, height), dpi=_DPI, facecolor="white")
    axes = figure.add_axes(
        (left / width, _MARGIN / height, inner_width / width, inner_height / height)
    )
    corner = (_MARGIN / width, 1 - _MARGIN / height)
    figure.text(*corner, "probability, %", fontsize=10, fontweight="bold", va="top")
    return figure, axes


def _print_row(axes: Axes, row: int, shares: Sequence[float]) -> None:
    known = {column: share for column, share in enumerate(shares) if not math.isnan(share)}
    best = max(known, key=lambda column: known[column])
    for column, share in known.items():
        axes.text(
            column,
            row,
            _percent(share),
            ha="center",
            va="center",
            fontsize=9.5,
            fontweight="bold" if column == best else "normal",
            color=readable_on(LIGHT.color_map(share)[:3]),
        )
    corner = (best - 0.47, row - 0.44)
    axes.add_patch(Rectangle(corner, 0.94, 0.88, fill=False, edgecolor="#14508f"))


def _percent(share: float) -> str:
    return f"{100 * share:.0f}" if share >= 0.095 or share < 0.0005 else f"{100 * share:.1f}"


def _column_label(option: str) -> str:
    return short_label(option).replace(" ", "\n")
