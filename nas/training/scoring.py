"""What a search asks of genotypes: untrained before its first step, by its supernet at the end."""

import csv
import io
from collections.abc import Iterator, Sequence
from functools import partial

import torch

from nas.data.order import derived_seed
from nas.deriving.deriver import derive_argmax, derive_sampled, draw_genotype, with_confidence
from nas.deriving.local_search import Judge, Judged, Jury, Values, local_search
from nas.deriving.scores import TrainingFree
from nas.deriving.warm_start import warm_start
from nas.files import replace_text
from nas.genotype import Genotype
from nas.genotype.text import genotype_text
from nas.monitor.console import Progress
from nas.supernet import Sample
from nas.training.finals import Finals, hold
from nas.training.search import Search
from nas.training.tuning import tuning_loss

VALIDATION = "validation"
"""The judge that asks the supernet for the accuracy on the validation half."""

TUNING = "tuning"
"""The judge that tunes the supernet's weights for a few steps: minus the loss meanwhile."""

TRAINING, PLAYOFF = "training", "playoff"
"""The judges of the finals: minus the loss of a short training, and of a longer one."""

CANDIDATES = "candidates.csv"

NUM_SCORED = 64
"""Images that a training-free score sees."""


def training_free(run: Search, seed: int) -> TrainingFree:
    """Scores of untrained networks of the run's space, on images of the validation half."""
    images, labels = next(iter(run.data.validation_eval.epoch(0)))
    return TrainingFree(run.space, (images[:NUM_SCORED], labels[:NUM_SCORED]), seed)


def start_warm(run: Search, score: str, *, num_samples: int, strength: float, seed: int) -> None:
    """Sets the logits of a search that has not begun by a training-free score.

    Args:
        run: The search.
        score: Name of the score.
        num_samples: See `nas.deriving.warm_start`.
        strength: Likewise.
        seed: Of the untrained networks.
    """
    space, supernet = run.space, run.supernet
    generator = torch.Generator().manual_seed(derived_seed(seed, "warm start"))

    def genotype_of(sample: Sample) -> Genotype:
        # Where a node keeps some of its inputs each is as likely: of equals the first are kept.
        order = 1 + torch.rand(len(sample.weights), 1, generator=generator)
        return space.derive(supernet.split(sample.weights * order))

    with Progress(num_samples, unit="genotype") as progress:
        warm_start(
            supernet,
            run.source.fair,
            partial(training_free(run, seed), score),
            genotype_of,
            num_samples=num_samples,
            strength=strength,
            on_sample=progress.advance,
        )


def best_of_samples(
    run: Search, num_samples: int, max_images: int | None
) -> tuple[Genotype, float]:
    """The best of genotypes drawn from the logits, and its accuracy; see `nas.deriving.deriver`."""
    with Progress(num_samples, unit="genotype") as progress:
        genotype, _ = derive_sampled(
            run.within,
            run.supernet.probabilities(),
            lambda genotype: run.evaluate(genotype, max_images),
            num_samples,
            run.source.generator,
            on_sample=progress.advance,
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
    finals: Finals | None = None,
) -> tuple[Genotype, float]:
    """The best that a local search from genotypes drawn from the logits finds, and its accuracy.

    Writes `candidates.csv`: the genotypes that were judged, best first, with what each judge said.

    Args:
        run: The finished search.
        judges: Names of training-free scores, `validation` and `tuning`.
        num_samples: How many genotypes are drawn to start with, besides the argmax.
        beam: See `nas.deriving.local_search`.
        max_evaluations: Likewise.
        max_images: Validation images that a genotype is judged by; None for all.
        seed: Of the untrained networks.
        finals: What is held from the best; None for nothing. All that it trains stands in the file.
    """
    space, probabilities, allows = run.within, run.supernet.probabilities(), run.supernet.allows
    untrained = training_free(run, seed)

    def judge(name: str) -> Judge:
        if name == VALIDATION:
            return lambda genotype: run.evaluate(genotype, max_images)
        if name == TUNING:
            return lambda genotype: -tuning_loss(run, genotype)
        return partial(untrained, name)

    def neighbours(genotype: Genotype) -> Iterator[Genotype]:
        return (other for other in space.neighbours(genotype) if allows(other.choices))

    start = [derive_argmax(space, probabilities)]
    start += [draw_genotype(space, probabilities, run.source.generator) for _ in range(num_samples)]
    jury = Jury([judge(name) for name in judges], space.key)
    with Progress(max_evaluations, unit="genotype") as progress:

        def ask(genotypes: Sequence[Genotype]) -> list[Values]:
            said: list[Values] = []
            for genotype in genotypes:
                said += jury([genotype])
                progress.advance()
            return said

        ranked = local_search(
            start, neighbours, ask, space.key, beam=beam, max_evaluations=max_evaluations
        )
        progress.end_here()
    if finals is not None:
        with Progress(finals.max_steps) as progress:
            ranked = hold(finals, run, ranked, jury, neighbours, progress.advance, progress.line)
            progress.end_here()
    columns = [*judges, *([] if finals is None else [TRAINING, PLAYOFF])]
    replace_text(run.folder.path / CANDIDATES, candidates_csv(ranked, columns))
    genotype = with_confidence(space, ranked[0].genotype, probabilities)
    return genotype, run.evaluate(genotype)


def candidates_csv(ranked: Sequence[Judged], judges: Sequence[str]) -> str:
    """The genotypes as text with their standing and the value of each judge, if it has one."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["architecture", "standing", *judges])
    for judged in ranked:
        values = [f"{value:.6g}" for value in (judged.standing, *judged.values)]
        missing = [""] * (len(judges) - len(judged.values))
        writer.writerow([genotype_text(judged.genotype), *values, *missing])
    return text.getvalue()
