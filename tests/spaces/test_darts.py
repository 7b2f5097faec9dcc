"""The DARTS space and GDAS's variant: supernet and child, stems, heads, unfit genotypes."""

import random
from dataclasses import replace

import pytest
import torch
from supernet_helpers import copy_to_child
from torch import Tensor

from nas.errors import UserError
from nas.genotype import Edge, Genotype
from nas.genotype.published import PUBLISHED
from nas.network import network_cost
from nas.ops import Norm
from nas.spaces import DARTS, GDASFixedReduction
from nas.spaces.darts import Network, cell_edges
from nas.spaces.darts_genotype import check
from nas.supernet import Supernet

SPACES = (DARTS, GDASFixedReduction)
FIT = {DARTS: "darts_v2", GDASFixedReduction: "gdas_frc_f1"}


def space(kind: type[DARTS], **sizes: object) -> DARTS:
    defaults = {"in_channels": 3, "num_classes": 4, "channels": 4, "cells": 3, "nodes": 2}
    return kind(**{**defaults, "stem_multiplier": 1, **sizes})  # type: ignore[arg-type]


def fixed(supernet: Supernet, seed: int) -> dict[str, str]:
    pick = random.Random(seed).choice
    return {name: pick(options) for name, options in supernet.options.items()}


VARIANTS = [
    ({}, (8, 8)),
    ({"in_channels": 1, "nodes": 3}, (9, 9)),
    ({"nodes": 4, "cells": 5}, (7, 7)),
    ({"nodes": 5}, (5, 7)),
    ({"nodes": 1}, (8, 8)),
    ({"stem": "imagenet", "in_channels": 1}, (33, 31)),
    ({"pool_norm": True, "channels": 12, "stem_multiplier": 3, "cells": 4}, (1, 6)),
]


@pytest.mark.parametrize(("sizes", "size"), VARIANTS, ids=str)
@pytest.mark.parametrize("kind", SPACES)
def test_supernet_learns_under_any_sample_and_derives_a_network(
    kind: type[DARTS], sizes: dict[str, object], size: tuple[int, int]
) -> None:
    torch.manual_seed(0)
    variant = space(kind, **sizes)
    supernet = Supernet(variant.build_supernet(), torch.Generator().manual_seed(0))
    images = torch.randn(4, variant.in_channels, *size)
    nothing = dict.fromkeys(supernet.names, "none")
    for choices in (fixed(supernet, 0), fixed(supernet, 1), nothing):
        supernet.model.zero_grad()
        out, handle = supernet.forward_for_logits(images, supernet.fixed(choices))
        assert out.shape == (4, 4)
        out.square().sum().backward()
        assert supernet.model.get_parameter("classifier.bias").grad is not None
        assert handle.grad is None or handle.grad.isfinite().all()
    genotype = variant.derive(supernet.probabilities())
    assert check(genotype, variant.searched_cells) == variant.nodes
    assert "none" not in genotype.choices.values()
    assert supernet.fixed(genotype.choices).indices is not None
    assert variant.build_network(genotype)(images).shape == (4, 4)


def test_derivation_keeps_the_two_strongest_inputs_without_none() -> None:
    variant = space(GDASFixedReduction, operations=("none", "skip_connect", "sep_conv_3x3"))
    scores = {
        "normal/0->2": torch.tensor([0.9, 0.06, 0.04]),
        "normal/1->2": torch.tensor([0.1, 0.3, 0.6]),
        "normal/0->3": torch.tensor([0.98, 0.01, 0.01]),
        "normal/1->3": torch.tensor([0.0, 0.5, 0.5]),
        "normal/2->3": torch.tensor([0.8, 0.15, 0.05]),
    }
    assert dict(variant.derive(scores).choices) == {
        "normal/0->2": "skip_connect",
        "normal/1->2": "sep_conv_3x3",
        "normal/1->3": "skip_connect",
        "normal/2->3": "skip_connect",
    }


