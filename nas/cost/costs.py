"""What architectures cost, and how the cost follows from the choices.

The cost of one genotype is exact: its plain network is counted. What a search needs besides, the
expected cost over all architectures with its gradient, comes from a linear model of the choices.
It is fitted to random genotypes and exact where costs add up, as in cell spaces and `mobilenet`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from nas.cost.latency import LatencyTable
from nas.cost.memory_cost import activation_memory
from nas.errors import UserError
from nas.genotype import Genotype
from nas.network import network_cost, num_parameters
from nas.registry import Registry
from nas.sampling.gumbel import gumbel_noise
from nas.spaces.space import SearchSpace, without_weights

CountCost = Callable[[nn.Module, int, int], float]
"""(plain network, channels of the images, pixels a side) -> cost."""

COSTS: Registry[CountCost] = Registry("cost")
"""Costs that are counted, without anything being measured."""


@COSTS.register("parameters")
def parameters(network: nn.Module, in_channels: int, image_size: int) -> float:
    """The number of parameters."""
    return float(num_parameters(network))


@COSTS.register("multiply_adds")
def multiply_adds(network: nn.Module, in_channels: int, image_size: int) -> float:
    """The multiply-adds of one image; papers call them FLOPs."""
    return float(network_cost(network, in_channels, image_size).multiply_adds)


@COSTS.register("activation_memory")
def activation_memory_kib(network: nn.Module, in_channels: int, image_size: int) -> float:
    """The most that activations take at once for one image, in KiB; see `nas.cost.memory_cost`."""
    return activation_memory(network, in_channels, image_size) / 1024


UNITS = {"activation_memory": "KiB", "latency": "ms"}
"""Of the costs that are not plain numbers."""


def latency_of(table: LatencyTable) -> CountCost:
    """Milliseconds by a table of measurements.

    The returned function raises a `UserError` if the table is of other images, or lacks something
    that the network runs.
    """

    def latency(network: nn.Module, in_channels: int, image_size: int) -> float:
        known = table.conditions
        if (in_channels, image_size) != (known.in_channels, known.image_size):
            raise UserError(
                f"budget.table: {table.source} is of images of {known.in_channels} channels and "
                f"{known.image_size} pixels a side, the search has {in_channels} and {image_size}: "
                "run profile_space.py with those"
            )
        return table.predict(network)

    return latency


class CostModel:
    """The cost of genotypes, each counted once."""

    def __init__(
        self,
        build: Callable[[Genotype], nn.Module],
        count: CountCost,
        in_channels: int,
        image_size: int,
    ) -> None:
        """Args:
        build: Makes the plain network of a genotype.
        count: What it costs.
        in_channels: Of the images.
        image_size: Pixels a side.
        """
        self._build, self._count = build, count
        self._image = in_channels, image_size
        self._known: dict[tuple[tuple[str, str], ...], float] = {}

    def __call__(self, genotype: Genotype) -> float:
        key = tuple(sorted(genotype.choices.items()))
        if key not in self._known:
            network = without_weights(partial(self._build, genotype))
            self._known[key] = self._count(network, *self._image)
        return self._known[key]


@dataclass(frozen=True)
class LinearCost:
    """`base + sum of effects[n, k]` over the options that are chosen: the best such fit.

    Attributes:
        base: Of every architecture.
        effects: `[N, K]`, float64, in the order of the logits; each row has mean 0 over its
            options.
        r_squared: Share of the variance over random genotypes that it explains.
        costs: Those of the random genotypes, sorted.
        cheapest: Of these.
    """

    base: float
    effects: Tensor
    r_squared: float
    costs: tuple[float, ...]
    cheapest: Genotype

    def expected(self, probabilities: Tensor) -> Tensor:
        """The mean over architectures drawn with `probabilities` `[N, K]`, with their graph.

        They may have more columns, for longer rows below (the inputs of nodes); those are 0.
        """
        known = probabilities[:, : self.effects.shape[1]]
        return self.base + (known.double() * self.effects).sum()


def fit_linear(
    space: SearchSpace,
    options: Mapping[str, Sequence[str]],
    cost: Callable[[Genotype], float],
    generator: torch.Generator,
    on_sample: Callable[[], None] = lambda: None,
) -> LinearCost:
    """Fits costs of random genotypes by least squares.

    Args:
        space: Makes genotypes.
        options: By choice name, in the order of the rows of the logits.
        cost: Of a genotype.
        generator: Of the genotypes.
        on_sample: Called after each; there are `num_fitted(options)`.
    """
    features, costs, genotypes = [], [], []
    for _ in range(num_fitted(options)):
        scores = {name: gumbel_noise((len(row),), generator) for name, row in options.items()}
        # Of all choices, whether the genotype keeps them or not (the inputs of a DARTS node): the
        # effect of an option is a mean over both.
        chosen = [nn.functional.one_hot(row.argmax(), len(row)) for row in scores.values()]
        features.append([1.0, *torch.cat(chosen).tolist()])
        genotypes.append(space.derive(scores))
        costs.append(cost(genotypes[-1]))
        on_sample()
    known, target = np.array(features), np.array(costs)
    # The smallest of all solutions: rows are determined up to a constant each.
    solution = np.linalg.lstsq(known, target, rcond=None)[0]
    rest = float(((known @ solution - target) ** 2).sum())
    variance = float(((target - target.mean()) ** 2).sum())
    base, effects = (
        float(solution[0]),
        torch.zeros(len(options), max(map(len, options.values())), dtype=torch.float64),
    )
    position = 1
    for row, names in enumerate(options.values()):
        values = torch.from_numpy(solution[position : position + len(names)])
        base += float(values.mean())
        effects[row, : len(names)] = values - values.mean()
        position += len(names)
    share = 1 - rest / variance if variance > 0 else 1.0
    cheapest = genotypes[costs.index(min(costs))]
    return LinearCost(base, effects, share, tuple(sorted(costs)), cheapest)


def num_fitted(options: Mapping[str, Sequence[str]]) -> int:
    """How many genotypes `fit_linear` looks at: two for each number that is fitted, at least 50."""
    return max(50, 2 * (1 + sum(len(row) - 1 for row in options.values())))
