"""A search within a budget: against brute force and closed forms."""

import math
from dataclasses import replace
from itertools import pairwise, product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_costs import COSTS_BY_OPTION, Table, fitted
from torch import Tensor, nn

from nas.choice import Choice
from nas.cost.budget import (
    DAMPING,
    Budget,
    FrontPoint,
    Range,
    WithinBudget,
    cost_range,
    expected_cost,
    front,
    targets,
)
from nas.cost.costs import COSTS, CostModel, fit_linear
from nas.errors import UserError
from nas.genotype import Genotype
from nas.spaces import DARTS
from nas.spaces.darts import OPERATIONS as DARTS_OPERATIONS
from nas.supernet import Supernet

SETTINGS = settings(deadline=None, derandomize=True, max_examples=60)


def budget_of(table: Table, target: float, rate: float = 0.1) -> Budget:
    linear = fitted(table)
    span = cost_range(table, table.options, table.cost, linear)  # type: ignore[arg-type]
    return Budget("parameters", "", table.cost, linear, span, target, rate)


def supernet_of(table: Table) -> Supernet:
    choices = [
        Choice({o: nn.Linear(2, 2) for o in row}, name) for name, row in table.options.items()
    ]
    return Supernet(nn.Sequential(*choices), torch.Generator().manual_seed(0))


def score(scores: dict[str, Tensor], genotype: Genotype) -> float:
    return sum(float(scores[n][int(o)]) for n, o in genotype.choices.items())


tables = st.builds(
    lambda rows, interaction: Table({f"c{i}": row for i, row in enumerate(rows)}, interaction),
    st.lists(st.lists(st.floats(0, 10), min_size=3, max_size=3), min_size=4, max_size=4),
    st.sampled_from([0.0, 0.0, 6.0]),
)


@SETTINGS
@given(tables, st.floats(0.05, 0.95), st.integers(0, 999))
def test_what_is_derived_keeps_to_the_budget_and_is_nearly_the_best(
    table: Table, fraction: float, seed: int
) -> None:
    costs = [table.cost(g) for g in table.all()]
    target = min(costs) + fraction * (max(costs) - min(costs))
    budget = budget_of(table, target)
    generator = torch.Generator().manual_seed(seed)
    scores = {n: torch.randn(3, generator=generator).log_softmax(0) for n in table.options}
    within = WithinBudget(table, table.options, budget)  # type: ignore[arg-type]
    found = within.derive(scores)
    assert budget.allows(found)
    allowed = [g for g in table.all() if budget.allows(g)]
    best = max(score(scores, g) for g in allowed)
    ranked = sum(score(scores, g) > score(scores, found) + 1e-9 for g in allowed)
    assert ranked <= 3 and score(scores, found) > best - 2.5
    # No single change that is allowed is better.
    for other in within.neighbours(found):
        assert budget.allows(other) and score(scores, other) <= score(scores, found) + 1e-9