def test_ties_go_to_the_earlier_input_and_operation() -> None:
    variant = space(DARTS, nodes=3)
    edges = [e for cell in ("normal", "reduce") for e in cell_edges(cell, 3)]
    genotype = variant.derive({edge.name: torch.full((8,), 0.125) for edge in edges})
    assert {Edge.parse(name).source for name in genotype.choices} == {0, 1}
    assert set(genotype.choices.values()) == {"max_pool_3x3"}


def random_genotype(variant: DARTS, seed: int) -> Genotype:
    pick, choices = random.Random(seed), {}
    for cell in variant.searched_cells:
        for target in range(2, 2 + variant.nodes):
            for source in sorted(pick.sample(range(target), 2)):
                choices[Edge(cell, target, source).name] = pick.choice(variant.operations)
    return Genotype(variant.name, variant.operations, choices)


@pytest.mark.parametrize("stem", ["cifar", "imagenet"])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", SPACES)
def test_child_is_the_supernet_fixed_to_its_genotype(
    kind: type[DARTS], seed: int, stem: str
) -> None:
    torch.manual_seed(seed)
    variant = space(kind, nodes=2 + seed, norm=Norm(), stem=stem, cells=4)
    supernet = Supernet(variant.build_supernet(), torch.Generator())
    genotype = random_genotype(variant, seed)
    choices = genotype.choices
    child = variant.build_network(genotype)
    copy_to_child(supernet.model, child, choices)
    images = torch.randn(4, 3, 18, 17) if stem == "cifar" else torch.randn(4, 3, 50, 47)
    sample = supernet.fixed(choices)
    assert torch.equal(supernet.forward(images, sample), child(images))
    supernet.model.eval()
    assert torch.equal(supernet.forward(images, sample), child.eval()(images))


