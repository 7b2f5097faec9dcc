"""What all cell spaces share: edges, and which of them matter.

A cell is written once for supernet and child network; they differ in the modules that an edge
factory puts on the edges.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache

from torch import nn

from nas.choice import Choice
from nas.genotype import Edge, Genotype
from nas.ops import Norm, build_operation

EdgeFactory = Callable[[Edge, int, int], nn.Module | None]
"""Builds the module of an edge from (edge, channels, stride); None for no connection."""


def supernet_edges(
    operations: Sequence[str], norm: Norm, *, pool_norm: bool = False
) -> EdgeFactory:
    """Edges that are choices between `operations`; `pool_norm` adds a batch norm after pools."""

    def candidate(name: str, channels: int, stride: int) -> nn.Module:
        operation = build_operation(name, channels, stride, norm)
        is_pool = isinstance(operation, nn.AvgPool2d | nn.MaxPool2d)
        return nn.Sequential(operation, norm(channels)) if pool_norm and is_pool else operation

    def build(edge: Edge, channels: int, stride: int) -> nn.Module:
        return Choice(edge.name, {name: candidate(name, channels, stride) for name in operations})

    return build


def child_edges(genotype: Genotype, norm: Norm) -> EdgeFactory:
    """Edges that are the operations of `genotype`; dropped edges and `none` are no connection."""

    def build(edge: Edge, channels: int, stride: int) -> nn.Module | None:
        name = genotype.choices.get(edge.name, "none")
        return None if name == "none" else build_operation(name, channels, stride, norm)

    return build


@lru_cache(maxsize=1 << 16)
def live_edges(
    present: tuple[tuple[int, int], ...],
    inputs: frozenset[int],
    outputs: frozenset[int],
) -> tuple[tuple[int, int], ...]:
    """Returns the `(source, target)` pairs that lie on a path from an input to an output.

    Work on any other edge cannot change the result: its source has no input, or nothing that
    reaches the output reads its target.

    Args:
        present: Edges that connect, ordered by target; sources are smaller than targets.
        inputs: Nodes that hold the inputs of the cell.
        outputs: Nodes that the output is made of.
    """
    fed = set(inputs)
    forward = []
    for source, target in present:
        if source in fed:
            fed.add(target)
            forward.append((source, target))
    needed = set(outputs)
    live = []
    for source, target in reversed(forward):
        if target in needed:
            needed.add(source)
            live.append((source, target))
    return tuple(reversed(live))
