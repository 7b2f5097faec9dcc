"""Pictures within a page, each in its address, one for light and one for dark."""

import base64
import io
from collections.abc import Mapping

from matplotlib.figure import Figure

from nas.deploy.description import ModelDescription
from nas.genotype import Genotype
from nas.monitor.drawing import draw_cell, draw_list, split_choices, write_figure
from nas.monitor.history import History
from nas.monitor.network_drawing import draw_network, title_of
from nas.monitor.panels import draw_heat_maps
from nas.outline import outline
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


def network_picture(genotype: Genotype, description: ModelDescription) -> Markup:
    """The trained network as the sequence of its parts."""
    images = description.preprocessing
    parts = outline(
        genotype,
        description.sizes,
        in_channels=images.in_channels,
        num_classes=description.num_classes,
        image_size=images.image_size,
    )
    title = title_of(parts, genotype.space, images.in_channels, images.image_size)
    told = ", ".join(f"{part.count} {part.name}" for part in parts)
    light, dark = (draw_network(parts, title, dark=is_dark) for is_dark in (False, True))
    return _picture(f"{title}: {told}", light, dark)


def history_picture(history: History, chosen: Mapping[str, str]) -> Markup:
    """The probabilities over time as a heat map, in relation to equal ones."""
    light, dark = (draw_heat_maps(history, chosen, dark=is_dark) for is_dark in (False, True))
    told = "Heat map of the probabilities by epoch; the table of choices has the last values."
    # A PNG: as an SVG each of thousands of fields would be a shape.
    return _picture(told, light, dark, kind="png")


def _picture(text: str, light: Figure, dark: Figure, kind: str = "svg") -> Markup:
    source = tag("source", srcset=_address(dark, kind), media="(prefers-color-scheme: dark)")
    return tag(
        "div",
        tag("picture", source, tag("img", src=_address(light, kind), alt=text)),
        class_="cell",
    )


def _address(figure: Figure, kind: str) -> str:
    """The figure as a data URI. Letters of an SVG are drawn as paths, so they need no font."""
    file = io.BytesIO()
    write_figure(figure, file, kind)
    mime = {"svg": "image/svg+xml", "png": "image/png"}[kind]
    return f"data:{mime};base64,{base64.b64encode(file.getvalue()).decode()}"
