"""What all cell spaces share: edges, and which of them matter.

A cell is written once for supernet and child network; they differ in the modules that an edge
factory puts on the edges.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import groupby

from torch import Tensor, nn

from nas.choice import Choice, connects, silent_gate
from nas.edge_normalization import EdgeNormalization
from nas.genotype import Edge, Genotype
from nas.kernels.parts import Parts, Role, live_positions
from nas.kernels.pending import Pending, total
from nas.ops import Norm, build_operation
from nas.partial import PartialChoice

EdgeFactory = Callable[[Edge, int, int], nn.Module | None]
"""Builds the module of an edge from (edge, channels, stride); None for no connection."""


def supernet_edges(
    operations: Sequence[str],
    norm: Norm,
    *,
    pool_norm: bool = False,
    partial_channels: int = 1,
) -> EdgeFactory:
    """Edges that are choices between `operations`.

    Args:
        operations: Names, in the order of the logits.
        norm: Batch norm of the candidates.
        pool_norm: Adds a batch norm after pools.
        partial_channels: One part of so many of the channels is searched (`nas.partial`); 1: all.
    """

    def candidate(name: str, channels: int, stride: int) -> nn.Module:
        operation = build_operation(name, channels, stride, norm)
        is_pool = isinstance(operation, nn.AvgPool2d | nn.MaxPool2d)
        return nn.Sequential(operation, norm(channels)) if pool_norm and is_pool else operation

    def build(edge: Edge, channels: int, stride: int) -> nn.Module:
        searched = channels // partial_channels
        candidates = {name: candidate(name, searched, stride) for name in operations}
        if partial_channels == 1:
            return Choice(candidates, edge.name)
        return PartialChoice(candidates, edge.name, parts=partial_channels, stride=stride)

    return build


def child_edges(genotype: Genotype, norm: Norm) -> EdgeFactory:
    """Edges that are the operations of `genotype`; dropped edges and `none` are no connection."""

    def build(edge: Edge, channels: int, stride: int) -> nn.Module | None:
        name = genotype.choices.get(edge.name, "none")
        return None if name == "none" else build_operation(name, channels, stride, norm)

    return build


class CellEdges(nn.ModuleDict):
    """The edges of one cell and which of them matter now; keys are `source_target`."""

    def __init__(
        self,
        edges: Iterable[Edge],
        build: Callable[[Edge], nn.Module | None],
        inputs: Iterable[int],
        outputs: Iterable[int],
    ) -> None:
        """Args:
        edges: The edges of the cell, ordered by target.
        build: Makes the module of an edge; None leaves it out.
        inputs: Nodes that hold the inputs of the cell.
        outputs: Nodes that the output is made of.
        """
        super().__init__()
        self._pairs: list[tuple[int, int]] = []
        for edge in edges:
            module = build(edge)
            if module is not None:
                self[f"{edge.source}_{edge.target}"] = module
                self._pairs.append((edge.source, edge.target))
        self._ends = tuple(((source,), target) for source, target in self._pairs)
        self._inputs, self._outputs = frozenset(inputs), frozenset(outputs)
        searched = any(isinstance(module, Choice) for module in self.values())
        # Without a choice nothing changes, and compiled code need not look.
        self._fixed = None if searched else self._find_live()

    def live(self) -> list[tuple[int, int, nn.Module]]:
        """(source, target, module) of the edges that the output depends on, by target.

        Those of a `none` that wants a gradient of its own (see `silent_gate`) are among them.
        """
        positions = self._find_live() if self._fixed is None else self._fixed
        modules = list(self.values())
        return [(*self._pairs[position], modules[position]) for position in positions]

    def sources(self) -> frozenset[int]:
        """The nodes that an edge which runs leaves."""
        return frozenset(source for source, _, module in self.live() if connects(module))

    def states(
        self,
        inputs: Mapping[int, Tensor],
        zeros: Callable[[], Tensor],
        normalizations: Mapping[int, EdgeNormalization] | None = None,
    ) -> dict[int, Tensor]:
        """The states `[B, C, H, W]` of the nodes: each the sum of the edges that enter it.

        Args:
            inputs: Those of the nodes that no edge enters.
            zeros: Makes the state of another node where all edges that enter it are `none`.
            normalizations: By node, what weighs the edges that enter it; None weighs none.

        Returns:
            All nodes that something reaches, `inputs` among them.
        """
        states = dict(inputs)
        for target, entering in groupby(self.live(), key=lambda edge: edge[1]):
            summands: list[Tensor | Pending] = []
            silent: list[Tensor] = []
            for source, _, edge in entering:
                gate = silent_gate(edge)
                if gate is not None:
                    silent.append(gate)
                elif normalizations is None:
                    summands.append(edge(states[source]))
                else:
                    summands.append(normalizations[target](source, edge(states[source])))
            states[target] = total(summands or [zeros()], silent)
        return states

    def _find_live(self) -> Sequence[int]:
        roles = tuple(map(_role, self.values()))
        return _live_positions(self._ends, roles, self._inputs, self._outputs)

    def add_to(self, parts: Parts, nodes: Sequence[int]) -> None:
        """Adds the edges to the parts of a network, between `nodes`, those of this cell."""
        for source, target in self._pairs:
            parts.add(self[f"{source}_{target}"], nodes[source], target=nodes[target])

    def droppable_paths(self) -> list[nn.Module]:
        """The edges that drop-path may cut: all but plain skip connections."""
        return [module for module in self.values() if not isinstance(module, nn.Identity)]


_live_positions = lru_cache(maxsize=1 << 16)(live_positions)


def _role(module: nn.Module) -> Role:
    if connects(module):
        return Role.CONNECTS
    return Role.CUT if silent_gate(module) is None else Role.SILENT
