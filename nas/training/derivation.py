"""Genotypes out of a finished search: what `nas.derive` leaves to the supernet's judgement."""

from collections.abc import Sequence

from nas.derive import derive_sampled, draw_genotype, with_confidence
from nas.genotype import Genotype
from nas.local_search import Judge, local_search
from nas.monitor.console import Progress
from nas.scores import TrainingFree
from nas.training.search import Search

VALIDATION = "validation"
"""The judge that asks the supernet for the accuracy on the validation half."""


def best_of_samples(
    run: Search, num_samples: int, max_images: int | None
) -> tuple[Genotype, float]:
    """The best of genotypes drawn from the logits, and its accuracy; see `nas.derive`."""
    with Progress(num_samples, unit="genotype") as progress:
        count = _Counter(progress)
        genotype, _ = derive_sampled(
            run.space,
            run.supernet.probabilities(),
            lambda genotype: run.evaluate(genotype, max_images),
            num_samples,
            run.source.generator,
            on_sample=count,
        )
    return genotype, run.evaluate(genotype)


def by_local_search(
    run: Search,
    judges: Sequence[str],
    *,
    num_samples: int,
    beam: int,
    max_evaluations: int,
    max_images: int | None,
    seed: int,
) -> tuple[Genotype, float]:
    """The best that a local search from genotypes drawn from the logits finds, and its accuracy.

    Args:
        run: The finished search.
        judges: Names of training-free scores, and `validation`.
        num_samples: How many genotypes are drawn to start with, besides the argmax.
        beam: See `nas.local_search`.
        max_evaluations: Likewise.
        max_images: Validation images that a genotype is judged by; None for all.
        seed: Of the untrained networks.
    """
    space, probabilities = run.space, run.supernet.probabilities()
    batch = next(iter(run.data.validation_eval.epoch(0)))
    untrained = TrainingFree(space, (batch[0][:NUM_SCORED], batch[1][:NUM_SCORED]), seed)

    def judge(name: str) -> Judge:
        if name == VALIDATION:
            return lambda genotype: run.evaluate(genotype, max_images)
        return lambda genotype: untrained(name, genotype)

    start = [space.derive(probabilities)]
    start += [draw_genotype(space, probabilities, run.source.generator) for _ in range(num_samples)]
    with Progress(max_evaluations, unit="genotype") as progress:
        ranked = local_search(
            start,
            space.neighbours,
            [judge(name) for name in judges],
            beam=beam,
            max_evaluations=max_evaluations,
            on_evaluation=_Counter(progress),
        )
    genotype = with_confidence(space, ranked[0].genotype, probabilities)
    return genotype, run.evaluate(genotype)


NUM_SCORED = 64
"""Images that a training-free score sees."""


class _Counter:
    """Moves a progress display on by one a call."""

    def __init__(self, progress: Progress) -> None:
        self._progress, self._count = progress, 0

    def __call__(self) -> None:
        self._count += 1
        self._progress.update(self._count)
