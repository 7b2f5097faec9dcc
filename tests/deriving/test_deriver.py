"""The rules that turn scores into genotypes, against brute force and frequencies."""

import math
from collections import Counter
from collections.abc import Mapping
from itertools import combinations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from nas.deriving.deriver import (
    derive_argmax,
    derive_sampled,
    normalised_entropy,
    option_confidence,
    with_confidence,
)
from nas.genotype import Genotype
from nas.spaces import DARTS, GDASFixedReduction, NASBench201, SearchSpace

SETTINGS = settings(deadline=None, derandomize=True, max_examples=40)

BENCH = NASBench201(in_channels=3, num_classes=10)
DARTS_SPACE = DARTS(in_channels=3, num_classes=10)
FIXED = GDASFixedReduction(in_channels=3, num_classes=10)
SMALL = DARTS(in_channels=3, num_classes=10, nodes=2)
SPACES = pytest.mark.parametrize(
    "space", [BENCH, DARTS_SPACE, FIXED, SMALL], ids=["bench", "darts", "frc", "small"]
)


def edge_names(space: SearchSpace) -> list[str]:
    if isinstance(space, NASBench201):
        return [f"cell/{s}->{t}" for t in range(1, space.nodes) for s in range(t)]
    assert isinstance(space, DARTS)
    nodes = range(2, 2 + space.nodes)
    return [f"{c}/{s}->{t}" for c in space.searched_cells for t in nodes for s in range(t)]


def random_scores(space: SearchSpace, seed: int) -> dict[str, Tensor]:
    source = torch.Generator().manual_seed(seed)
    return {n: torch.randn(len(space.operations), generator=source) for n in edge_names(space)}


def softmax(scores: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: row.softmax(-1) for name, row in scores.items()}


# The rules


@SETTINGS
@given(st.integers(0, 10_000))
def test_nasbench201_takes_the_best_option_of_every_edge(seed: int) -> None:
    scores = random_scores(BENCH, seed)
    found = derive_argmax(BENCH, softmax(scores)).choices
    for name, row in scores.items():
        best = max(zip(row.tolist(), BENCH.operations, strict=True))[1]
        assert found[name] == best
    assert set(found) == set(scores)


def test_nasbench201_can_derive_none() -> None:
    scores = random_scores(BENCH, 0)
    scores["cell/1->2"][0] = 100.0
    assert derive_argmax(BENCH, softmax(scores)).choices["cell/1->2"] == "none"


def best_pair(
    scores: Mapping[str, Tensor], space: DARTS, cell: str, node: int
) -> tuple[float, dict[str, str]]:
    """Of all pairs of different inputs with any operations but `none`, the one that scores most."""
    none = space.operations.index("none")
    found: list[tuple[float, dict[str, str]]] = []
    for pair in combinations([f"{cell}/{source}->{node}" for source in range(node)], 2):
        rows = [scores[name].tolist() for name in pair]
        for first, left in enumerate(rows[0]):
            for second, right in enumerate(rows[1]):
                if none not in (first, second):
                    names = (space.operations[first], space.operations[second])
                    found.append((left + right, dict(zip(pair, names, strict=True))))
    return max(found, key=lambda entry: entry[0])


@SETTINGS
@given(st.integers(0, 10_000), st.sampled_from([DARTS_SPACE, FIXED, SMALL]), st.floats(0, 10))
def test_darts_keeps_the_best_pair_of_distinct_inputs(
    seed: int, space: DARTS, more_none: float
) -> None:
    scores = {name: row.double() for name, row in random_scores(space, seed).items()}
    for row in scores.values():
        row[space.operations.index("none")] += more_none
    genotype = space.derive(scores)
    expected: dict[str, str] = {}
    for cell in space.searched_cells:
        for node in range(2, 2 + space.nodes):
            expected |= best_pair(scores, space, cell, node)[1]
    assert genotype.choices == expected
    assert "none" not in genotype.choices.values()


