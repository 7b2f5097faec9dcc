"""The finals of a derivation: genotypes trained alone for a short while, at full depth.

A supernet of few cells cannot tell how an architecture trains when fifteen of its cells are
stacked, and no score at initialisation can. A hundred steps show it.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nas.data import Cycle
from nas.deriving.local_search import Judged, Jury, Values, local_search, standard_scores
from nas.genotype import Genotype
from nas.genotype.text import genotype_text
from nas.kernels.graphs import GraphedStep
from nas.network import build_network
from nas.optimisation.bilevel import Batch
from nas.optimisation.finite import NonFiniteLossError
from nas.optimisation.optimizers import OptimizerSettings, Updater
from nas.spaces import Custom
from nas.training.run import num_cores, to_device
from nas.training.search import Search
from nas.training.tuning import mean_of_second_half


@dataclass(frozen=True, kw_only=True)
class Finals:
    """Who is in the finals and how they are trained.

    Attributes:
        num_finalists: How many of the best are trained first.
        num_trainings: Trainings at most. After the finalists come the neighbours of the best, as
            long as one of them is better.
        steps: Of a training.
        num_in_playoff: How many of the best are trained for longer; 0 for none.
        playoff_steps: Of such a training, those of before included.
        sizes: Sizes of their network by name; what is missing has the space's default.
        weights: Their optimiser; the learning rate stays as it is.
        seed: Of the initial weights, the same for all.
        channels_last: Memory layout of the weights.
        graphs: Whether steps may be CUDA graphs.
    """

    num_finalists: int
    num_trainings: int
    steps: int
    num_in_playoff: int
    playoff_steps: int
    sizes: Mapping[str, Any]
    weights: OptimizerSettings
    seed: int
    channels_last: bool
    graphs: bool = True

    @property
    def max_steps(self) -> int:
        """Steps of all networks together, at most."""
        further = max(self.playoff_steps - self.steps, 0)
        return self.num_trainings * self.steps + self.num_in_playoff * further


def hold(
    finals: Finals,
    run: Search,
    ranked: Sequence[Judged],
    jury: Jury,
    neighbours: Callable[[Genotype], Iterable[Genotype]],
    on_step: Callable[[int], None] = lambda num_networks: None,
    on_round: Callable[[str], None] = lambda line: None,
) -> list[Judged]:
    """A local search from the first of `ranked`, their training as one judge more.

    The training weighs as much as the jury together: it alone has seen the architecture at the size
    it is meant for, but what learns fastest at first need not end best. Standard scores count:
    among neighbours the jury tells chance differences, and a training now and then a large one.

    What stands at the top at the end differs by less than chance. So the best few are trained on,
    for longer, which weighs as much as all before, in the scale of the trainings before. It
    says most about the network that is wanted, but one and the same network ends at another loss
    with another seed: a lead within that must not overrule all else.

    Args:
        finals: What is held.
        run: The search, whose training images and first batches all finalists see.
        ranked: Genotypes, best first.
        jury: What has ranked them.
        neighbours: The genotypes one decision away.
        on_step: Called with the number of networks that have made a step.
        on_round: Called with a line that sums up what has been trained together.

    Returns:
        All genotypes that were trained, best first. The last value of each is minus its loss; those
        of the play-off have that of the play-off after it, and it is in their standing.
    """

    trainings = Trainings(finals, run, on_step)

    def minus_losses(genotypes: Sequence[Genotype], steps: int) -> list[float]:
        losses = trainings.losses(genotypes, steps)
        loss, best = min(zip(losses, map(genotype_text, genotypes), strict=True))
        on_round(f"{len(genotypes)} trained for {steps} steps, lowest loss {loss:.3f}: {best}")
        return [-loss for loss in losses]

    def train_and_judge(genotypes: Sequence[Genotype]) -> list[Values]:
        trained = minus_losses(genotypes, finals.steps)
        return [(*values, value) for values, value in zip(jury(genotypes), trained, strict=True)]

    num_judges = len(ranked[0].values)
    found = local_search(
        [judged.genotype for judged in ranked[: finals.num_finalists]],
        neighbours,
        train_and_judge,
        run.space.key,
        beam=1,
        max_evaluations=finals.num_trainings,
        at_a_time=2 * finals.num_finalists,
        scale=standard_scores,
        weights=[*[1.0] * num_judges, max(num_judges, 1)],
    )
    best, others = found[: finals.num_in_playoff], found[finals.num_in_playoff :]
    if len(best) > 1:
        trained = minus_losses([judged.genotype for judged in best], finals.playoff_steps)
        best = _with_playoff(best, trained, _spread([judged.values[-1] for judged in found]))
    return best + others


def _with_playoff(best: Sequence[Judged], trained: Sequence[float], spread: float) -> list[Judged]:
    """Those of the play-off, best first; what has diverged is last."""
    mean = np.mean([value for value in trained if math.isfinite(value)] or [0.0])
    judged = [
        replace(
            each,
            values=(*each.values, value),
            standing=each.standing + float(value - mean) / spread,
        )
        for each, value in zip(best, trained, strict=True)
    ]
    return sorted(judged, key=lambda each: -each.standing)


def _spread(values: Sequence[float]) -> float:
    """Their standard deviation; 1 where there is none."""
    return float(np.std([value for value in values if math.isfinite(value)] or [0.0])) or 1.0


class Trainings:
    """Networks that are trained side by side; one that is asked for again goes on where it was.

    It keeps the weights and momentum of all of them, which is little beside what a step needs.
    """

    def __init__(
        self,
        finals: Finals,
        run: Search,
        on_step: Callable[[int], None] = lambda num_networks: None,
    ) -> None:
        """Args:
        finals: How they are trained.
        run: The search, whose training images and first batches all of them see.
        on_step: Called with the number of networks that have made a step.
        """
        self._finals, self._run, self._on_step = finals, run, on_step
        self._entrants: dict[str, _Entrant] = {}

    def losses(self, genotypes: Sequence[Genotype], steps: int) -> list[float]:
        """The loss per image of each genotype's network in the second half of its first `steps`.

        Summed over a training it ranks architectures better than the accuracy after it does (Ru et
        al., 2021, "Speedy Performance Estimation for Neural Architecture Search",
        arXiv:2006.04492). Within one epoch each loss is that of images not seen before. A network
        that diverges has an infinite one.
        """
        entrants = [self._entrant(genotype) for genotype in genotypes]
        self._train(list(dict.fromkeys(entrants)), steps)
        return [entrant.loss(steps) for entrant in entrants]

    def _entrant(self, genotype: Genotype) -> "_Entrant":
        name = genotype_text(genotype)
        if name not in self._entrants:
            self._entrants[name] = _Entrant(self._finals, self._run, genotype)
        return self._entrants[name]

    def _train(self, entrants: Sequence["_Entrant"], steps: int) -> None:
        start = min(entrant.num_steps for entrant in entrants)
        batches = islice(Cycle(self._run.data.train, start), max(steps - start, 0))
        one_by_one: Callable[..., Iterable[None]] = map
        with _side_by_side(self._run.supernet.device) as at_once:
            for_each = one_by_one
            for number, batch in enumerate(batches, start):
                due = [entrant for entrant in entrants if entrant.num_steps == number]
                before = torch.get_rng_state()
                for _ in for_each(lambda entrant, batch=batch: entrant.step(batch), due):
                    pass
                # Draws (dropout) come from one generator: in which order must not depend on
                # threads.
                if number == start and torch.equal(before, torch.get_rng_state()):
                    for_each = at_once
                self._on_step(len(due))
        for entrant in entrants:
            entrant.rest()


class _Entrant:
    """A network in training.

    Attributes:
        num_steps: How many it has made.
    """

    def __init__(self, finals: Finals, run: Search, genotype: Genotype) -> None:
        info = run.data.info
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(finals.seed)
            network = build_network(
                genotype, finals.sizes, in_channels=info.in_channels, num_classes=info.num_classes
            )
        self._network = to_device(network, run.supernet.device, finals.channels_last).train()
        self._learner, self._device = run.learner, run.supernet.device
        # Models of users may decide by what they compute, what then has gradients too.
        is_constant, on_gpu = not isinstance(run.space, Custom), self._device.type == "cuda"
        # One kernel on a CPU: many, each called from Python, hold up the networks beside this one.
        self._updater = Updater(
            self._network.parameters(), finals.weights, fused=is_constant and not on_gpu
        )
        # Of optimisers SGD alone keeps all that changes on the device.
        is_sgd = finals.weights.name == "sgd"
        self._has_graph = finals.graphs and on_gpu and is_constant and is_sgd
        self._graphed: GraphedStep | None = None
        self._losses: list[Tensor] = []
        self._has_diverged = False
        self.num_steps = 0

    def step(self, batch: Batch) -> None:
        self.num_steps += 1
        if self._has_diverged:
            return
        if self._has_graph and self._graphed is None:
            self._graphed = GraphedStep(self._train, self._device)
        step = self._train if self._graphed is None else self._graphed
        try:
            self._losses.append(step(*batch))
        except NonFiniteLossError:  # a norm to be clipped; the others go on
            self._has_diverged = True

    def _train(self, images: Tensor, labels: Tensor) -> Tensor:
        with self._learner.autocast():
            loss = self._learner.loss(self._network(images), labels)
        loss.backward()
        self._updater.step()
        return loss.detach()

    def rest(self) -> None:
        """Lets go of what only steps need: a graph has much memory, and the two hold each other."""
        if self._graphed is not None:
            self._graphed.join()
        self._graphed = None

    def loss(self, steps: int) -> float:
        return math.inf if self._has_diverged else mean_of_second_half(self._losses[:steps])


@contextmanager
def _side_by_side(device: torch.device) -> Iterator[Callable[..., Iterable[None]]]:
    """A `map` that runs on all cores, each call on one of them.

    Two small networks on a core each take little more than half the time that they take one after
    the other on two: their operations are too small to be shared.
    """
    if device.type != "cpu":
        yield map
        return
    num_threads = torch.get_num_threads()
    with ThreadPoolExecutor(num_cores(), initializer=torch.set_num_threads, initargs=(1,)) as pool:
        try:
            yield pool.map
        finally:
            torch.set_num_threads(num_threads)
