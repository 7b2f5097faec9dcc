"""Derives from a finished search by perturbation: its data, its weights, and what is shown."""

import logging
from collections.abc import Callable
from dataclasses import replace

import torch

from nas.data import Cycle
from nas.data.order import derived_seed
from nas.deriving.perturbation import Decision, Perturbation
from nas.genotype import Genotype
from nas.monitor.console import Progress
from nas.optimisation.finite import check_finite
from nas.supernet import Sample
from nas.training.loop import FILE_LOGGER
from nas.training.search import Search

LEARNING_RATE_FACTOR = 0.1
"""Of the learning rate that a tuning has, as in the authors' code: theirs starts anew with it."""


def by_perturbation(
    run: Search, *, num_paths: int, max_images: int | None, tuning_steps: int, seed: int
) -> tuple[Genotype, float]:
    """The genotype that `nas.deriving.perturbation` finds, and its accuracy.

    The supernet's weights are then those of the last tuning, and its masks leave one option a
    choice. No checkpoint is written, so a run that is resumed derives from where the search ended.

    Args:
        run: The finished search.
        num_paths: See `nas.deriving.perturbation`.
        max_images: Validation images for each evaluation; None for all.
        tuning_steps: Updates of the weights between two decisions.
        seed: Of the order and the paths.
    """
    perturbation = Perturbation(
        space=run.space,
        supernet=run.supernet,
        sampler=run.source.sampler,
        num_paths=num_paths,
        generator=torch.Generator().manual_seed(derived_seed(seed, "perturbation")),
        evaluate=lambda sample: run.evaluate_sample(sample, max_images),
        tune=_tuning(run, tuning_steps),
    )
    with Progress(perturbation.num_evaluations, unit="evaluation") as progress:
        display = _Display(progress)
        shown = replace(
            perturbation, on_evaluation=display.evaluation, on_decision=display.decision
        )
        genotype = shown.derive()
    return genotype, run.evaluate(genotype)


def _tuning(run: Search, num_steps: int) -> Callable[[Sample | None], None]:
    """Trains the weights for `num_steps`, on the training batches that follow those of the search.

    Under a given sample or, where it is None, under such as the search has trained them with.
    """
    settings, batches = run.learner.weights.settings, Cycle(run.data.train, run.step)
    weights = run.learner.weights.restarted(LEARNING_RATE_FACTOR * settings.learning_rate)
    learner = replace(run.learner, weights=weights)
    # That of the last epoch, also where a finished search has just been loaded.
    run.source.temperature = run.schedule.temperature(run.epoch - 1)

    def tune(sample: Sample | None) -> None:
        present = learner
        if sample is not None:
            present = replace(learner, draw=lambda: sample, draw_for_weights=None)
        run.supernet.model.train()
        for _ in range(num_steps):
            results, _ = present.update_weights(next(batches))
            loss = results[-1].loss
        if num_steps:
            check_finite(loss.item(), "training loss")

    return tune


class _Display:
    """Shows the evaluations as a bar and the decisions as lines."""

    def __init__(self, progress: Progress) -> None:
        self._progress, self._count = progress, 0

    def evaluation(self) -> None:
        self._count += 1
        self._progress.update(self._count)

    def decision(self, decision: Decision) -> None:
        costs = (f"{name} {accuracy:.2f}" for name, accuracy in decision.accuracies.items())
        line = f"{decision.name}: {', '.join(decision.kept)}  (% without: {', '.join(costs)})"
        self._progress.line(line)
        logging.getLogger(FILE_LOGGER).info(line)
