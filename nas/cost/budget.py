"""A search within a budget: the expected cost in the logits' gradient, a limit in derivations.

Minimising the loss subject to `E[cost] <= target` has the Lagrangian
`L(a) + multiplier * (E_a[cost] / target - 1)`. The logits descend in it and the multiplier
ascends (dual ascent), so that no weight of the cost has to be guessed: the multiplier grows for as
long as the expected architecture is too expensive, and falls to 0 where the budget is no limit.
What is linear on both sides would circle around the solution: the excess itself is added to the
multiplier (the augmented Lagrangian; as control, the proportional part, arXiv:2007.03964).
`E_a[cost]` needs no sample: it is a closed form of softmax(logits) (ProxylessNAS, arXiv:1812.00332,
equation 4; FBNet, arXiv:1812.03443).
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise

import torch
from torch import Tensor

from nas.cost.costs import LinearCost
from nas.errors import UserError
from nas.genotype import Genotype
from nas.spaces.space import SearchSpace
from nas.supernet import Supernet

Cost = Callable[[Genotype], float]
_BISECTIONS = 30

DAMPING = 100
"""Updates of the multiplier that the present excess counts for at once."""


@dataclass(frozen=True)
class Range:
    """What the architectures of a space cost: the cheapest, the median, the most expensive.

    Attributes:
        lowest: The lowest cost that is known.
        median: Of random genotypes.
        highest: The highest cost that is known.
        cheapest: A genotype of the lowest cost.
    """

    lowest: float
    median: float
    highest: float
    cheapest: Genotype

    def at(self, fraction: float) -> float:
        """The cost at this share of the way from the lowest to the highest."""
        return self.lowest + fraction * (self.highest - self.lowest)


@dataclass
class Budget:
    """What an architecture may cost.

    Attributes:
        name: Of the cost.
        unit: For those who read it.
        cost: The exact one, of a genotype.
        linear: Its linear model.
        range: What the space has.
        target: The limit, in the units of the cost.
        rate: By how much an update of the logits moves the multiplier, for an expected cost of
            twice the target.
        multiplier: What the relative excess is worth now, in units of the loss.
    """

    name: str
    unit: str
    cost: Cost
    linear: LinearCost
    range: Range
    target: float
    rate: float
    multiplier: float = field(default=0.0, init=False)

    def excess(self, supernet: Supernet) -> Tensor:
        """`E[cost] / target - 1` with the graph to the logits."""
        rows = len(supernet.names)  # those below weigh the inputs of nodes
        probabilities = supernet.masked_logits()[:rows].softmax(-1)
        return self.linear.expected(probabilities) / self.target - 1

    def add_gradient(self, supernet: Supernet) -> None:
        """Adds the gradient of the cost to that of the logits; moves the multiplier."""
        excess = self.excess(supernet)
        present = float(excess.detach())
        self.multiplier = max(0.0, self.multiplier + self.rate * present)
        price = max(0.0, self.multiplier + DAMPING * self.rate * present)
        (price * excess).backward()

    def allows(self, genotype: Genotype) -> bool:
        """Whether it costs no more than the target."""
        return self.cost(genotype) <= self.target

    def describe(self, cost: float) -> str:
        """A cost as text: `1,234,000` or `12.3 ms`."""
        return f"{cost:.4g} {self.unit}" if self.unit else f"{cost:,.0f}"

    def summary(self) -> str:
        """The limit, the range of the space and how well the linear model fits."""
        text, span = self.describe, self.range
        return (
            f"budget: {self.name.replace('_', ' ')} of {text(self.target)} at most; the space has "
            f"{text(span.lowest)} to {text(span.highest)}, median {text(span.median)}; the linear "
            f"model explains {100 * self.linear.r_squared:.1f} % of the differences"
        )

    def check(self) -> None:
        """Raises a `UserError` if the whole space is above the limit, or the limit is 0."""
        if self.target < self.range.lowest:
            text, span = self.describe, self.range
            raise UserError(
                f"budget={self.name}: no architecture has {self.name.replace('_', ' ')} of "
                f"{text(self.target)} or less; the space has {text(span.lowest)} to "
                f"{text(span.highest)}, median {text(span.median)}"
            )
        if self.target <= 0:  # what the logits learn from is relative to it
            raise UserError(
                f"budget={self.name}: the limit is {self.describe(self.target)}, which the "
                "cheapest architecture has: set budget.fraction above 0"
            )


class WithinBudget:
    """A search space of which only what the budget allows is derived.

    `derive` looks for the best sum of log scores: with a price on the cost that is as low as the
    budget allows (a Lagrangian, which finds the corners of the front of score and cost), then by
    single changes that raise the sum and stay within. All else is the space's own.
    """

    def __init__(
        self, space: SearchSpace, options: Mapping[str, tuple[str, ...]], budget: Budget
    ) -> None:
        """Args:
        space: The space.
        options: By choice name, in the order of the rows of the linear model.
        budget: What is allowed.
        """
        self._space, self._budget = space, budget
        self._effects = {
            name: row[: len(names)]
            for (name, names), row in zip(options.items(), budget.linear.effects, strict=True)
        }
        self.name, self.never_derived = space.name, space.never_derived
        self.has_cells = space.has_cells
        self.options_of, self.build_supernet = space.options_of, space.build_supernet
        self.build_network, self.key = space.build_network, space.key

    def derive(self, scores: Mapping[str, Tensor]) -> Genotype:
        """The best genotype that the budget allows, for log scores `[K]` by choice name."""
        found = self._space.derive(scores)
        if not self._budget.allows(found):
            found = self._climb(self._priced(scores), scores)
        return found

    def neighbours(self, genotype: Genotype) -> Iterator[Genotype]:
        """The genotypes one decision away that the budget allows."""
        return filter(self._budget.allows, self._space.neighbours(genotype))

    def _priced(self, scores: Mapping[str, Tensor]) -> Genotype:
        """The best one at the lowest price at which it is allowed."""
        largest = max(float(row.abs().max()) for row in self._effects.values())

        def at(price: float) -> Genotype:
            priced = {n: row - price / largest * self._effects[n] for n, row in scores.items()}
            return self._space.derive(priced)

        low, high = 0.0, 1.0
        while not self._budget.allows(found := at(high)):
            low, high = high, 4 * high
            if high > 1e12:
                return self._descend(found, scores)
        for _ in range(_BISECTIONS):
            middle = (low + high) / 2
            candidate = at(middle)
            if self._budget.allows(candidate):
                high, found = middle, candidate
            else:
                low = middle
        return found

    def _descend(self, genotype: Genotype, scores: Mapping[str, Tensor]) -> Genotype:
        """From what the linear model finds cheapest to what is cheap enough.

        With pruned options, or a cost that no single change lowers (the most memory that two cells
        need alike), the way may end before: then another one begins near the cheapest that is
        known. What was pruned is taken where neither gets there without, at last that cheapest.
        """

        def is_left(of: Genotype) -> bool:
            return self._score(of, scores) > -math.inf

        cheapest = self._budget.range.cheapest
        for start in (genotype, self._near(cheapest, scores)):
            found = self._downhill(start, is_left)
            if self._budget.allows(found):
                return found
        found = self._downhill(genotype, lambda _: True)
        return found if self._budget.allows(found) else cheapest

    def _near(self, genotype: Genotype, scores: Mapping[str, Tensor]) -> Genotype:
        """`genotype` with the cheapest of what is left in place of what was pruned."""
        wanted = {}
        for name, row in scores.items():
            near = -self._effects[name]  # a copy
            if name in genotype.choices:
                near[self.options_of(name).index(genotype.choices[name])] = near.max() + 1
            wanted[name] = near.masked_fill(row == -math.inf, -math.inf)
        return self._space.derive(wanted)

    def _downhill(self, genotype: Genotype, may: Callable[[Genotype], bool]) -> Genotype:
        """Takes the cheapest change of one choice until it is allowed, or none is cheaper."""
        cost = self._budget.cost
        while not self._budget.allows(genotype):
            changed = filter(may, self._space.neighbours(genotype))
            best = min(changed, key=cost, default=genotype)
            if cost(best) >= cost(genotype):
                break
            genotype = best
        return genotype

    def _score(self, genotype: Genotype, scores: Mapping[str, Tensor]) -> float:
        """The sum of its log scores; -inf where it has an option that was pruned."""
        return sum(
            float(scores[name][self.options_of(name).index(option)])
            for name, option in genotype.choices.items()
        )

    def _climb(self, genotype: Genotype, scores: Mapping[str, Tensor]) -> Genotype:
        """Takes the best change of one choice that is allowed, for as long as one is better."""

        def score(of: Genotype) -> float:
            return self._score(of, scores)

        while True:
            better = sorted(
                (n for n in self._space.neighbours(genotype) if score(n) > score(genotype)),
                key=score,
                reverse=True,
            )
            step = next(filter(self._budget.allows, better), None)
            if step is None:
                return genotype
            genotype = step


def cost_range(
    space: SearchSpace,
    options: Mapping[str, tuple[str, ...]],
    cost: Cost,
    linear: LinearCost,
) -> Range:
    """The range of `cost`: from the linear model's ends on by single changes, as far as they go."""
    rows = dict(zip(options, linear.effects, strict=True))
    ends = []
    for sign in (-1.0, 1.0):
        scores = {name: sign * rows[name][: len(names)] for name, names in options.items()}
        genotype = space.derive(scores)
        while True:
            best = max(space.neighbours(genotype), key=lambda g: sign * cost(g), default=genotype)
            if sign * cost(best) <= sign * cost(genotype):
                break
            genotype = best
        ends.append(genotype)
    costs, cheapest = linear.costs, min(ends[0], linear.cheapest, key=cost)
    highest = max(cost(ends[1]), costs[-1])
    return Range(cost(cheapest), costs[len(costs) // 2], highest, cheapest)


@dataclass(frozen=True)
class FrontPoint:
    """A genotype with its cost and its accuracy in percent."""

    genotype: Genotype
    cost: float
    accuracy: float


def front(points: list[FrontPoint]) -> list[FrontPoint]:
    """Those that no other one beats in both, by ascending cost."""
    found: list[FrontPoint] = []
    for point in sorted(points, key=lambda p: (p.cost, -p.accuracy)):
        if not found or point.accuracy > found[-1].accuracy:
            found.append(point)
    return found


def targets(lowest: float, highest: float, count: int) -> list[float]:
    """`count` limits from `lowest` to `highest`, evenly on a logarithmic scale.

    On a linear one where `lowest` is 0, as of architectures without any parameters.
    """
    if count < 2:
        return [highest]
    shares = [i / (count - 1) for i in range(count)]
    if lowest > 0:
        found = [lowest * math.exp(math.log(highest / lowest) * share) for share in shares]
    else:
        found = [lowest + (highest - lowest) * share for share in shares]
    return [b for a, b in pairwise([-math.inf, *found]) if b > a]


def expected_cost(budget: Budget, supernet: Supernet) -> float:
    """The mean cost over architectures drawn from the logits."""
    with torch.no_grad():
        return (float(budget.excess(supernet)) + 1) * budget.target