@pytest.mark.parametrize("cells", [1, 2, 3, 5, 6, 8, 20])
def test_reductions_stand_at_one_and_two_thirds_and_double_the_channels(cells: int) -> None:
    with torch.device("meta"):
        network = space(DARTS, cells=cells).build_network(PUBLISHED["darts_v2"])
    assert isinstance(network, Network)
    widths = [cell.out_channels for cell in network.cells]  # type: ignore[union-attr]
    passed = [sum(index >= r for r in {cells // 3, 2 * cells // 3}) for index in range(cells)]
    assert widths == [4 * 4 * 2**n for n in passed]


@pytest.mark.parametrize("nodes", [2, 3, 4, 5])
def test_supernet_has_one_choice_an_edge(nodes: int) -> None:
    supernet = Supernet(space(DARTS, nodes=nodes).build_supernet(), torch.Generator())
    # Node i of n reads two inputs and the nodes before it.
    assert len(supernet.names) == 2 * sum(2 + node for node in range(nodes))


def test_a_stem_that_would_have_no_channels_is_refused() -> None:
    with pytest.raises(UserError, match=r"channels is 1: the stem for ImageNet needs at least 2"):
        space(DARTS, stem="imagenet", channels=1).build_supernet()


def test_stems_divide_the_size_by_one_and_by_eight() -> None:
    for stem, divisor in (("cifar", 1), ("imagenet", 8)):
        network = space(DARTS, stem=stem).build_network(PUBLISHED["darts_v1"])
        before_last, last = network.get_submodule("stem")(torch.randn(2, 3, 32, 32))
        assert last.shape[-1] == 32 // divisor
        assert before_last.shape[-1] == (32 if stem == "cifar" else 8)


def test_unknown_stem_is_answered_with_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean 'imagenet'"):
        space(DARTS, stem="image_net").build_supernet()


@pytest.mark.parametrize("channels", [2, 6, 9, 38])
def test_fixed_reduction_needs_channels_for_its_groups(channels: int) -> None:
    with pytest.raises(UserError, match=f"channels is {channels}: .*multiple of 4") as caught:
        space(GDASFixedReduction, channels=channels)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("channels", [4, 8, 12, 36])
def test_fixed_reduction_takes_every_multiple_of_four(channels: int) -> None:
    variant = space(GDASFixedReduction, channels=channels)
    out = variant.build_network(PUBLISHED["gdas_frc_f1"])(torch.randn(2, 3, 7, 7))
    assert out.shape == (2, 4)


@pytest.mark.parametrize("kind", SPACES)
def test_auxiliary_output_comes_only_in_training(kind: type[DARTS]) -> None:
    network = space(kind).build_network(PUBLISHED[FIT[kind]], auxiliary=True)
    images = torch.randn(2, 3, 32, 32)
    logits, auxiliary = network(images)
    assert logits.shape == auxiliary.shape == (2, 4)
    (logits.sum() + auxiliary.sum()).backward()
    assert all(p.grad is not None for p in network.get_submodule("auxiliary").parameters())
    assert isinstance(network.eval()(images), Tensor)
    plain = space(kind).build_network(PUBLISHED[FIT[kind]])
    assert isinstance(plain(images), Tensor)
    assert network_cost(plain, 3, 32) == network_cost(network, 3, 32)


@pytest.mark.parametrize(
    ("stem", "size", "fit"),
    [
        ("cifar", 28, 32),
        ("cifar", 16, 32),
        ("cifar", 64, 32),
        ("cifar", 8, 32),
        ("imagenet", 32, 224),
        ("imagenet", 128, 224),
    ],
)
def test_auxiliary_head_names_the_image_size_that_it_needs(stem: str, size: int, fit: int) -> None:
    variant = space(DARTS, stem=stem)
    network = variant.build_network(PUBLISHED["darts_v2"], auxiliary=True)
    with pytest.raises(UserError, match=rf"^auxiliary_weight: .*{fit}x{fit}") as caught:
        network(torch.randn(2, 3, size, size))
    assert "\n" not in str(caught.value)
    assert network.eval()(torch.randn(2, 3, size, size)).shape == (2, 4)


V2 = PUBLISHED["darts_v2"]


def changed(remove: str | None = None, add: dict[str, str] | None = None) -> Genotype:
    choices = {name: option for name, option in V2.choices.items() if name != remove}
    return replace(V2, choices=choices | (add or {}))


NORMAL_ONLY = {name: o for name, o in V2.choices.items() if name.startswith("normal")}


@pytest.mark.parametrize(
    ("genotype", "named"),
    [
        (replace(V2, choices=NORMAL_ONLY), "has the cells normal, reduce, this genotype has nor"),
        (replace(V2, choices={}), "this genotype has none"),
        (changed(add={"extra/0->2": "none"}), "extra"),
        (changed("normal/0->2"), r"node 2 of the normal cell .* it has \[1\]"),
        (changed("reduce/2->3"), "node 3 of the reduce cell"),
        (changed(add={"normal/2->3": "none"}), "node 3 of the normal cell"),
        (changed("normal/0->2", {"normal/2->2": "none"}), "node 2 of the normal cell"),
        (changed("normal/0->2", {"normal/5->2": "none"}), "node 2 of the normal cell"),
        (changed(add={"normal/0->1": "none"}), "normal/0->1 ends in an input"),
        (changed(add={"normal/0->6": "none", "normal/1->6": "none"}), "node 6 of the reduce"),
        (changed(add={"normal/0->999999": "none"}), "node 6 of the normal cell"),
        (changed("normal/0->2", {"normal/01->2": "none"}), "normal/01->2"),
        (changed(add={"normal/0->2": "conv"}), "unknown operation 'conv'"),
        (changed(add={"stem": "none"}), "stem"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_unfit_genotype_is_refused_in_one_line(genotype: Genotype, named: str) -> None:
    with pytest.raises(UserError, match=named) as caught:
        space(DARTS).build_network(genotype)
    assert "\n" not in str(caught.value)


def test_reduction_cell_does_not_fit_where_it_is_fixed() -> None:
    with pytest.raises(UserError, match="has the cells normal, this genotype has normal, reduce"):
        space(GDASFixedReduction).build_network(V2)
