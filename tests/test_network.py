"""Child networks: sizes, cost, drop-path."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from nas.errors import UserError
from nas.genotype import Genotype
from nas.genotype.published import PUBLISHED
from nas.network import DropPath, build_network, network_cost, num_parameters
from nas.outline import parts_of
from nas.spaces import SPACES
from nas.spaces.cell import CellEdges

SMALL = {
    "nasbench201_best": {"channels": 4, "cells_per_stage": 1},
    "darts_v2": {"channels": 4, "cells": 3, "stem_multiplier": 1},
    "gdas_frc_f1": {"channels": 4, "cells": 3, "stem_multiplier": 1},
}


def small(name: str) -> nn.Module:
    torch.manual_seed(0)
    return build_network(PUBLISHED[name], SMALL[name], in_channels=3, num_classes=5)


@pytest.mark.parametrize(
    ("genotype", "size"),
    [
        ("darts_v1", "cells_per_stage"),
        ("nasbench201_best", "stem"),
        ("nasbench201_best", "cells"),
        ("gdas_frc_f1", "cells_per_stage"),
        ("nasbench201_resnet", "stem_multiplier"),
    ],
)
def test_size_of_another_space_is_named(genotype: str, size: str) -> None:
    with pytest.raises(UserError, match=rf"^network\.{size}: .*{PUBLISHED[genotype].space}"):
        build_network(PUBLISHED[genotype], {size: 3}, in_channels=3, num_classes=10)


def test_unknown_space_is_answered_with_the_nearest() -> None:
    genotype = replace(PUBLISHED["darts_v1"], space="dart")
    with pytest.raises(UserError, match=r"genotype\.space.*did you mean 'darts'\?"):
        build_network(genotype, {}, in_channels=3, num_classes=10)


def test_sizes_left_out_are_those_of_the_space() -> None:
    with torch.device("meta"):
        given = {"channels": 16, "cells_per_stage": 5}
        nets = [
            build_network(PUBLISHED["nasbench201_best"], s, in_channels=3, num_classes=10)
            for s in ({}, given)
        ]
    assert network_cost(nets[0], 3, 32) == network_cost(nets[1], 3, 32)


@pytest.mark.parametrize("name", SMALL)
def test_cost_is_that_of_hooks_on_every_convolution_and_linear_layer(name: str) -> None:
    network = small(name).eval()
    counted = 0

    def count(module: nn.Module, _: object, out: Tensor) -> None:
        nonlocal counted
        if isinstance(module, nn.Conv2d):
            counted += out[0].numel() * module.weight[0].numel()
        elif isinstance(module, nn.Linear):
            counted += out[0].numel() * module.in_features

    handles = [module.register_forward_hook(count) for module in network.modules()]
    network(torch.randn(1, 3, 13, 13))
    for handle in handles:
        handle.remove()
    cost = network_cost(network, 3, 13)
    assert cost.multiply_adds == counted
    assert cost.num_parameters == sum(p.numel() for p in network.parameters())


def test_counting_leaves_the_network_as_it_was() -> None:
    network = small("darts_v2").train()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    network_cost(network, 3, 16)
    assert network.training
    after = network.state_dict()
    assert all(torch.equal(after[key], value) for key, value in before.items())


class OwnAuxiliary(nn.Module):
    """A part that a user calls auxiliary, and needs."""

    def __init__(self) -> None:
        super().__init__()
        self.auxiliary = nn.Linear(3, 4)
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.auxiliary(x.mean((2, 3))))
        return out


def test_only_the_head_that_retraining_adds_is_not_counted() -> None:
    cost = network_cost(OwnAuxiliary(), 3, 8)
    assert cost.num_parameters == (3 * 4 + 4) + (4 * 2 + 2)
    parts = parts_of(OwnAuxiliary(), Genotype("custom", (), {}), 3, 8)
    assert sum(part.num_parameters for part in parts) == cost.num_parameters
    with_head, without = (
        build_network(
            PUBLISHED["darts_v2"],
            SMALL["darts_v2"],
            in_channels=3,
            num_classes=5,
            auxiliary=auxiliary,
        )
        for auxiliary in (True, False)
    )
    assert num_parameters(with_head) > num_parameters(without)
    assert network_cost(with_head, 3, 32) == network_cost(without, 3, 32)


class Paths(nn.Module):
    """Two droppable paths side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.paths = nn.ModuleList([nn.ReLU(), nn.Tanh()])

    def droppable_paths(self) -> list[nn.Module]:
        return list(self.paths)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(path(x) for path in self.paths)


