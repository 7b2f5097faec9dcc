"""What cell spaces share: what stands on an edge."""

import torch
from torch import nn

from nas.choice import Choice
from nas.genotype import Edge, Genotype
from nas.ops import Norm
from nas.spaces.cell import child_edges, supernet_edges

EDGE = Edge("normal", 2, 0)


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
