"""The NAS-Bench-201 topology space (Dong & Yang, 2020, arXiv:2001.00326).

A cell is a complete directed graph of `nodes` nodes; node 0 is the input, the last one the output,
and each of the edges takes one of five operations. Three stages of equal cells, with a residual
block that halves the resolution and doubles the channels between them.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from nas.errors import UserError
from nas.genotype import Edge, Genotype, Key
from nas.kernels.parts import HasParts, Parts, Role, live_positions
from nas.kernels.pending import state_of, total
from nas.ops import OPERATIONS as ALL_OPERATIONS
from nas.ops import Norm, ReLUConvBN
from nas.partial import check_partial_channels
from nas.spaces.cell import CellEdges, EdgeFactory, child_edges, supernet_edges
from nas.spaces.space import SPACES, check_operations, other_operations, parse_edges

NAME = "nasbench201"
CELL = "cell"
OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
NUM_STAGES = 3


def cell_edges(nodes: int) -> list[Edge]:
    """All edges of a cell, by target and then source."""
    return [Edge(CELL, target, source) for target in range(1, nodes) for source in range(target)]


class Cell(nn.Module):
    """One cell, `[B, C, H, W]` in and out: a node is the sum of its incoming edges."""

    def __init__(self, nodes: int, channels: int, make_edge: EdgeFactory) -> None:
        super().__init__()
        self._output = nodes - 1
        self.edges = CellEdges(
            cell_edges(nodes),
            lambda edge: make_edge(edge, channels, 1),
            inputs={0},
            outputs={self._output},
        )

    def forward(self, x: Tensor) -> Tensor:
        states = self.edges.states({0: state_of(x)}, lambda: torch.zeros_like(x))
        # With every path cut the cell is the zero function.
        return states[self._output] if self._output in states else torch.zeros_like(x)

    def add_to(self, parts: Parts, x: int) -> int:
        """Adds itself to the parts of a network; returns the node of its output."""
        nodes = [x, *(parts.new_node() for _ in range(self._output))]
        self.edges.add_to(parts, nodes)
        return nodes[-1]


class ResidualReduction(nn.Module):
    """The fixed residual block between stages: half the resolution, new number of channels."""

    def __init__(self, in_channels: int, out_channels: int, norm: Norm) -> None:
        super().__init__()
        self.conv_a = ReLUConvBN(in_channels, out_channels, 3, 2, norm)
        self.conv_b = ReLUConvBN(out_channels, out_channels, 3, 1, norm)
        # ceil_mode: odd sizes round up like the strided convolution beside it.
        self.downsample = nn.Sequential(
            nn.AvgPool2d(2, 2, ceil_mode=True),
            nn.Conv2d(in_channels, out_channels, 1, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        return total([self.downsample(x), self.conv_b(self.conv_a(x))])


class PoolingReduction(nn.Module):
    """The shortcut of the residual block alone.

    For small supernets: beside one cell a stage the five convolutions of stem and residual blocks
    do much of the work, and which cell it is hardly shows in the accuracy. Here it does.
    """

    def __init__(self, in_channels: int, out_channels: int, norm: Norm) -> None:
        super().__init__()
        self.downsample = nn.Sequential(
            nn.AvgPool2d(2, 2, ceil_mode=True),
            nn.Conv2d(in_channels, out_channels, 1, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.downsample(x)
        return out


REDUCTIONS = {"residual": ResidualReduction, "pooling": PoolingReduction}


class Network(nn.Module, HasParts):
    """Stem, three stages of cells, batch norm and ReLU, global pooling, linear classifier."""

    def __init__(
        self, space: "NASBench201", nodes: int, make_edge: EdgeFactory, norm: Norm
    ) -> None:
        """Args:
        space: Gives the sizes.
        nodes: Nodes of a cell.
        make_edge: Makes what is on the edges.
        norm: Batch norm of the parts that are not searched.
        """
        super().__init__()
        width = space.channels
        self.stem = nn.Sequential(
            nn.Conv2d(space.in_channels, width, 3, padding=1, bias=False),
            norm(width),
        )
        self.cells = nn.Sequential()
        for stage in range(NUM_STAGES):
            if stage > 0:
                self.cells.append(REDUCTIONS[space.reduction](width, 2 * width, norm))
                width *= 2
            for _ in range(space.cells_per_stage):
                self.cells.append(Cell(nodes, width, make_edge))
        self.head = nn.Sequential(norm(width), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.classifier = nn.Linear(width, space.num_classes)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.head(self.cells(self.stem(images))))
        return logits

    def parts(self) -> Parts:
        """What `forward` does, as parts."""
        parts = Parts()
        node = parts.add(self.stem, 0)
        for module in self.cells:
            node = (
                module.add_to(parts, node) if isinstance(module, Cell) else parts.add(module, node)
            )
        parts.add(nn.Sequential(self.head, self.classifier), node)
        return parts


@SPACES.register(NAME)
@dataclass(frozen=True, kw_only=True)
class NASBench201:
    """The space with its sizes; the defaults are those of the benchmark.

    Attributes:
        in_channels: Channels of the images.
        num_classes: Number of classes.
        channels: C, the channels of the first stage.
        cells_per_stage: N, the cells in each of the three stages.
        nodes: Nodes of a cell, input and output included.
        reduction: What is between the stages: `residual` blocks as in the benchmark, or `pooling`.
        partial_channels: The supernet searches one part of so many of the channels; 1: all.
        operations: The candidates, in the order of the logits.
        norm: Batch norm of the supernet; outside of its cells it is always affine.
    """

    in_channels: int
    num_classes: int
    channels: int = 16
    cells_per_stage: int = 5
    nodes: int = 4
    reduction: str = "residual"
    partial_channels: int = 1
    operations: tuple[str, ...] = OPERATIONS
    norm: Norm = field(default_factory=lambda: Norm(affine=False, track_running_stats=False))

    name = NAME
    never_derived = frozenset[str]()
    has_cells = True

    def __post_init__(self) -> None:
        check_partial_channels(self.partial_channels, self.channels)

    def options_of(self, name: str) -> tuple[str, ...]:
        """The operations: every edge has them all."""
        return self.operations

    def build_supernet(self) -> nn.Module:
        """The network with one choice an edge, shared by all cells."""
        make_edge = supernet_edges(
            self.operations, self.norm, partial_channels=self.partial_channels
        )
        # Running statistics of many architectures would fit none of them, here neither.
        return Network(self, self.nodes, make_edge, replace(self.norm, affine=True))

    def derive(self, scores: Mapping[str, Tensor]) -> Genotype:
        """The best option of every edge (argmax)."""
        edges = cell_edges(self.nodes)
        choices = {e.name: self.operations[int(scores[e.name].argmax())] for e in edges}
        return Genotype(NAME, self.operations, choices)

    def neighbours(self, genotype: Genotype) -> Iterator[Genotype]:
        """The cells with another operation on one edge."""
        return other_operations(genotype, self.operations)

    def key(self, genotype: Genotype) -> Key:
        """The operations of the edges between input and output that no `none` cuts off."""
        edges = cell_edges(self.nodes)
        operations = [genotype.choices[edge.name] for edge in edges]
        ends = [((edge.source,), edge.target) for edge in edges]
        roles = [Role.CUT if name == "none" else Role.CONNECTS for name in operations]
        live = live_positions(ends, roles, (0,), (self.nodes - 1,))
        return tuple((edges[position].name, operations[position]) for position in live)

    def build_network(self, genotype: Genotype, *, auxiliary: bool = False) -> nn.Module:
        """The plain network of `genotype`, as in the benchmark: every batch norm is affine.

        Raises:
            UserError: the genotype does not fit, or an auxiliary head is asked for.
        """
        if auxiliary:
            raise UserError(
                "auxiliary_weight: the space nasbench201 has no auxiliary head; set it to 0"
            )
        nodes = check(genotype)
        return Network(self, nodes, child_edges(genotype, Norm()), Norm())


def check(genotype: Genotype) -> int:
    """Checks that `genotype` is a complete cell of this space and returns its number of nodes.

    Raises:
        UserError: an edge is missing or foreign, or an operation is unknown.
    """
    check_operations(genotype, ALL_OPERATIONS)
    edges = parse_edges(genotype)
    nodes = max((edge.target for edge in edges), default=1) + 1
    if nodes > len(edges) + 1:  # before a list of all edges, which a mistyped node makes huge
        raise UserError(
            f"genotype: a nasbench201 cell of {nodes} nodes has one operation on each of its "
            f"{nodes * (nodes - 1) // 2} edges, this one has {len(edges)}"
        )
    expected = cell_edges(nodes)
    if edges != expected:
        odd = sorted({e.name for e in edges}.symmetric_difference({e.name for e in expected}))
        raise UserError(
            f"genotype: a nasbench201 cell of {nodes} nodes has one operation on each of its "
            f"{len(expected)} edges; missing or foreign: {', '.join(odd)}"
        )
    return nodes
