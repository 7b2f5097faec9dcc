"""How fast an architecture learns from the supernet's weights on: a judge of genotypes.

The accuracy under shared weights says how well the weights suit an architecture, of which most of
the training was spent on others. A few steps of its own say how well it trains.
"""

import math
from collections.abc import Sequence
from itertools import islice

import torch
from torch import Tensor

from nas.genotype import Genotype
from nas.optimisation.finite import NonFiniteLossError
from nas.training.search import Search

TUNING_STEPS = 20
LEARNING_RATE_FACTOR = 0.2
"""Of the learning rate that the search began with."""


def tuning_loss(run: Search, genotype: Genotype) -> float:
    """The loss per image in the second half of a few steps of `genotype` alone.

    Infinite if it diverges. The steps are the same for all: training images from the first on,
    the optimiser anew. Weights and buffers are put back, so that nobody can tell that anything was
    asked.

    Args:
        run: The finished search.
        genotype: Whose weights are tuned.
    """
    model, settings = run.supernet.model, run.learner.weights.settings
    sample = run.supernet.fixed(genotype.choices)
    saved = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    updater = run.learner.weights.restarted(LEARNING_RATE_FACTOR * settings.learning_rate)
    losses = []
    model.train()
    try:
        for batch in islice(run.data.train.epoch(0), TUNING_STEPS):
            loss, result = run.learner.weights_loss(batch, sample)
            if loss.requires_grad:  # some cells have nothing to train
                loss.backward()
                updater.step()
            losses.append(result.loss)
    except NonFiniteLossError:  # a norm to be clipped
        return math.inf
    finally:
        updater.zero_grad()
        model.load_state_dict(saved)
    return mean_of_second_half(losses)


def mean_of_second_half(losses: Sequence[Tensor]) -> float:
    """Of the losses of the steps of a short training; infinite where it diverged."""
    mean = float(torch.stack(list(losses[len(losses) // 2 :])).mean())
    return mean if math.isfinite(mean) else math.inf
