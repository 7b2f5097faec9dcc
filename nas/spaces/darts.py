"""The DARTS space (Liu et al., 2019, arXiv:1806.09055) and GDAS's variant with a fixed reduction.

A cell has two inputs (the outputs of the two cells before it), `nodes` intermediate nodes that
each read every node before them, and concatenates the intermediate nodes. A derived node keeps
two inputs. Cells at 1/3 and 2/3 of the depth are reduction cells with an architecture of their own.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from nas.edge_normalization import EdgeNormalization, edge_scores
from nas.errors import UserError
from nas.genotype import Edge, Genotype, Key
from nas.kernels.parts import Concatenation, HasParts, Parts
from nas.kernels.pending import state_of
from nas.ops import Norm
from nas.partial import check_partial_channels
from nas.spaces.cell import CellEdges, EdgeFactory, child_edges, supernet_edges
from nas.spaces.darts_genotype import check
from nas.spaces.darts_parts import AuxiliaryHead, FixedReduction, Preprocess, stem
from nas.spaces.space import SPACES, other_operations

NAMES = ("darts", "gdas_frc")
NORMAL, REDUCE = "normal", "reduce"
INPUTS = 2
INPUTS_KEPT = 2
OPERATIONS = (
    "none",
    "max_pool_3x3",
    "avg_pool_3x3",
    "skip_connect",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "dil_conv_3x3",
    "dil_conv_5x5",
)


def cell_edges(cell: str, nodes: int) -> list[Edge]:
    """All edges of `cell` with `nodes` intermediate nodes, by target and then source."""
    targets = range(INPUTS, INPUTS + nodes)
    return [Edge(cell, target, source) for target in targets for source in range(target)]


class Cell(nn.Module):
    """One cell: inputs `[B, C0, H0, W0]`, `[B, C1, H, W]`, output `[B, nodes * C, H', W']`."""

    def __init__(
        self,
        name: str,
        nodes: int,
        channels: int,
        preprocess: Preprocess,
        stride: int,
        make_edge: EdgeFactory,
    ) -> None:
        super().__init__()
        self.preprocess = preprocess
        self._name = name
        self._normalizations: dict[int, EdgeNormalization] | None = None
        self._outputs = range(INPUTS, INPUTS + nodes)
        self._channels, self._stride = channels, stride
        self.out_channels = nodes * channels
        self.edges = CellEdges(
            cell_edges(name, nodes),
            lambda edge: make_edge(edge, channels, stride if edge.source < INPUTS else 1),
            inputs=range(INPUTS),
            outputs=self._outputs,
        )

    def normalize_edges(self) -> None:
        """Gives the inputs of each node weights that sum to 1; see `nas.edge_normalization`."""
        self._normalizations = {n: EdgeNormalization(self._name, n) for n in self._outputs}
        self.normalizations = nn.ModuleList(self._normalizations.values())

    def forward(self, before_last: Tensor, last: Tensor) -> Tensor:
        sources = self.edges.sources()
        states: dict[int, Tensor] = {}
        if 0 in sources:
            states[0] = state_of(self.preprocess.input_0(before_last))
        if 1 in sources:
            states[1] = state_of(self.preprocess.input_1(last))
        states = self.edges.states(states, lambda: self._zeros(last), self._normalizations)
        nodes = [states[n] if n in states else self._zeros(last) for n in self._outputs]
        return torch.cat(nodes, dim=1)

    def add_to(self, parts: Parts, before_last: int, last: int) -> int:
        """Adds itself to the parts of a network; returns the node of its output."""
        inputs = self.preprocess.add_to(parts, before_last, last)
        nodes = [*inputs, *(parts.new_node() for _ in self._outputs)]
        self.edges.add_to(parts, nodes)
        return parts.add(Concatenation(), *nodes[INPUTS:])

    def _zeros(self, last: Tensor) -> Tensor:
        """The state of a node that nothing reaches."""
        batch, _, height, width = last.shape
        size = (-(-height // self._stride), -(-width // self._stride))
        return last.new_zeros(batch, self._channels, *size)


class Network(nn.Module, HasParts):
    """Stem, a sequence of cells, global pooling, linear classifier.

    In training with an auxiliary head the output is the pair (logits, auxiliary logits), else
    the logits alone, `[B, num_classes]`.
    """

    def __init__(
        self,
        space: "DARTS",
        make_edge: EdgeFactory,
        norm: Norm,
        auxiliary: bool = False,
        nodes: int | None = None,
    ) -> None:
        super().__init__()
        nodes = nodes or space.nodes
        self.stem = stem(space.stem, space.in_channels, space.channels, space.stem_multiplier)
        before_last, last = self.stem.out_channels
        reductions = {space.cells // 3, 2 * space.cells // 3}
        after_reduction = self.stem.halves_last
        channels = space.channels
        self.cells = nn.ModuleList()
        self.auxiliary: nn.Module | None = None
        self._auxiliary_after = 2 * space.cells // 3
        for index in range(space.cells):
            reduces = index in reductions
            channels *= 2 if reduces else 1
            preprocess = Preprocess(before_last, last, channels, after_reduction, norm)
            cell = (
                space.reduction_cell(nodes, channels, preprocess, norm, make_edge)
                if reduces
                else Cell(NORMAL, nodes, channels, preprocess, 1, make_edge)
            )
            self.cells.append(cell)
            before_last, last, after_reduction = last, cell.out_channels, reduces
            if auxiliary and index == self._auxiliary_after:
                self.auxiliary = AuxiliaryHead(space.stem, last, space.num_classes)
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.classifier = nn.Linear(last, space.num_classes)

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        before_last, last = self.stem(images)
        auxiliary_logits = None
        for index, cell in enumerate(self.cells):
            before_last, last = last, cell(before_last, last)
            if index == self._auxiliary_after and self.training and self.auxiliary is not None:
                auxiliary_logits = self.auxiliary(last)
        logits: Tensor = self.classifier(self.pool(last))
        return logits if auxiliary_logits is None else (logits, auxiliary_logits)

    def parts(self) -> Parts:
        """What `forward` does without an auxiliary head, as parts."""
        parts = Parts()
        before_last, last = self.stem.add_to(parts, 0)
        for cell in self.cells:
            assert isinstance(cell, Cell | FixedReduction)
            before_last, last = last, cell.add_to(parts, before_last, last)
        parts.add(nn.Sequential(self.pool, self.classifier), last)
        return parts


@SPACES.register("darts")
@dataclass(frozen=True, kw_only=True)
class DARTS:
    """The space with its sizes; the defaults are those of the search.

    Attributes:
        in_channels: Channels of the images.
        num_classes: Number of classes.
        channels: C, the channels of the first cells.
        cells: Number of cells, reduction cells included.
        nodes: Intermediate nodes of a cell.
        stem: `cifar` (keeps the resolution) or `imagenet` (divides it by 8).
        stem_multiplier: Channels of the CIFAR stem in multiples of C.
        operations: The candidates, in the order of the logits.
        norm: Batch norm inside the supernet's cells.
        pool_norm: Follow every candidate pool by a batch norm in the supernet, as the code of
            DARTS does and that of GDAS does not.
        partial_channels: The supernet searches one part of so many of the channels; 1: all.
        edge_normalization: In the supernet the inputs of a node have weights of their own.
    """

    in_channels: int
    num_classes: int
    channels: int = 16
    cells: int = 8
    nodes: int = 4
    stem: str = "cifar"
    stem_multiplier: int = 3
    operations: tuple[str, ...] = OPERATIONS
    norm: Norm = field(default_factory=lambda: Norm(affine=False, track_running_stats=False))
    pool_norm: bool = False
    partial_channels: int = 1
    edge_normalization: bool = False

    name = "darts"
    never_derived = frozenset({"none"})
    has_cells = True
    searched_cells: ClassVar[tuple[str, ...]] = (NORMAL, REDUCE)

    def __post_init__(self) -> None:
        check_partial_channels(self.partial_channels, self.channels)

    def options_of(self, name: str) -> tuple[str, ...]:
        """The operations: every edge has them all."""
        return self.operations

    def build_supernet(self) -> nn.Module:
        """The network with one choice an edge, shared by all cells of a kind."""
        make_edge = supernet_edges(
            self.operations,
            self.norm,
            pool_norm=self.pool_norm,
            partial_channels=self.partial_channels,
        )
        network = Network(self, make_edge, self.norm)
        for cell in network.cells if self.edge_normalization else ():
            if isinstance(cell, Cell):
                cell.normalize_edges()
        return network

    def derive(self, scores: Mapping[str, Tensor]) -> Genotype:
        """Per node the two inputs whose best operation other than `none` scores highest.

        DARTS, section 2.4. Inputs are distinct; ties go to the earlier one. With edge normalisation
        what counts is the score times the weight of the input (PC-DARTS).
        """
        scores = edge_scores(scores)
        allowed = [k for k, name in enumerate(self.operations) if name not in self.never_derived]
        choices: dict[str, str] = {}
        for cell in self.searched_cells:
            for target in range(INPUTS, INPUTS + self.nodes):
                edges = [Edge(cell, target, source) for source in range(target)]
                best = {e: max(allowed, key=lambda k: float(scores[e.name][k])) for e in edges}
                edges.sort(key=lambda e: -float(scores[e.name][best[e]]))
                kept = sorted(edges[:INPUTS_KEPT])
                choices |= {edge.name: self.operations[best[edge]] for edge in kept}
        return Genotype(self.name, self.operations, choices)

    def key(self, genotype: Genotype) -> Key:
        """All its edges: each leads to the output."""
        return tuple(sorted(genotype.choices.items()))

    def neighbours(self, genotype: Genotype) -> Iterator[Genotype]:
        """The genotypes with another operation on one edge, or with one edge from another node."""
        allowed = [name for name in self.operations if name not in self.never_derived]
        yield from other_operations(genotype, allowed)
        edges = {Edge.parse(name): option for name, option in genotype.choices.items()}
        for edge, option in edges.items():
            others = {e: o for e, o in edges.items() if e != edge}
            for source in range(edge.target):
                moved = replace(edge, source=source)
                if moved not in edges:
                    ordered = sorted({**others, moved: option}.items())
                    yield Genotype(self.name, self.operations, {e.name: o for e, o in ordered})

    def build_network(self, genotype: Genotype, *, auxiliary: bool = False) -> nn.Module:
        """The plain network of `genotype`; every batch norm is affine.

        Raises:
            UserError: the genotype does not fit this space.
        """
        nodes = check(genotype, self.searched_cells)
        return Network(self, child_edges(genotype, Norm()), Norm(), auxiliary, nodes)

    def reduction_cell(
        self,
        nodes: int,
        channels: int,
        preprocess: Preprocess,
        norm: Norm,
        make_edge: EdgeFactory,
    ) -> "Cell | FixedReduction":
        """The cell that halves the resolution: here searched like the normal one."""
        return Cell(REDUCE, nodes, channels, preprocess, 2, make_edge)


@SPACES.register("gdas_frc")
@dataclass(frozen=True, kw_only=True)
class GDASFixedReduction(DARTS):
    """The DARTS space with GDAS's hand-made reduction cell (arXiv:1910.04465, figure 3)."""

    name = "gdas_frc"
    searched_cells: ClassVar[tuple[str, ...]] = (NORMAL,)

    def __post_init__(self) -> None:
        super().__post_init__()
        # A reduction cell has twice the channels of those before it.
        multiple = FixedReduction.GROUPS // 2
        if self.channels % multiple:
            raise UserError(
                f"channels is {self.channels}: the grouped convolutions of gdas_frc need a "
                f"multiple of {multiple}"
            )

    def reduction_cell(
        self,
        nodes: int,
        channels: int,
        preprocess: Preprocess,
        norm: Norm,
        make_edge: EdgeFactory,
    ) -> FixedReduction:
        """The fixed reduction cell; searches nothing."""
        return FixedReduction(channels, preprocess, norm)