def test_ties_go_to_the_earlier_input_and_the_earlier_operation() -> None:
    uniform = {name: torch.full((8,), 1 / 8) for name in edge_names(DARTS_SPACE)}
    first = next(name for name in DARTS_SPACE.operations if name != "none")
    expected = {
        f"{c}/{s}->{t}": first for c in ("normal", "reduce") for t in range(2, 6) for s in (0, 1)
    }
    assert derive_argmax(DARTS_SPACE, uniform).choices == expected


@SPACES
@pytest.mark.parametrize("seed", range(3))
def test_every_derivation_fits_its_space(space: SearchSpace, seed: int) -> None:
    genotype = derive_argmax(space, softmax(random_scores(space, seed)))
    assert genotype.space == space.name and genotype.operations == space.operations
    assert set(genotype.confidence) == set(genotype.choices) <= set(edge_names(space))


# Sampled derivations


def score_of(genotype: Genotype) -> float:
    """An evaluation with few ties that only depends on the choices."""
    return sum(
        (1 + position) * genotype.operations.index(option) ** 1.5
        for position, option in enumerate(genotype.choices.values())
    )


@SPACES
def test_a_sampled_derivation_returns_the_best_that_it_evaluated(space: SearchSpace) -> None:
    evaluated: list[Genotype] = []

    def evaluate(genotype: Genotype) -> float:
        evaluated.append(genotype)
        return score_of(genotype)

    probabilities = softmax(random_scores(space, 0))
    source = torch.Generator().manual_seed(0)
    best, ranked = derive_sampled(space, probabilities, evaluate, 20, source)
    assert score_of(best) == max(score_of(g) for g in evaluated)
    assert len({tuple(g.choices.items()) for g in evaluated}) == len(evaluated) > 1
    assert [g for g, _ in ranked] == sorted(evaluated, key=lambda g: -score_of(g))
    assert [value for _, value in ranked] == [score_of(g) for g, _ in ranked]
    assert best == ranked[0][0]
    assert best.confidence == with_confidence(space, best, probabilities).confidence != {}


@SPACES
def test_a_sampled_derivation_replays_from_its_generator(space: SearchSpace) -> None:
    probabilities = softmax(random_scores(space, 1))

    def derive(seed: int) -> list[tuple[Genotype, float]]:
        source = torch.Generator().manual_seed(seed)
        return derive_sampled(space, probabilities, score_of, 5, source)[1]

    assert derive(3) == derive(3)
    assert derive(3) != derive(4)


def test_repeated_genotypes_are_evaluated_once_and_ties_go_to_the_first() -> None:
    certain = {name: torch.tensor([0.0, 0.0, 0.0, 1.0, 0.0]) for name in edge_names(BENCH)}
    certain["cell/0->1"] = torch.tensor([0.0, 0.5, 0.0, 0.5, 0.0])
    evaluated: list[str] = []

    def evaluate(genotype: Genotype) -> float:
        evaluated.append(genotype.choices["cell/0->1"])
        return 1.0

    source = torch.Generator().manual_seed(0)
    best, ranked = derive_sampled(BENCH, certain, evaluate, 30, source)
    assert sorted(evaluated) == ["nor_conv_3x3", "skip_connect"]
    assert best.choices["cell/0->1"] == evaluated[0] and len(ranked) == 2


def draws(space: SearchSpace, probabilities: Mapping[str, Tensor], num: int) -> list[Genotype]:
    source = torch.Generator().manual_seed(5)
    return [derive_sampled(space, probabilities, lambda _: 0.0, 1, source)[0] for _ in range(num)]


def p_value(observed: Mapping[str, int], expected: Mapping[str, float], num: int) -> float:
    assert set(observed) <= set(expected)
    counts = [observed.get(key, 0) for key in expected]
    total = sum(expected.values())
    return float(stats.chisquare(counts, [num * p / total for p in expected.values()]).pvalue)


