"""The shapes of a drawn cell: lines, labels and nodes, put on matplotlib's axes."""

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch
from matplotlib.path import Path as Curve

from nas.genotype import Edge, Genotype
from nas.monitor.cell_layout import BOX_HALF_HEIGHT, NODE_RADIUS, CellLayout, Line, Node
from nas.monitor.operations import operation_family
from nas.monitor.theme import Theme

FONT_PT = 10.0
LABEL_PT = 9.5
LABEL_PADDING = 0.33  # between a label's text and its frame, in em
_CURVE_CODES = [Curve.MOVETO, *[Curve.CURVE4] * 3, Curve.LINETO, *[Curve.CURVE4] * 3]
_ARROW = "-|>,head_length=5,head_width=2.6"


def draw_layout(
    axes: Axes,
    layout: CellLayout,
    genotype: Genotype,
    labels: Mapping[Edge, str],
    theme: Theme,
) -> None:
    """Draws a placed cell; `axes` gets its size in em as limits."""
    axes.set_xlim(layout.left, layout.right)
    axes.set_ylim(layout.bottom, layout.top)
    axes.axis("off")
    for polyline in layout.bus:
        _draw_bus(axes, polyline, arrow=polyline is layout.bus[-1], theme=theme)
    for line in layout.lines:
        confidence = genotype.confidence.get(line.edge.name)
        probability = None if confidence is None else confidence.probability
        _draw_line(axes, line, labels[line.edge], probability, theme)
    for index, node in layout.nodes.items():
        _draw_node(axes, node, theme, gid=f"node-{index}")
    if layout.output is not None:
        _draw_node(axes, layout.output, theme, gid="node-output")


def _draw_line(axes: Axes, line: Line, label: str, probability: float | None, theme: Theme) -> None:
    family = operation_family(line.operation)
    is_none = family == "none"
    strength = 0.6 if probability is None else probability
    color = theme.line(family, strength)
    axes.add_patch(
        FancyArrowPatch(
            path=Curve(line.points, _CURVE_CODES),
            arrowstyle=_ARROW,
            mutation_scale=1,
            linewidth=0.8 if is_none else 0.9 + 2.6 * strength,
            linestyle=(0, (4, 3)) if is_none else "solid",
            color=color,
            fill=True,
            joinstyle="miter",
            capstyle="butt",
            zorder=2,
        )
    )
    axes.text(
        *line.label_at,
        label,
        fontsize=LABEL_PT,
        color=theme.letters(family),
        ha="center",
        va="center",
        linespacing=1.1,
        gid=f"label-{line.edge.name}",
        zorder=4,
        bbox={
            "boxstyle": f"round,pad={LABEL_PADDING * FONT_PT / LABEL_PT},rounding_size=0.35",
            "facecolor": theme.ground(family),
            "edgecolor": theme.line(family),
            "linewidth": 0.7,
            "linestyle": "dashed" if is_none else "solid",
        },
    )


def _draw_bus(
    axes: Axes, polyline: Sequence[tuple[float, float]], arrow: bool, theme: Theme
) -> None:
    axes.add_patch(
        FancyArrowPatch(
            path=Curve(list(polyline)),
            arrowstyle=_ARROW if arrow else "-",
            mutation_scale=1,
            linewidth=1.2,
            color=theme.bus,
            fill=arrow,
            zorder=1,
        )
    )


def _draw_node(axes: Axes, node: Node, theme: Theme, gid: str) -> None:
    if node.is_box:
        width, height, rounding = 2 * node.half_width, 2 * BOX_HALF_HEIGHT, 0.5
        axes.add_patch(
            FancyBboxPatch(
                (node.x - node.half_width, node.y - BOX_HALF_HEIGHT),
                width,
                height,
                boxstyle=f"round,pad=0,rounding_size={rounding}",
                facecolor=theme.node,
                edgecolor=theme.text,
                linewidth=1.1,
                zorder=3,
            )
        )
    else:
        axes.add_patch(
            Circle(
                (node.x, node.y),
                NODE_RADIUS,
                facecolor=theme.node,
                edgecolor=theme.text,
                linewidth=1.1,
                zorder=3,
            )
        )
    axes.text(
        node.x,
        node.y,
        node.text,
        fontsize=FONT_PT if not node.text.startswith("$") else 1.2 * FONT_PT,
        color=theme.text,
        ha="center",
        va="center_baseline" if not node.text.startswith("$") else "center",
        gid=gid,
        zorder=4,
    )


def draw_title(axes: Axes, layout: CellLayout, title: str, theme: Theme) -> None:
    """Writes the title above the cell, at the left."""
    axes.text(
        layout.left + 0.7,
        layout.top - 0.5,
        title,
        fontsize=FONT_PT,
        fontweight="bold",
        color=theme.text,
        ha="left",
        va="top",
        gid="title",
    )
