"""Pictures of genotypes: cells as directed graphs, other choices as a list.

Only matplotlib's object-oriented interface is used, so that drawing needs no display and leaves no
state behind.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import IO, Any

from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.textpath import TextPath

from nas.errors import UserError
from nas.files import replacing
from nas.genotype import Edge, Genotype
from nas.monitor.cell_layout import layout_cell
from nas.monitor.cell_shapes import FONT_PT, LABEL_PADDING, LABEL_PT, draw_layout, draw_title
from nas.monitor.operations import operation_family, short_label
from nas.monitor.theme import FAMILY_COLORS, Theme, theme_of

_DPI = 100  # TensorBoard scales pictures without smoothing: more pixels would read worse
_FILE_DPI = 160
_EM_INCHES = FONT_PT / 72


def split_choices(genotype: Genotype) -> tuple[Genotype, Genotype]:
    """Returns the part of a genotype whose choices are edges of cells, and the rest of it."""
    edges, others = {}, {}
    for name, option in genotype.choices.items():
        try:
            Edge.parse(name)
        except ValueError:
            others[name] = option
        else:
            edges[name] = option
    return replace(genotype, choices=edges), replace(genotype, choices=others)


def draw_cell(genotype: Genotype, cell: str, *, dark: bool = False, remark: str = "") -> Figure:
    """Draws one cell as a graph, inputs on the left and output on the right.

    An edge has the colour of its operation's family and bears its name and, where the genotype
    knows it, its probability, which also makes the line bold or faint. Edges with `none` are
    dashed.

    Args:
        genotype: The architecture.
        cell: Name of the cell ("normal"); `genotype.cells()` lists them.
        dark: Light lines on a dark ground.
        remark: Beside the name of the space, such as the epoch.

    Raises:
        ValueError: the genotype has no such cell.
    """
    edges, _ = split_choices(genotype)
    return _draw_cells(edges, [cell], dark, remark)


def draw_list(genotype: Genotype, *, dark: bool = False, remark: str = "") -> Figure:
    """Draws choices that are no edges of a cell (a macro space) as a list, a line each."""
    theme = theme_of(dark)
    lines = [
        "   ".join([name, " · ".join(filter(None, [option, _share(genotype, name)]))])
        for name, option in genotype.choices.items()
    ]
    title = _title(genotype.space, remark)
    width = max(text_width(text) * 1.2 for text in [title, *lines]) + 3
    height = 1.8 * len(lines) + 3
    figure = figure_of(width, height, theme)
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set(xlim=(0, width), ylim=(0, height))
    axes.axis("off")
    style: dict[str, Any] = {"fontsize": FONT_PT, "color": theme.text, "va": "top"}
    axes.text(0.7, height - 0.5, title, fontweight="bold", gid="title", **style)
    for row, (line, option) in enumerate(zip(lines, genotype.choices.values(), strict=True)):
        y = height - 2.6 - 1.8 * row
        color = FAMILY_COLORS[operation_family(option)]
        axes.plot([0.9, 0.9], [y - 1.2, y], color=color, linewidth=3)
        axes.text(1.5, y, line, gid=f"label-{row}", **style)
    return figure


def save_genotype_picture(genotype: Genotype, path: Path, *, dark: bool = False) -> None:
    """Draws all cells below one another into a file, PNG or SVG by its suffix.

    A genotype without cells is drawn as the list of its choices. The file is replaced in one step:
    nobody sees half a picture.

    Raises:
        UserError: the suffix is neither, or the file cannot be written.
    """
    kind_of(path)
    save_figure(draw_genotype(genotype, dark=dark), path)


def draw_genotype(genotype: Genotype, *, dark: bool = False) -> Figure:
    """Draws all cells below one another, or the list of the choices where there are none."""
    edges, others = split_choices(genotype)
    if edges.choices:
        return _draw_cells(edges, edges.cells(), dark)
    return draw_list(others, dark=dark)


def save_figure(figure: Figure, path: Path) -> None:
    """Writes a figure into a file, PNG or SVG by its suffix, the same bytes every time.

    Letters of an SVG are paths, so that it looks the same without the font. The file is replaced in
    one step.

    Raises:
        UserError: the suffix is neither, or the file cannot be written.
    """
    kind = kind_of(path)
    with replacing(path) as temporary, temporary.open("wb") as file:
        write_figure(figure, file, kind, dpi=_FILE_DPI)


def write_figure(figure: Figure, file: IO[bytes], kind: str, *, dpi: float = _DPI) -> None:
    """Writes a figure as `png` or `svg`, the same bytes every time."""
    metadata = {"Date": None} if kind == "svg" else None
    # Names within an SVG are made with the salt.
    with rc_context({"svg.hashsalt": "one-path-nas", "svg.fonttype": "path"}):
        figure.savefig(file, format=kind, dpi=dpi, metadata=metadata)


def kind_of(path: Path) -> str:
    """`png` or `svg`.

    Raises:
        UserError: the suffix is neither.
    """
    kind = path.suffix.lower().removeprefix(".")
    if kind not in ("png", "svg"):
        raise UserError(f"cannot write the picture {path}: its suffix must be .png or .svg")
    return kind


def _draw_cells(genotype: Genotype, cells: Sequence[str], dark: bool, remark: str = "") -> Figure:
    theme = theme_of(dark)
    labels = {edge: _label(genotype, edge.name) for c in cells for edge, _ in genotype.edges(c)}
    label_size = _label_size(labels.values())
    layouts = {cell: layout_cell(genotype, cell, *label_size) for cell in cells}
    titles = {cell: _title(cell, genotype.space, remark) for cell in cells}
    width = max(
        *(layout.width for layout in layouts.values()),
        *(1.2 * text_width(title) + 1.4 for title in titles.values()),
    )
    height = sum(layout.height for layout in layouts.values())
    figure = figure_of(width, height, theme)
    bottom = height
    for cell, layout in layouts.items():
        bottom -= layout.height
        place = (0.0, bottom / height, layout.width / width, layout.height / height)
        axes = figure.add_axes(place)
        draw_layout(axes, layout, genotype, labels, theme)
        draw_title(axes, layout, titles[cell], theme)
    return figure


def _title(*parts: str) -> str:
    return "  ·  ".join(part for part in parts if part)


def figure_of(width: float, height: float, theme: Theme) -> Figure:
    """Returns an empty figure of a size in em."""
    size = (width * _EM_INCHES, height * _EM_INCHES)
    return Figure(figsize=size, dpi=_DPI, facecolor=theme.background)


def _label(genotype: Genotype, name: str) -> str:
    label, share = short_label(genotype.choices[name]), _share(genotype, name)
    separator = "\n" if "\n" not in label and len(label) > 4 else " · "
    return f"{label}{separator}{share}" if share else label


def _share(genotype: Genotype, name: str) -> str:
    """How probable the option of a choice was; empty where that is not known."""
    confidence = genotype.confidence.get(name)
    return "" if confidence is None else f"{100 * confidence.probability:.0f}%"


def _label_size(labels: Iterable[str]) -> tuple[float, float]:
    """Returns the width and height of the largest label with its frame, in em."""
    widths, heights = [0.0], [0.0]
    for label in labels:
        lines = label.split("\n")
        widths += [text_width(line) * LABEL_PT / FONT_PT for line in lines]
        heights.append(len(lines) * 1.3 * LABEL_PT)
    padding = 2 * LABEL_PADDING
    return max(widths) + padding + 0.2, max(heights) / FONT_PT + padding


@cache
def text_width(text: str) -> float:
    """Returns the width of one line of text, in em."""
    return float(TextPath((0, 0), text, size=FONT_PT).get_extents().width) / FONT_PT
