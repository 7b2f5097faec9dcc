"""Selection by perturbation: an option is worth what the supernet loses without it.

The logits of a supernet say little of what an operation adds to its accuracy (Wang et al., 2021,
"Rethinking Architecture Selection in Differentiable NAS", arXiv:2108.04392). So the choices are
decided one after the other, in random order: the option is kept whose removal costs most accuracy,
and the weights are trained on before the next decision. Then the inputs of nodes, in the same way.

Who evaluates and who trains is passed in; here is what is asked of them, and what follows from it.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, nn

from nas.deriving.deriver import with_confidence
from nas.genotype import Edge, Genotype
from nas.sampling.gumbel import gumbel_max, gumbel_noise
from nas.sampling.samplers import Sampler
from nas.spaces import SearchSpace
from nas.supernet import Sample, Supernet

DECIMALS = 6
"""Of an accuracy in percent: sums that differ by rounding alone are ties."""

Table = Mapping[str, Mapping[str, float]]
"""A number by choice and option."""


@dataclass(frozen=True)
class Decision:
    """What was kept, and what each removal would have cost.

    Attributes:
        name: The choice; of inputs the node, `cell/node`.
        kept: The option; of inputs the names of the edges.
        accuracies: In percent, without each option (edge) that could have been kept, as they were
            measured last.
    """

    name: str
    kept: tuple[str, ...]
    accuracies: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Perturbation:
    """Discretises a trained supernet.

    Attributes:
        space: Makes the genotype; what it never derives is not kept, but stays in the mixture for
            as long as a choice is open.
        supernet: The supernet. When all is done each choice has one option left, and the weights
            are those that `tune` has made.
        sampler: That it was trained with. Where all options run, those that are left are weighted
            by the softmax of their logits. Elsewhere accuracies are means over paths drawn from
            these.
        num_paths: So many paths; without meaning where all options run.
        generator: Of the order and the paths.
        evaluate: Accuracy in percent of what a sample decides, on validation data.
        tune: Trains the weights on, between two decisions: under the given sample or, where it is
            None, as the supernet was trained.
        on_evaluation: Called for each evaluation.
        on_decision: Called after each decision.
    """

    space: SearchSpace
    supernet: Supernet
    sampler: Sampler
    num_paths: int
    generator: torch.Generator
    evaluate: Callable[[Sample], float]
    tune: Callable[[Sample | None], None]
    on_evaluation: Callable[[], None] = lambda: None
    on_decision: Callable[[Decision], None] = lambda decision: None

    def derive(self) -> Genotype:
        """The genotype; its confidence is that of the logits, before anything was decided."""
        supernet, probabilities = self.supernet, self.supernet.probabilities()
        prior = self._prior()
        nodes = self._nodes()
        num_decided = self._decide_options(prior)
        choices = {name: self._candidates(name)[0] for name in supernet.names}
        strength = {name: prior[name][option] for name, option in choices.items()}
        for number, node in enumerate(self._shuffled(list(nodes)), num_decided):
            if number:
                self.tune(supernet.fixed(choices))
            choices = self._without_weak_inputs(choices, node, *nodes[node], strength)
        scores = supernet.split(supernet.fixed(choices).weights)
        return with_confidence(self.space, self.space.derive(scores), probabilities)

    @property
    def num_evaluations(self) -> int:
        """How many `derive` will ask for, those whose answer it knows included."""
        total = 0
        present = self.supernet.split(~self.supernet.masked)
        for name in self.supernet.names:
            num_candidates, num_left = len(self._candidates(name)), int(present[name].sum())
            each = self.num_paths * num_left if self.sampler.one_path else num_candidates
            total += each if num_candidates > 1 else 0
        for edges, num_kept in self._nodes().values():
            total += sum(range(num_kept + 1, len(edges) + 1))
        return total

    # Options

    def _decide_options(self, prior: Table) -> int:
        """Leaves each choice one option; returns how many were decided, not given by the masks."""
        candidates = {name: self._candidates(name) for name in self.supernet.names}
        for name, options in candidates.items():
            if len(options) == 1:
                self.supernet.keep(name, options[0])
        undecided = [name for name, options in candidates.items() if len(options) > 1]
        for number, name in enumerate(self._shuffled(undecided)):
            if number:
                self.tune(None)
            accuracies = self._without_each_option(name, candidates[name])
            kept = most_missed(accuracies, prior[name])
            self.supernet.keep(name, kept)
            self.on_decision(Decision(name, (kept,), accuracies))
        return len(undecided)

    def _candidates(self, name: str) -> list[str]:
        """The options that are left of a choice and can be derived."""
        row = self.supernet.split(self.supernet.masked)[name].tolist()
        pairs = zip(self.supernet.options[name], row, strict=True)
        return [o for o, gone in pairs if not gone and o not in self.space.never_derived]

    def _prior(self) -> Table:
        """Probability of each option under the distribution that samples are drawn from."""
        rows = self.supernet.split(self._logits().softmax(-1))
        return {
            name: dict(zip(self.supernet.options[name], row.tolist(), strict=True))
            for name, row in rows.items()
        }

    def _logits(self) -> Tensor:
        """The logits `[N, K]` of the distribution that samples are drawn from; -inf: masked."""
        logits = self.supernet.logits.detach()
        logits = logits if self.sampler.learns else torch.zeros_like(logits)
        return logits.masked_fill(self.supernet.masked, float("-inf"))

    def _without_each_option(self, name: str, candidates: Sequence[str]) -> dict[str, float]:
        """Accuracy of the supernet by the option of choice `name` that it has to do without."""
        row, options = self.supernet.names.index(name), self.supernet.options[name]
        logits = self._logits()
        alone = self._with_each_option(row, logits) if self.sampler.one_path else None
        accuracies = {}
        for option in candidates:
            removed = logits.clone()
            removed[row, options.index(option)] = float("-inf")
            if alone is None:
                accuracy = self._ask(Sample(removed.softmax(-1), None))
            else:
                accuracy = float(removed[row].double().softmax(-1) @ alone)
            accuracies[option] = round(accuracy, DECIMALS)
        return accuracies

    def _with_each_option(self, row: int, logits: Tensor) -> Tensor:
        """Mean accuracy `[K]` of drawn paths that all take the same option of choice `row`.

        The mean over paths that are drawn without an option is the mean of these, weighted by the
        probabilities of the others: for the choice in question the expectation is exact, and for
        the other choices all options meet the same draws (common random numbers).
        """
        num_options = logits.shape[1]

        @cache
        def accuracy(indices: tuple[int, ...]) -> float:
            hard = nn.functional.one_hot(torch.tensor(indices), num_options)
            return self.evaluate(Sample(hard.to(logits), indices))

        sums = torch.zeros(num_options, dtype=torch.float64)
        for _ in range(self.num_paths):
            path = gumbel_max(logits, gumbel_noise(tuple(logits.shape), self.generator)).tolist()
            for k in logits[row].isfinite().nonzero()[:, 0].tolist():
                sums[k] += accuracy((*path[:row], k, *path[row + 1 :]))
                self.on_evaluation()
        return sums / self.num_paths

    # Inputs of nodes

    def _nodes(self) -> dict[str, tuple[list[str], int]]:
        """The nodes with more inputs than a genotype keeps: names of the edges, number kept."""
        derived = self.space.derive(self.supernet.probabilities()).choices
        if len(derived) == len(self.supernet.names):
            return {}
        entering: defaultdict[str, list[str]] = defaultdict(list)
        for name in self.supernet.names:
            edge = Edge.parse(name)
            entering[f"{edge.cell}/{edge.target}"].append(name)
        num_kept = {node: sum(n in derived for n in names) for node, names in entering.items()}
        return {
            node: (names, num_kept[node])
            for node, names in entering.items()
            if len(names) > num_kept[node]
        }

    def _without_weak_inputs(
        self,
        choices: Mapping[str, str],
        node: str,
        edges: Sequence[str],
        num_kept: int,
        strength: Mapping[str, float],
    ) -> dict[str, str]:
        """Drops edges into `node` until `num_kept` are left, each time the least missed one.

        One after the other, as in the authors' code: of two inputs that can stand in for each other
        neither is missed alone, but one is needed.
        """
        left, remaining = dict(choices), list(edges)
        measured: dict[str, float] = {}
        while len(remaining) > num_kept:
            accuracies = {}
            for edge in remaining:
                others = {name: option for name, option in left.items() if name != edge}
                accuracies[edge] = round(self._ask(self.supernet.fixed(others)), DECIMALS)
            weakest = least_missed(accuracies, strength)
            remaining.remove(weakest)
            del left[weakest]
            measured |= accuracies
        self.on_decision(Decision(node, tuple(remaining), measured))
        return left

    def _ask(self, sample: Sample) -> float:
        accuracy = self.evaluate(sample)
        self.on_evaluation()
        return accuracy

    def _shuffled(self, names: Sequence[str]) -> list[str]:
        order = torch.randperm(len(names), generator=self.generator).tolist()
        return [names[i] for i in order]


def most_missed(accuracies: Mapping[str, float], prior: Mapping[str, float]) -> str:
    """That without which the accuracy is lowest.

    Ties go to the more probable, since `prior` is all else that is known; then to the earlier.
    """
    return max(accuracies, key=lambda name: (-accuracies[name], prior[name]))


def least_missed(accuracies: Mapping[str, float], prior: Mapping[str, float]) -> str:
    """That without which the accuracy is highest; of ties the less probable, then the later."""
    return max(reversed(list(accuracies)), key=lambda name: (accuracies[name], -prior[name]))
