"""What cell spaces share: which edges matter, and what stands on an edge."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from nas.choice import Choice
from nas.genotype import Edge, Genotype
from nas.ops import Norm
from nas.spaces.cell import child_edges, live_edges, supernet_edges

EDGE = Edge("normal", 2, 0)


def paths(present: list[tuple[int, int]], node: int) -> list[list[tuple[int, int]]]:
    """All paths, as lists of edges, that start in `node`; the empty one included."""
    onward = [
        (edge, rest) for edge in present if edge[0] == node for rest in paths(present, edge[1])
    ]
    return [[], *([edge, *rest] for edge, rest in onward)]


@st.composite
def graphs(draw: st.DrawFn) -> tuple[list[tuple[int, int]], set[int], set[int]]:
    nodes = draw(st.integers(2, 6))
    pairs = [(source, target) for target in range(1, nodes) for source in range(target)]
    present = [pair for pair in pairs if draw(st.booleans())]
    subset = st.sets(st.integers(0, nodes - 1))
    return present, draw(subset), draw(subset)


@given(graphs())
@settings(deadline=None, derandomize=True, max_examples=150)
def test_live_edges_are_those_on_a_path_from_input_to_output(
    graph: tuple[list[tuple[int, int]], set[int], set[int]],
) -> None:
    present, inputs, outputs = graph
    on_a_path = {
        edge
        for start in inputs
        for path in paths(present, start)
        if path and path[-1][1] in outputs
        for edge in path
    }
    live = live_edges(tuple(present), frozenset(inputs), frozenset(outputs))
    assert list(live) == [edge for edge in present if edge in on_a_path]


def test_supernet_edge_is_a_choice_between_the_operations_in_order() -> None:
    operations = ("none", "avg_pool_3x3", "skip_connect")
    edge = supernet_edges(operations, Norm())(EDGE, 4, 1)
    assert isinstance(edge, Choice)
    assert edge.name == "normal/0->2"
    assert edge.options == operations


def test_pools_are_normalised_where_asked() -> None:
    operations = ("avg_pool_3x3", "max_pool_3x3", "skip_connect")
    plain = supernet_edges(operations, Norm())(EDGE, 4, 1)
    normed = supernet_edges(operations, Norm(affine=False), pool_norm=True)(EDGE, 4, 1)
    assert plain is not None and normed is not None
    assert not any(isinstance(m, nn.BatchNorm2d) for m in plain.modules())
    norms = [m for m in normed.modules() if isinstance(m, nn.BatchNorm2d)]
    assert [norm.affine for norm in norms] == [False, False]
    assert isinstance(normed, Choice)
    normed.select(0)
    out = normed(torch.randn(16, 4, 8, 8))
    torch.testing.assert_close(out.mean((0, 2, 3)), torch.zeros(4), atol=1e-5, rtol=0)


def test_child_edge_is_its_operation_and_nothing_where_it_was_dropped() -> None:
    choices = {"normal/0->2": "avg_pool_3x3", "normal/1->2": "none"}
    make_edge = child_edges(Genotype("darts", (), choices), Norm())
    assert isinstance(make_edge(EDGE, 4, 1), nn.AvgPool2d)
    assert make_edge(Edge("normal", 2, 1), 4, 1) is None
    assert make_edge(Edge("normal", 3, 1), 4, 1) is None
