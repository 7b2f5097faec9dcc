"""The finals of a derivation: genotypes trained alone for a short while, at full depth.

A supernet of few cells cannot tell how an architecture trains when fifteen of its cells are
stacked, and no score at initialisation can. A hundred steps show it.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from nas.deriving.local_search import Judged, Jury, Values, local_search, standard_scores
from nas.genotype import Genotype
from nas.genotype.text import genotype_text
from nas.training.search import Search
from nas.training.trainings import Trainings, TrainingSettings


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
        training: How they are trained.
    """

    num_finalists: int
    num_trainings: int
    steps: int
    num_in_playoff: int
    playoff_steps: int
    training: TrainingSettings

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

    trainings = Trainings(finals.training, run, on_step)

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
