"""Where the nodes, edges and labels of a drawn cell go: geometry only, in em.

Nodes stand in columns from left to right. Every edge runs on a horizontal lane of its own between
the columns that it joins, and bends only within a narrow strip beside each column; its label sits
on the lane, between two strips. So no line crosses a label and no labels overlap, however dense
the cell is: it is by construction, not by search.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nas.genotype import Edge, Genotype

NODE_RADIUS = 1.15
BOX_HALF_HEIGHT = 1.0
_BEND = 1.55  # width of the strip beside a node in which edges bend
_LABEL_MARGIN = 0.3
_MARGIN = 0.7
_BUS_DISTANCE = 0.6
_TITLE_HEIGHT = 2.4

Point = tuple[float, float]


@dataclass(frozen=True)
class Node:
    """A node: its text and its place; a box if `half_width` is not that of a circle."""

    text: str
    x: float
    y: float
    half_width: float = NODE_RADIUS

    @property
    def is_box(self) -> bool:
        return self.half_width != NODE_RADIUS

    def port(self, angle: float, side: int) -> Point:
        """Returns where an edge meets the node, on its right (`side` 1) or left (-1)."""
        if self.is_box:
            return (
                self.x + side * self.half_width,
                self.y + 0.7 * BOX_HALF_HEIGHT * math.sin(angle),
            )
        return (
            self.x + side * NODE_RADIUS * math.cos(angle),
            self.y + NODE_RADIUS * math.sin(angle),
        )


@dataclass(frozen=True)
class Line:
    """An edge: Bezier points (cubic, straight lane, cubic: 1 + 3 + 1 + 3 points) and its label."""

    edge: Edge
    operation: str
    points: tuple[Point, ...]
    label_at: Point


@dataclass(frozen=True)
class CellLayout:
    """A cell, placed.

    Attributes:
        left, bottom, right, top: What is to be shown, with a margin and room for the title.
        bus: Polylines that join the nodes to the output of a cell that concatenates them; the last
            one ends in the output. Empty in a cell whose last node is the output.
    """

    nodes: Mapping[int, Node]
    output: Node | None
    lines: Sequence[Line]
    bus: Sequence[Sequence[Point]]
    left: float
    bottom: float
    right: float
    top: float

    @property
    def width(self) -> float:
        return self.right - self.left

    @property
    def height(self) -> float:
        return self.top - self.bottom


def layout_cell(
    genotype: Genotype, cell: str, label_width: float, label_height: float
) -> CellLayout:
    """Places the nodes, edges and labels of one cell.

    A cell with one input has its last node as output (NAS-Bench-201); in a cell with several
    inputs an output node concatenates all others (DARTS).

    Args:
        genotype: Where the cell is taken from.
        cell: Name of the cell.
        label_width: Width of the widest label of an edge, in em.
        label_height: Height of the highest label, in em.

    Raises:
        ValueError: the genotype has no edges in `cell`.
    """
    edges = genotype.edges(cell)
    if not edges:
        raise ValueError(f"the genotype has no cell '{cell}', only {genotype.cells()}")
    # Inputs are the first nodes, and every other node has an edge that ends in it.
    num_inputs = min(edge.target for edge, _ in edges)
    num_nodes = max(edge.target for edge, _ in edges) + 1
    # A lane must clear the next lane's label, and the one beside the row of nodes the nodes.
    lane_height = max(label_height + 0.45, NODE_RADIUS + label_height / 2 + 0.2)
    nodes = _place_nodes(num_inputs, num_nodes, label_width, lane_height)
    columns = {index: max(0, index - num_inputs + 1) for index in nodes}
    lanes = _assign_lanes([edge for edge, _ in edges], columns, nodes, lane_height)
    lines = [
        _line(edge, operation, nodes, columns, lanes[edge] * lane_height)
        for edge, operation in edges
    ]
    reach = [lane * lane_height for lane in lanes.values()] + [node.y for node in nodes.values()]
    clearance = max(label_height / 2, NODE_RADIUS)
    bottom, top = min(reach) - clearance, max(reach) + clearance
    output: Node | None = None
    bus: list[list[Point]] = []
    if num_inputs > 1:
        bottom -= _BUS_DISTANCE
        output, bus = _concatenate(nodes, num_inputs, bottom)
    last = output or nodes[num_nodes - 1]
    return CellLayout(
        nodes,
        output,
        lines,
        bus,
        left=-_MARGIN,
        bottom=bottom - _MARGIN,
        right=last.x + last.half_width + _MARGIN,
        top=top + _TITLE_HEIGHT,
    )


def _place_nodes(
    num_inputs: int, num_nodes: int, label_width: float, lane_height: float
) -> dict[int, Node]:
    """Inputs stand above one another in the first column, all others in a row."""
    nodes = {}
    half_width = 2.0 if num_inputs > 1 else 1.9
    for index in range(num_inputs):
        name = "input" if num_inputs == 1 else f"$c_{{k-{num_inputs - index}}}$"
        y = ((num_inputs - 1) / 2 - index) * 2 * lane_height
        nodes[index] = Node(name, half_width, y, half_width)
    for index in range(num_inputs, num_nodes):
        is_output = num_inputs == 1 and index == num_nodes - 1
        half_width = 2.2 if is_output else NODE_RADIUS
        before = nodes[index - 1]
        gap = label_width + 2 * (_BEND + _LABEL_MARGIN)
        x = before.x + before.half_width + gap + half_width
        nodes[index] = Node("output" if is_output else str(index), x, 0.0, half_width)
    return nodes


def _assign_lanes(
    edges: Sequence[Edge],
    columns: Mapping[int, int],
    nodes: Mapping[int, Node],
    lane_height: float,
) -> dict[Edge, int]:
    """Gives each edge a lane (0: the row of nodes, up is positive) that no other uses there.

    Short edges first, so that they stay close to the row and long ones arch over them.
    """
    lanes: dict[Edge, int] = {}

    def span(edge: Edge) -> int:
        return columns[edge.target] - columns[edge.source]

    def is_free(edge: Edge, lane: int) -> bool:
        if lane == 0 and span(edge) > 1:
            return False  # it would run through the nodes in between
        return all(
            taken != lane
            or columns[other.target] <= columns[edge.source]
            or columns[edge.target] <= columns[other.source]
            for other, taken in lanes.items()
        )

    def cost(edge: Edge, lane: int) -> tuple[float, int, int]:
        # Twice for the source: with two inputs above one another, to cross over costs most.
        climb = 2 * abs(lane - nodes[edge.source].y / lane_height) + abs(lane)
        same_side = sum(taken * lane > 0 for taken in lanes.values())
        return climb, same_side, -lane

    for edge in sorted(edges, key=lambda edge: (span(edge), edge.target, edge.source)):
        reach = range(-len(edges), len(edges) + 1)
        free = [lane for lane in reach if is_free(edge, lane)]
        lanes[edge] = min(free, key=lambda lane: cost(edge, lane))
    return lanes


def _line(
    edge: Edge,
    operation: str,
    nodes: Mapping[int, Node],
    columns: Mapping[int, int],
    lane_y: float,
) -> Line:
    source, target = nodes[edge.source], nodes[edge.target]
    start = _bend(source, lane_y, side=1)
    end = _bend(target, lane_y, side=-1)
    # The label goes into the middle one of the gaps that the edge crosses.
    gap = (columns[edge.source] + columns[edge.target] - 1) // 2
    left = max((n for n in nodes if columns[n] == gap), key=lambda n: nodes[n].half_width)
    right = next(n for n in nodes if columns[n] == gap + 1)
    label_x = (
        nodes[left].x + nodes[left].half_width + nodes[right].x - nodes[right].half_width
    ) / 2
    return Line(edge, operation, (*start, *reversed(end)), (label_x, lane_y))


def _bend(node: Node, lane_y: float, side: int) -> tuple[Point, Point, Point, Point]:
    """Returns the cubic from the node's border to its lane, within the strip beside the node."""
    climb = lane_y - node.y
    angle = math.atan2(climb, 2.2)
    start = node.port(angle, side)
    lane_x = node.x + side * (node.half_width + _BEND)
    reach = min(0.5 * math.hypot(lane_x - start[0], lane_y - start[1]), _BEND / math.cos(angle))
    pull = (
        start[0] + side * reach * math.cos(angle),
        start[1] + reach * math.sin(angle),
    )
    return start, pull, (lane_x - side * 0.75 * _BEND, lane_y), (lane_x, lane_y)


def _concatenate(
    nodes: Mapping[int, Node], num_inputs: int, bus_y: float
) -> tuple[Node, list[list[Point]]]:
    """Places the output, and the bus below all lanes that every intermediate node drops into."""
    inner = [node for index, node in nodes.items() if index >= num_inputs]
    output = Node("output", inner[-1].x + NODE_RADIUS + 1.2 + 2.2, 0.0, 2.2)
    drops = [[(node.x, node.y - NODE_RADIUS), (node.x, bus_y)] for node in inner]
    end = (output.x, output.y - BOX_HALF_HEIGHT)
    return output, [*drops, [(inner[0].x, bus_y), (output.x, bus_y), end]]
