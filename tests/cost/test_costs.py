"""What architectures cost: counted, and as a linear model of the choices."""

from itertools import product
from statistics import mean

import pytest
import torch
from torch import nn

from nas.cost.costs import COSTS, CostModel, LinearCost, fit_linear, num_fitted
from nas.genotype import Genotype, Key
from nas.genotype.published import PUBLISHED
from nas.spaces import DARTS, Custom, NASBench201, SearchSpace

SMALL = Custom(1, 5, "toy_models.SmallNet")
NB201 = NASBench201(in_channels=3, num_classes=10, channels=4, cells_per_stage=1)
SMALL_CHOICES = ("width", "kernel", "act", "depth", "take", "ratio")


def options_of(space: SearchSpace, *names: str) -> dict[str, tuple[str, ...]]:
    return {name: space.options_of(name) for name in names}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Table:
    """A space of free choices whose cost is a sum, with an interaction if asked."""

    def __init__(self, costs: dict[str, list[float]], interaction: float = 0.0) -> None:
        self.name, self.never_derived, self.has_cells = "table", frozenset[str](), False
        self.costs, self.interaction = costs, interaction
        self.options = {n: tuple(map(str, range(len(row)))) for n, row in costs.items()}

    def options_of(self, name: str) -> tuple[str, ...]:
        return self.options[name]

    def derive(self, scores: dict[str, torch.Tensor]) -> Genotype:
        return Genotype(self.name, (), {n: str(int(row.argmax())) for n, row in scores.items()})

    def neighbours(self, genotype: Genotype) -> list[Genotype]:
        return [
            Genotype(self.name, (), {**genotype.choices, n: o})
            for n, row in self.options.items()
            for o in row
            if genotype.choices[n] != o
        ]

    def key(self, genotype: Genotype) -> Key:
        return tuple(sorted(genotype.choices.items()))

    def build_supernet(self) -> nn.Module:
        raise NotImplementedError

    def build_network(self, genotype: Genotype, *, auxiliary: bool = False) -> nn.Module:
        raise NotImplementedError

    def cost(self, genotype: Genotype) -> float:
        chosen = {n: int(o) for n, o in genotype.choices.items()}
        total = 10 + sum(self.costs[n][k] for n, k in chosen.items())
        return total + self.interaction * float(all(k == 0 for k in chosen.values()))

    def all(self) -> list[Genotype]:
        rows = product(*self.options.values())
        return [Genotype(self.name, (), dict(zip(self.options, row, strict=True))) for row in rows]


COSTS_BY_OPTION = {"a": [1.0, 5.0, 2.0], "b": [0.0, 3.0], "c": [4.0, 4.5, 9.0]}


def fitted(table: Table) -> LinearCost:
    return fit_linear(table, table.options, table.cost, generator())  # type: ignore[arg-type]


def test_a_cost_that_adds_up_is_fitted_exactly() -> None:
    table = Table(COSTS_BY_OPTION)
    linear = fitted(table)
    assert linear.r_squared == pytest.approx(1)
    for genotype in table.all():
        hot = [
            nn.functional.one_hot(torch.tensor(int(o)), 3).double()
            for o in genotype.choices.values()
        ]
        assert float(linear.expected(torch.stack(hot))) == pytest.approx(table.cost(genotype))
    for row, values in zip(linear.effects, COSTS_BY_OPTION.values(), strict=True):
        assert row[: len(values)].tolist() == pytest.approx([v - mean(values) for v in values])


def test_the_expected_cost_is_the_mean_over_all_architectures_with_its_gradient() -> None:
    table = Table(COSTS_BY_OPTION)
    linear = fitted(table)
    logits = torch.randn(3, 3, generator=generator(1), dtype=torch.float64)
    logits[1, 2] = -torch.inf
    logits.requires_grad_()
    p = logits.softmax(-1)
    expected = sum(
        (
            table.cost(g)
            * p[0, int(g.choices["a"])]
            * p[1, int(g.choices["b"])]
            * p[2, int(g.choices["c"])]
            for g in table.all()
        ),
        torch.zeros((), dtype=torch.float64),
    )
    found = linear.expected(p)
    torch.testing.assert_close(found, expected)
    wanted = torch.autograd.grad(expected, logits, retain_graph=True)[0]
    torch.testing.assert_close(torch.autograd.grad(found, logits)[0], wanted)