def test_a_sampled_derivation_draws_each_edge_from_its_probabilities() -> None:
    probabilities, num = softmax(random_scores(BENCH, 2)), 1500
    drawn = draws(BENCH, probabilities, num)
    for name, row in probabilities.items():
        observed = Counter(g.choices[name] for g in drawn)
        expected = dict(zip(BENCH.operations, row.double().tolist(), strict=True))
        assert p_value(observed, expected, num) > 0.01 / len(probabilities)


def test_a_sampled_darts_cell_draws_operations_and_inputs_from_their_probabilities() -> None:
    space = DARTS(
        in_channels=3, num_classes=10, nodes=2, operations=("none", "skip_connect", "sep_conv_3x3")
    )
    table = torch.tensor([[0.2, 0.5, 0.3], [0.6, 0.1, 0.3], [0.8, 0.1, 0.1]])
    names = edge_names(space)
    probabilities = {n: table[int(n.split("/")[1].split("->")[0])] for n in names}
    num = 1500
    drawn = draws(space, probabilities, num)
    # The operation of an edge that is always kept: given that it is not `none`.
    kept = Counter(g.choices["normal/1->2"] for g in drawn)
    assert p_value(kept, {"skip_connect": 0.25, "sep_conv_3x3": 0.75}, num) > 0.003
    # The inputs of node 3: two of three without replacement, by the mass that is not `none`.
    mass = [0.8, 0.4, 0.2]
    expected = {}
    for a, b in combinations(range(3), 2):
        rest = sum(mass)
        both = mass[a] * mass[b] / rest
        expected[f"{a}{b}"] = both / (rest - mass[a]) + both / (rest - mass[b])
    for cell in ("normal", "reduce"):
        pairs = Counter(
            "".join(str(s) for s in range(3) if f"{cell}/{s}->3" in g.choices) for g in drawn
        )
        assert p_value(pairs, expected, num) > 0.003


# Confidence


@pytest.mark.parametrize("num_options", [2, 3, 5, 8])
def test_the_entropy_is_one_for_uniform_and_zero_for_certain(num_options: int) -> None:
    uniform = torch.full((num_options,), 1 / num_options)
    assert normalised_entropy(uniform) == pytest.approx(1.0, abs=1e-6)
    certain = torch.nn.functional.one_hot(torch.tensor(1), num_options).float()
    assert normalised_entropy(certain) == 0.0


@SETTINGS
@given(st.lists(st.floats(-5, 5), min_size=2, max_size=8))
def test_the_entropy_is_that_of_the_definition(logits: list[float]) -> None:
    p = torch.tensor(logits, dtype=torch.float64).softmax(-1)
    expected = -sum(x * math.log(x) for x in p.tolist()) / math.log(len(p))
    assert normalised_entropy(p) == pytest.approx(expected, abs=1e-9)


def test_a_choice_with_one_option_has_no_entropy() -> None:
    assert normalised_entropy(torch.ones(1)) == 0.0


def test_the_margin_is_the_distance_to_the_best_other_option() -> None:
    p = torch.tensor([0.1, 0.4, 0.3, 0.15, 0.05], dtype=torch.float64)
    winner = option_confidence(BENCH, "cell/0->1", p, "skip_connect")
    assert (winner.probability, winner.margin) == pytest.approx((0.4, 0.1))
    loser = option_confidence(BENCH, "cell/0->1", p, "avg_pool_3x3")
    assert (loser.probability, loser.margin) == pytest.approx((0.05, -0.35))
    assert winner.entropy == loser.entropy == pytest.approx(normalised_entropy(p))


def test_the_margin_ignores_what_is_never_derived() -> None:
    p = torch.tensor([0.9, 0.06, 0.04, 0, 0, 0, 0, 0], dtype=torch.float64)
    assert DARTS_SPACE.operations[0] == "none"
    found = option_confidence(DARTS_SPACE, "normal/0->2", p, DARTS_SPACE.operations[1])
    assert (found.probability, found.margin) == pytest.approx((0.06, 0.02))
    none = torch.tensor([0.6, 0.4, 0, 0, 0], dtype=torch.float64)
    assert option_confidence(BENCH, "cell/0->1", none, "skip_connect").margin == pytest.approx(-0.2)
