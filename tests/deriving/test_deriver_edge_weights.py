"""What is derived where the inputs of nodes have weights: by sorting, by frequencies."""

import math
from collections import Counter
from dataclasses import replace
from itertools import permutations

import torch
from hypothesis import given
from hypothesis import strategies as st
from supernet_helpers import SETTINGS, build, generator
from test_edge_normalization import EVERY_SPACE, FIXED, PLAIN
from torch import Tensor, nn

from nas.deriving.deriver import derive_argmax, draw_genotype
from nas.edge_normalization import EdgeNormalization, edge_scores
from nas.network import build_network
from nas.spaces import DARTS, SearchSpace


def random_probabilities(space: DARTS, seed: int) -> dict[str, Tensor]:
    supernet = build(space, seed, scale=2.0)
    return supernet.probabilities()


def strongest(
    space: DARTS, probabilities: dict[str, Tensor], cell: str, node: int
) -> dict[str, str]:
    """The two strongest products of different inputs, from the sorted list of all of them."""
    products = [
        (
            float(probabilities[f"{cell}/inputs->{node}"][source]) * float(p),
            f"{cell}/{source}->{node}",
            option,
        )
        for source in range(node)
        for option, p in zip(
            space.operations, probabilities[f"{cell}/{source}->{node}"].tolist(), strict=True
        )
        if option != "none"
    ]
    found: dict[str, str] = {}
    for _, name, option in sorted(products, reverse=True):
        if len(found) < 2:
            found.setdefault(name, option)
    return found


@SETTINGS
@given(st.integers(0, 10_000), st.sampled_from([replace(PLAIN, nodes=4), FIXED]))
def test_derived_are_the_strongest_products_of_probability_and_weight(
    seed: int, space: DARTS
) -> None:
    probabilities = random_probabilities(space, seed)
    expected: dict[str, str] = {}
    for cell in space.searched_cells:
        for node in range(2, 2 + space.nodes):
            expected |= strongest(space, probabilities, cell, node)
    genotype = derive_argmax(space, probabilities)
    assert genotype.choices == expected
    for name, option in genotype.choices.items():  # how sure it is of the operation
        index = space.operations.index(option)
        assert genotype.confidence[name].probability == float(probabilities[name][index])


def test_the_weights_decide_between_inputs_and_not_between_operations() -> None:
    space = replace(PLAIN, nodes=3)
    probabilities = random_probabilities(space, 0)
    plain = {k: v for k, v in probabilities.items() if "inputs" not in k}
    uniform = {
        k: torch.full_like(v, 1 / len(v)) for k, v in probabilities.items() if k not in plain
    }
    assert space.derive(plain).choices == space.derive(plain | uniform).choices
    for source in range(4):
        one = plain | uniform | {"normal/inputs->4": nn.functional.one_hot(torch.tensor(source), 4)}
        kept = space.derive(one).choices
        best = plain[f"normal/{source}->4"][1:].argmax() + 1
        assert kept[f"normal/{source}->4"] == space.operations[int(best)]


def test_without_weights_scores_are_what_they_were() -> None:
    scores = {"normal/0->2": torch.tensor([-1.0, 2.0]), "any/name": torch.tensor([0.5])}
    assert edge_scores(scores) is scores


def test_drawn_inputs_have_the_frequencies_of_a_draw_without_replacement() -> None:
    """Node 4 of four inputs: which two are kept, from the products with what is not `none`."""
    space = replace(PLAIN, nodes=3, operations=("none", "skip_connect", "max_pool_3x3"))
    probabilities = random_probabilities(space, 5)
    weights = probabilities["normal/inputs->4"]
    masses = [float(weights[s] * probabilities[f"normal/{s}->4"][1:].sum()) for s in range(4)]
    total = math.fsum(masses)
    expected: Counter[frozenset[int]] = Counter()
    for first, second in permutations(range(4), 2):
        probability = masses[first] / total * masses[second] / (total - masses[first])
        expected[frozenset({first, second})] += probability  # type: ignore[assignment]
    num, source = 4000, generator(1)
    found: Counter[frozenset[int]] = Counter()
    for _ in range(num):
        choices = draw_genotype(space, probabilities, source).choices
        found[frozenset(s for s in range(4) if f"normal/{s}->4" in choices)] += 1
    for pair, probability in expected.items():
        deviation = math.sqrt(probability * (1 - probability) / num)
        assert abs(found[pair] / num - probability) < 4 * deviation


@EVERY_SPACE
def test_derived_networks_do_not_know_of_it(space: SearchSpace) -> None:
    genotype = derive_argmax(space, build(space).probabilities())
    network = build_network(genotype, {"channels": 8, "cells": 3}, in_channels=3, num_classes=4)
    assert not any(isinstance(module, EdgeNormalization) for module in network.modules())