def test_an_interaction_shows_in_what_is_explained() -> None:
    shares = [fitted(Table(COSTS_BY_OPTION, x)).r_squared for x in (0.0, 5.0, 50.0)]
    assert shares[0] > shares[1] > shares[2] and shares[2] < 0.8


def test_costs_of_cells_are_those_of_their_networks() -> None:
    edges = [f"cell/{s}->{t}" for t in range(1, 4) for s in range(t)]
    convs = Genotype("nasbench201", NB201.operations, dict.fromkeys(edges, "nor_conv_3x3"))
    skips = Genotype("nasbench201", NB201.operations, dict.fromkeys(edges, "skip_connect"))
    count = CostModel(NB201.build_network, COSTS.get("multiply_adds"), 3, 32)
    # Six 3x3 convolutions in each of three stages: C -> 2C at a quarter of the pixels.
    stage = 6 * 9 * 4 * 4 * 32 * 32
    assert count(convs) - count(skips) == 3 * stage
    parameters = CostModel(NB201.build_network, COSTS.get("parameters"), 3, 32)
    weights = sum(6 * (9 * c * c + 2 * c) for c in (4, 8, 16))
    assert parameters(convs) - parameters(skips) == weights


def test_costs_of_open_sizes_are_those_of_the_sizes() -> None:
    count = CostModel(SMALL.build_network, COSTS.get("multiply_adds"), 1, 8)
    for width, ratio, depth in product((4, 8), (2, 3), (1, 2)):
        choices = {"width": str(width), "ratio": str(ratio), "depth": str(depth)}
        rest = {"kernel": "3", "act": "ReLU", "take": "blocks"}
        found = count(Genotype("custom", (), {**choices, **rest}))
        hidden = ratio * width
        expected = width * 9 * 16 + depth * width * 9 * 16 + width * hidden + hidden * 5
        assert found == expected


def test_each_genotype_is_counted_once() -> None:
    asked: list[Genotype] = []

    def build(genotype: Genotype) -> nn.Module:
        asked.append(genotype)
        return nn.Linear(3, 4)

    count = CostModel(build, COSTS.get("parameters"), 1, 8)
    one = Genotype("x", (), {"a": "1", "b": "2"})
    same = Genotype("x", (), {"b": "2", "a": "1"})
    assert count(one) == count(same) == 16 and asked == [one]


def test_models_that_cannot_be_built_without_weights_are_built_with() -> None:
    def build(genotype: Genotype) -> nn.Module:
        return nn.Linear(int(torch.linspace(1, 4, 4)[-1].item()), 2)

    assert CostModel(build, COSTS.get("parameters"), 1, 8)(Genotype("x", (), {})) == 10


def test_random_numbers_of_others_are_left_alone() -> None:
    state = torch.get_rng_state()
    CostModel(SMALL.build_network, COSTS.get("parameters"), 1, 8)(
        SMALL.derive({n: torch.zeros(2) for n in SMALL_CHOICES})
    )
    assert torch.equal(state, torch.get_rng_state())


def test_the_inputs_of_a_darts_node_count_as_often_as_they_are_kept() -> None:
    space = DARTS(in_channels=3, num_classes=10, channels=4, cells=3, nodes=2)
    names = [f"{c}/{s}->{t}" for c in ("normal", "reduce") for t in (2, 3) for s in range(t)]
    count = CostModel(space.build_network, COSTS.get("parameters"), 3, 16)
    options = options_of(space, *names)
    samples: list[None] = []
    linear = fit_linear(space, options, count, generator(), lambda: samples.append(None))
    assert len(samples) == num_fitted(options) == len(linear.costs)
    uniform = torch.full((len(names), 8), 1 / 8)
    assert float(linear.expected(uniform)) == pytest.approx(mean(linear.costs), rel=0.03)


@pytest.mark.parametrize("name", COSTS.names())
def test_each_cost_is_a_number_that_grows_with_the_channels(name: str) -> None:
    """And counting leaves the network as it was."""
    found = []
    for channels in (4, 8):
        space = NASBench201(in_channels=3, num_classes=10, channels=channels, cells_per_stage=1)
        torch.manual_seed(0)
        network = space.build_network(PUBLISHED["nasbench201_best"])
        before = {key: value.clone() for key, value in network.state_dict().items()}
        cost = COSTS.get(name)
        found.append(cost(network, 3, 8))
        assert cost(network, 3, 8) == found[-1]
        assert before.keys() == network.state_dict().keys() and network.training
        assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())
    assert 0 < found[0] < found[1] < float("inf")
