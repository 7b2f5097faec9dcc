"""Genotypes that together run all that networks of a space run."""

from dataclasses import dataclass
from itertools import product

import pytest
import torch
from torch import Tensor, nn

from nas.choice import Choice, Repeat
from nas.cost.coverage import Draw, cover, required_choices
from nas.cost.latency import Conditions, operation_keys
from nas.elastic import Conv2d, ConvNorm2d
from nas.genotype import Genotype
from nas.spaces import DARTS, NASBench201, SearchSpace
from nas.spaces.model import ModelSpace
from nas.values import ValueChoice

CONDITIONS = Conditions(
    space="toy",
    device="none",
    torch="none",
    precision="float32",
    threads=1,
    channels_last=False,
    batch_size=1,
    in_channels=2,
    image_size=6,
)


class Model(nn.Module):
    """A width that three layers share, a choice within a choice, a depth, a kernel size."""

    def __init__(self) -> None:
        super().__init__()
        width = ValueChoice([2, 3, 4], "width")
        kernel = ValueChoice([1, 3], "kernel")
        half = ValueChoice([1, 2], "half")
        self.stem = ConvNorm2d(2, width, 3)
        self.body = Choice(
            {
                "conv": ConvNorm2d(width, width, kernel),
                "narrow": nn.Sequential(Conv2d(width, half * 2, 1), Conv2d(half * 2, width, 1)),
                "either": Choice({"relu": nn.ReLU(), "tanh": nn.Tanh()}, "inner"),
            },
            "body",
        )
        self.tail = Repeat([nn.Sigmoid(), nn.Softplus()], [0, 1, 2], "depth")

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.body(x)
        out: Tensor = self.tail(x)
        return out


@dataclass(frozen=True)
class Toy(ModelSpace):
    name = "toy"

    def build_supernet(self) -> nn.Module:
        return Model()


def keys_of(space: SearchSpace, genotype: Genotype) -> list[str]:
    return operation_keys(space.build_network(genotype), CONDITIONS)


def covered(space: SearchSpace, seed: int, genotypes: tuple[Genotype, ...] = ()) -> set[str]:
    kept = cover(Draw(space, seed), lambda g: keys_of(space, g), genotypes)
    return {key for genotype in kept for key in keys_of(space, genotype)}


def test_what_must_be_run_is_each_option_and_each_size_with_what_leads_there() -> None:
    required = required_choices(Draw(Toy(), 0).model)
    assert {"width": "3", "body": "conv", "kernel": "3"} in required
    assert {"width": "4", "body": "narrow", "half": "2"} in required
    assert {"body": "either", "inner": "tanh"} in required
    assert {"depth": "0"} in required and {"depth": "2"} in required
    assert [len(choices) for choices in required] == sorted(map(len, required), reverse=True)
    # Three widths with two kernel sizes, and with two inner widths.
    for name, option in (("conv", "kernel"), ("narrow", "half")):
        full = [c for c in required if c.get("body") == name and {"width", option} <= c.keys()]
        assert len(full) == 6


@pytest.mark.parametrize("seed", [0, 1])
def test_nothing_that_any_network_runs_is_missing(seed: int) -> None:
    """Against all networks of the space, one by one."""
    space, draw = Toy(), Draw(Toy(), 0)
    options = {name: space.options_of(name) for name in draw().choices}
    expected: set[str] = set()
    for choices in product(*options.values()):
        genotype = Genotype("toy", (), dict(zip(options, choices, strict=True)))
        expected.update(keys_of(space, genotype))
    assert covered(space, seed) == expected


def test_what_is_kept_brings_something_new_and_comes_in_the_order_of_the_seed() -> None:
    space = Toy()
    kept, again = (cover(Draw(space, 3), lambda g: keys_of(space, g)) for _ in range(2))
    assert kept == again
    known: set[str] = set()
    for genotype in kept:
        keys = set(keys_of(space, genotype))
        assert keys - known
        known |= keys


def test_networks_that_are_given_are_covered_too() -> None:
    def keys(genotype: Genotype) -> list[str]:
        return ["rare"] if genotype.choices.get("name") == "rare" else ["common"]

    rare = Genotype("toy", (), {"name": "rare"})
    assert cover(Draw(Toy(), 0), keys, [rare])[0] == rare


SMALL = (
    NASBench201(in_channels=2, num_classes=3, channels=2, cells_per_stage=1),
    DARTS(in_channels=2, num_classes=3, channels=2, cells=3, nodes=2),
)


@pytest.mark.parametrize("space", SMALL, ids=lambda space: space.name)
def test_other_networks_of_a_cell_space_have_nothing_unknown(space: SearchSpace) -> None:
    known, draw = covered(space, 0), Draw(space, 1)
    for _ in range(15):
        assert set(keys_of(space, draw())) <= known


@pytest.mark.parametrize("space", [*SMALL, Toy()], ids=lambda space: space.name)
def test_a_draw_takes_what_is_given(space: SearchSpace) -> None:
    draw = Draw(space, 0)
    for name in draw().choices:
        for option in space.options_of(name):
            if option not in space.never_derived:
                assert draw({name: option}).choices[name] == option


def test_draws_vary_and_are_those_of_the_seed() -> None:
    assert Draw(Toy(), 1).distinct(20) == Draw(Toy(), 1).distinct(20)
    assert Draw(Toy(), 1).distinct(20) != Draw(Toy(), 2).distinct(20)
    drawn = Draw(Toy(), 1).distinct(1000)
    assert len(drawn) == len({tuple(g.choices.items()) for g in drawn}) == 3 * 3 * 2 * 2 * 2 * 3


def test_drawing_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(0)
    state = torch.get_rng_state()
    Draw(Toy(), 1)()
    assert torch.equal(torch.get_rng_state(), state)