@pytest.mark.parametrize("probability", [0.1, 0.3, 0.8])
def test_drop_path_keeps_the_expectation(probability: float) -> None:
    torch.manual_seed(0)
    network, n = Paths(), 20_000
    DropPath(network).set_probability(probability)
    x = torch.ones(n, 1, 1, 1)
    for out, whole in zip(network(x), (x, x.tanh()), strict=True):
        error = (1 / (1 - probability) - 1) ** 0.5 / n**0.5
        assert abs(float((out / whole).mean()) - 1) < 5 * error
        assert abs(float((out == 0).float().mean()) - probability) < 5 * 0.5 / n**0.5


def test_drop_path_drops_single_images_and_scales_the_others() -> None:
    torch.manual_seed(0)
    network = Paths()
    DropPath(network).set_probability(0.25)
    x = torch.rand(200, 3, 2, 2) + 1
    first, second = network(x)
    kept = first.flatten(1).any(1)
    assert 0 < kept.sum() < 200
    torch.testing.assert_close(first[kept], x[kept] / 0.75)
    assert first[~kept].count_nonzero() == 0
    assert not torch.equal(kept, second.flatten(1).any(1)), "paths are dropped independently"


def test_drop_path_does_nothing_in_evaluation_or_at_zero() -> None:
    network = Paths()
    drop_path = DropPath(network)
    x = torch.rand(50, 1, 2, 2)
    assert torch.equal(network(x)[0], x)
    drop_path.set_probability(0.9)
    assert torch.equal(network.eval()(x)[0], x)
    assert (network.train()(x)[0] == 0).any()
    drop_path.set_probability(0.0)
    assert torch.equal(network(x)[0], x)


def test_drop_path_counts_the_paths_that_it_may_cut() -> None:
    assert DropPath(TwoLayers()).num_paths == 0
    network = small("darts_v2")
    edges = [
        edge
        for module in network.modules()
        if isinstance(module, CellEdges)
        for edge in module.values()
    ]
    assert DropPath(network).num_paths == sum(not isinstance(e, nn.Identity) for e in edges) > 0


def test_drop_path_keeps_the_type_under_half_precision() -> None:
    network = Paths()
    DropPath(network).set_probability(0.5)
    assert network(torch.ones(4, 1, 1, 1, dtype=torch.bfloat16))[0].dtype == torch.bfloat16


def test_skip_connections_are_never_dropped() -> None:
    names = [f"cell/{s}->{t}" for t in range(1, 4) for s in range(t)]
    genotype = Genotype("nasbench201", (), dict.fromkeys(names, "skip_connect"))
    sizes = {"channels": 4, "cells_per_stage": 2}
    network = build_network(genotype, sizes, in_channels=3, num_classes=5)
    x = torch.randn(4, 3, 8, 8)
    plain = network(x)
    DropPath(network).set_probability(0.999)
    assert torch.equal(network(x), plain)


@pytest.mark.parametrize("name", SMALL)
def test_drop_path_serves_every_other_edge_of_the_network(name: str) -> None:
    network = small(name)
    keys = list(network.state_dict())
    drop_path = DropPath(network)
    assert list(network.state_dict()) == keys
    hooked = [m for m in network.modules() if m._forward_hooks]
    edges = [e for m in network.modules() if hasattr(m, "edges") for e in m.edges.values()]
    assert set(hooked) >= {e for e in edges if not isinstance(e, nn.Identity)}
    assert not any(isinstance(m, nn.Identity) for m in hooked)
    x = torch.randn(16, 3, 16, 16)
    plain = network.train()(x)
    drop_path.set_probability(0.5)
    assert not torch.allclose(network(x), plain)
    network(x).sum().backward()


def test_every_space_has_a_small_network_here() -> None:
    with_cells = {name for name in SPACES if SPACES.get(name).has_cells}
    assert {PUBLISHED[name].space for name in SMALL} == with_cells


class TwoLayers(nn.Module):
    """Attention as PyTorch has it, whose layers look at the norms within them."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 2, 2)
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, 2)

    def forward(self, images: Tensor) -> Tensor:
        tokens: Tensor = self.layers(self.patches(images).flatten(2).transpose(1, 2))
        return tokens


def test_attention_is_counted_and_may_look_at_its_norms() -> None:
    tokens, width, hidden = 4 * 4, 8, 16
    patches = tokens * width * 3 * 2 * 2
    linear = tokens * (4 * width * width + 2 * width * hidden)
    products = 2 * tokens * tokens * width
    assert network_cost(TwoLayers(), 3, 8).multiply_adds == patches + 2 * (linear + products)