def test_it_finds_the_best_in_most_cases() -> None:
    generator, hits, num = torch.Generator().manual_seed(0), 0, 100
    for _ in range(num):
        rows = (torch.rand(5, 3, generator=generator) * 10).tolist()
        table = Table({f"c{i}": row for i, row in enumerate(rows)})
        costs = sorted(table.cost(g) for g in table.all())
        budget = budget_of(table, costs[len(costs) // 3])
        scores = {n: torch.randn(3, generator=generator) for n in table.options}
        found = WithinBudget(table, table.options, budget).derive(scores)  # type: ignore[arg-type]
        best = max((g for g in table.all() if budget.allows(g)), key=lambda g: score(scores, g))
        hits += math.isclose(score(scores, found), score(scores, best), abs_tol=1e-6)
    assert hits >= 80


def test_within_the_budget_nothing_changes() -> None:
    table = Table(COSTS_BY_OPTION)
    within = WithinBudget(table, table.options, budget_of(table, 1e9))  # type: ignore[arg-type]
    scores = {n: torch.arange(float(len(row))) for n, row in table.options.items()}
    assert within.derive(scores) == table.derive(scores)


def test_pruned_options_stay_out() -> None:
    table = Table(COSTS_BY_OPTION)
    budget = budget_of(table, 20.5)
    scores = {n: torch.zeros(len(row)) for n, row in table.options.items()}
    scores["a"] = torch.tensor([-torch.inf, 0.0, -1.0])
    within = WithinBudget(table, table.options, budget)  # type: ignore[arg-type]
    assert within.derive(scores).choices["a"] != "0"


def test_the_dearest_that_the_linear_model_thinks_cheap_is_not_taken() -> None:
    # The interaction makes the cheapest sum the most expensive architecture.
    table = Table(COSTS_BY_OPTION, 40.0)
    costs = sorted(table.cost(g) for g in table.all())
    budget = budget_of(table, costs[0])
    scores = {n: -torch.tensor(row) for n, row in COSTS_BY_OPTION.items()}
    found = WithinBudget(table, table.options, budget).derive(scores)  # type: ignore[arg-type]
    assert table.cost(found) == costs[0] == budget.range.lowest
    assert budget.range.highest == costs[-1]


# The Lagrangian


def test_the_gradient_is_that_of_the_multiplier_times_the_excess() -> None:
    table = Table(COSTS_BY_OPTION)
    supernet, budget = supernet_of(table), budget_of(table, 12.0, rate=0.5)
    budget.multiplier = 2.0
    excess = float(expected_cost(budget, supernet)) / 12.0 - 1
    budget.add_gradient(supernet)
    assert budget.multiplier == pytest.approx(2.0 + 0.5 * excess)
    price = budget.multiplier + DAMPING * 0.5 * excess
    found = supernet.logits.grad
    assert found is not None
    for row, column in ((0, 1), (1, 0), (2, 2)):
        sides = []
        for move in (1e-3, -1e-3):
            with torch.no_grad():
                supernet.logits[row, column] += move
                sides.append(price * float(budget.excess(supernet)))
                supernet.logits[row, column] -= move
        difference = (sides[0] - sides[1]) / 2e-3
        assert float(found[row, column]) == pytest.approx(difference, rel=1e-2, abs=1e-5)


@pytest.mark.parametrize("target", [18.0, 21.0, 60.0])
def test_logits_that_descend_meet_the_budget_and_no_more(target: float) -> None:
    """The loss likes what is expensive; the multiplier ends where the budget is just met."""
    table = Table(COSTS_BY_OPTION)
    supernet, budget = supernet_of(table), budget_of(table, target, rate=0.05)
    liking = 0.05 * torch.tensor([[0.0, 3.0, 1.0], [0.0, 1.0, 0.0], [0.0, 1.0, 2.0]])
    optimizer = torch.optim.Adam([supernet.logits], 0.02)
    for _ in range(3000):
        optimizer.zero_grad()
        loss = -(supernet.masked_logits().softmax(-1) * liking).sum()
        loss.backward()
        budget.add_gradient(supernet)
        optimizer.step()
    found = expected_cost(budget, supernet)
    free = 10 + 5 + 3 + 9
    if target >= free:
        assert budget.multiplier == 0 and found == pytest.approx(free, rel=0.01)
    else:
        assert budget.multiplier > 0 and found == pytest.approx(target, rel=0.03)


@pytest.mark.parametrize("num_operations", [2, 8])  # a node has up to three inputs
def test_the_inputs_of_nodes_are_no_cost(num_operations: int) -> None:
    space = DARTS(
        in_channels=3,
        num_classes=4,
        channels=4,
        cells=3,
        nodes=2,
        operations=DARTS_OPERATIONS[-num_operations:],
        edge_normalization=True,
    )
    supernet = Supernet(space.build_supernet(), torch.Generator().manual_seed(0))
    count = CostModel(space.build_network, COSTS.get("parameters"), 3, 8)
    linear = fit_linear(space, supernet.choices, count, torch.Generator().manual_seed(0))
    budget = Budget("parameters", "", count, linear, Range(1, 2, 3, linear.cheapest), 1000, 0.1)
    budget.multiplier = 1.0
    with torch.no_grad():  # all edges take the first operation: the cost of one architecture
        supernet.logits[: supernet.num_choices, 0] = 1e3
    taken = torch.zeros(supernet.num_choices, num_operations, dtype=torch.float64)
    taken[:, 0] = 1
    assert expected_cost(budget, supernet) == pytest.approx(float(linear.expected(taken)))
    with torch.no_grad():
        supernet.logits.zero_()
    budget.add_gradient(supernet)
    assert supernet.logits.grad is not None
    assert supernet.logits.grad[: supernet.num_choices].any()
    assert not supernet.logits.grad[supernet.num_choices :].any()


class Peak(Table):
    """The most that one of the choices needs, as of memory: no sum."""

    def cost(self, genotype: Genotype) -> float:
        return max(self.costs[name][int(option)] for name, option in genotype.choices.items())


def test_where_no_single_change_is_cheaper_the_cheapest_is_derived() -> None:
    """The options of both that cost less were pruned: it takes a change of both."""
    table = Peak({"a": [1.0, 5.0, 6.0], "b": [1.0, 5.0, 6.0]})
    budget = budget_of(table, target=2.0)
    budget.check()
    scores = dict.fromkeys(table.options, torch.tensor([-torch.inf, 0.0, 0.0]))
    found = WithinBudget(table, table.options, budget).derive(scores)  # type: ignore[arg-type]
    assert found.choices == budget.range.cheapest.choices == {"a": "0", "b": "0"}
    assert budget.range.lowest == table.cost(budget.range.cheapest)


class Listed(Table):
    """Costs of architectures one by one, by the numbers of their options."""

    def __init__(self, listed: dict[str, float]) -> None:
        super().__init__({name: [0.0] * 3 for name in "abcd"[: len(next(iter(listed)))]})
        self.listed = listed

    def cost(self, genotype: Genotype) -> float:
        return self.listed["".join(genotype.choices.values())]


PAIRS = ("00", "01", "02", "10", "11", "12", "20", "21", "22")
TWO = dict(zip(PAIRS, (0.0, 9.0, 9.0, 4.0, 2.0, 9.0, 4.0, 9.0, 9.0), strict=True))
LAST = dict(zip(PAIRS, (4.0, 9.0, 5.0, 9.0, 2.0, 99.0, 5.0, 99.0, 9.0), strict=True))
FOUR = {
    f"{a}{pair}{d}": cost + (0, 1, 3)[a] + (0, 1, 3)[d]
    for a, d in product(range(3), repeat=2)
    for pair, cost in LAST.items()
}


@pytest.mark.parametrize(
    ("listed", "target", "expected"),
    [
        (TWO, 2.0, "11"),  # from "10", where the change to what was pruned is cheaper still
        (FOUR, 4.0, "1111"),  # no single change of "1001" is cheaper; near the cheapest of all
        (FOUR, 3.0, "0110"),  # nothing that is left is as cheap
    ],
)
def test_what_was_pruned_is_derived_only_where_nothing_else_was_found(
    listed: dict[str, float], target: float, expected: str
) -> None:
    table, first = Listed(listed), min(listed, key=listed.__getitem__)
    budget = budget_of(table, target)
    cheapest = Genotype(table.name, (), dict(zip(table.options, first, strict=True)))
    budget = replace(budget, range=replace(budget.range, cheapest=cheapest))
    pruned = torch.tensor([-torch.inf, 0.0, 0.0])
    scores = {name: pruned if name in "ad" else torch.zeros(3) for name in table.options}
    within = WithinBudget(table, table.options, budget)  # type: ignore[arg-type]
    assert "".join(within.derive(scores).choices.values()) == expected


# What is said, and the front


def test_a_budget_that_cannot_be_met_is_answered_with_the_range() -> None:
    budget = budget_of(Table(COSTS_BY_OPTION), 14.0)
    with pytest.raises(UserError, match="or less; the space has 15 to 27, median"):
        budget.check()
    replace(budget, target=15.0).check()
    assert "parameters of 14 at most; the space has 15 to 27" in budget.summary()
    assert "explains 100.0 %" in budget.summary()
    assert replace(budget, unit="ms").describe(12.3456) == "12.35 ms"
    assert budget.range.at(0.5) == 21


points = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=12)


@SETTINGS
@given(points)
def test_the_front_is_what_nothing_beats(values: list[tuple[int, int]]) -> None:
    genotype = Genotype("x", (), {})
    found = front([FrontPoint(genotype, float(c), float(a)) for c, a in values])
    expected = {
        (c, a)
        for c, a in values
        if not any((x <= c and y >= a) and (x, y) != (c, a) for x, y in values)
    }
    assert [(p.cost, p.accuracy) for p in found] == sorted(expected)


def test_limits_go_from_the_lowest_to_the_highest() -> None:
    found = targets(2.0, 200.0, 5)
    assert found[0] == 2 and found[-1] == pytest.approx(200)
    assert [b / a for a, b in pairwise(found)] == pytest.approx([10**0.5] * 4)
    assert targets(3.0, 3.0, 4) == [3.0] and targets(3.0, 9.0, 1) == [9.0]


def test_limits_from_a_cost_of_nothing_on_are_as_far_apart() -> None:
    assert targets(0.0, 6.0, 4) == [0.0, 2.0, 4.0, 6.0] and targets(0.0, 0.0, 4) == [0.0]


def test_a_limit_of_nothing_is_refused_where_something_costs_nothing() -> None:
    """The excess of the cost, which moves the logits, is relative to the limit."""
    budget = budget_of(Listed({**TWO, "11": 0.0}), 0.0)
    with pytest.raises(UserError, match=r"budget=parameters: the limit is 0.*fraction above 0"):
        budget.check()
