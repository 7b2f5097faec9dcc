"""The outline of a network: its parts, their shapes, and all of its parameters."""

import pytest
import torch

from nas.errors import UserError
from nas.genotype import Genotype
from nas.genotype.resolve import resolve_genotype
from nas.network import build_network, network_cost
from nas.outline import Part, outline
from nas.spaces import SPACES

CIFAR = {"in_channels": 3, "num_classes": 10, "image_size": 32}


def told(parts: list[Part]) -> list[tuple[str, str, int, int, int]]:
    return [(p.name, p.kind, p.channels, p.size, p.count) for p in parts]


def test_darts_network_is_that_of_the_paper() -> None:
    parts = outline(resolve_genotype("darts_v2"), {"channels": 36, "cells": 20}, **CIFAR)
    assert told(parts) == [
        ("stem", "fixed", 108, 32, 1),
        ("normal", "cell", 144, 32, 6),
        ("reduce", "reduction", 288, 16, 1),
        ("normal", "cell", 288, 16, 6),
        ("reduce", "reduction", 576, 8, 1),
        ("normal", "cell", 576, 8, 6),
        ("classifier", "fixed", 10, 1, 1),
    ]
    assert sum(part.num_parameters for part in parts) == 3_349_342


def test_nasbench201_network_is_that_of_the_benchmark() -> None:
    parts = outline(resolve_genotype("nasbench201_best"), {}, **CIFAR)
    assert [part[:1] + part[4:] for part in told(parts)] == [
        ("stem", 1),
        ("cell", 5),
        ("residual reduction", 1),
        ("cell", 5),
        ("residual reduction", 1),
        ("cell", 5),
        ("head", 1),
        ("classifier", 1),
    ]
    assert sum(part.num_parameters for part in parts) == 1_073_466


def a_genotype(space: str) -> Genotype:
    """One of a macro space, with the options in turn."""
    made = SPACES.get(space)(in_channels=3, num_classes=10)
    names = list(made.derive({n: torch.zeros(99) for n in made._options}).choices)
    scores = {
        name: torch.arange(len(made.options_of(name))).roll(number).float()
        for number, name in enumerate(names)
    }
    found: Genotype = made.derive(scores)
    return found


@pytest.mark.parametrize(("space", "unit"), [("mobilenet", "pixels"), ("vit", "tokens")])
def test_macro_networks_have_all_parameters_in_their_parts(space: str, unit: str) -> None:
    genotype = a_genotype(space)
    parts = outline(genotype, {}, **CIFAR)
    network = build_network(genotype, {}, in_channels=3, num_classes=10)
    assert sum(p.num_parameters for p in parts) == network_cost(network, 3, 32).num_parameters
    assert unit in {part.unit for part in parts}
    assert parts[-1].name == "classifier"


def test_blocks_of_a_macro_space_bear_what_was_chosen() -> None:
    genotype = a_genotype("mobilenet")
    names = {part.name for part in outline(genotype, {}, **CIFAR)}
    chosen = {option for option in genotype.choices.values() if option != "skip"}
    assert {f"MBConv {option}" for option in chosen} <= names


def test_outline_leaves_the_generator_alone() -> None:
    before = torch.get_rng_state()
    outline(resolve_genotype("nasbench201_best"), {}, **CIFAR)
    assert torch.equal(torch.get_rng_state(), before)


def test_size_that_a_space_does_not_have_is_refused() -> None:
    with pytest.raises(UserError, match="cells_per_stage"):
        outline(resolve_genotype("darts_v2"), {"cells_per_stage": 5}, **CIFAR)
