"""Genotypes as pictures within a page: SVG in its address, one for light and one for dark."""

import base64
import io

from matplotlib import rc_context
from matplotlib.figure import Figure

from nas.genotype import Genotype
from nas.monitor.drawing import draw_cell, draw_list, split_choices
from nas.report.markup import Markup, join, tag


def genotype_pictures(genotype: Genotype) -> Markup:
    """All cells of a genotype, and its other choices as a list."""
    edges, others = split_choices(genotype)
    parts = [
        _picture(
            f"Cell {cell}: {_told(edges, cell)}",
            draw_cell(edges, cell),
            draw_cell(edges, cell, dark=True),
        )
        for cell in edges.cells()
    ]
    if others.choices:
        told = ", ".join(f"{name}: {option}" for name, option in others.choices.items())
        parts.append(_picture(told, draw_list(others), draw_list(others, dark=True)))
    return join(parts)


def _told(genotype: Genotype, cell: str) -> str:
    """What the picture shows, for those who do not see it."""
    return ", ".join(
        f"{operation} from node {edge.source} to {edge.target}"
        for edge, operation in genotype.edges(cell)
    )


def _picture(text: str, light: Figure, dark: Figure) -> Markup:
    source = tag("source", srcset=_address(dark), media="(prefers-color-scheme: dark)")
    return tag(
        "div", tag("picture", source, tag("img", src=_address(light), alt=text)), class_="cell"
    )


def _address(figure: Figure) -> str:
    """The figure as a data URI. Letters are drawn as paths, so they need no font."""
    file = io.BytesIO()
    # Names within the file are then the same every time, and so is the page.
    with rc_context({"svg.hashsalt": "report", "svg.fonttype": "path"}):
        figure.savefig(file, format="svg", metadata={"Date": None})
    return f"data:image/svg+xml;base64,{base64.b64encode(file.getvalue()).decode()}"
