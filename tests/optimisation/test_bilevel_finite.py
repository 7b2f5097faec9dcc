"""Losses and gradients that have left the finite: nothing is updated by them."""

import math

import pytest
import torch
from learner_helpers import batch, batches, logits_of, make_learner, nothing, same, weights_of
from torch import Tensor

from nas.optimisation.bilevel import Alternating, Batch, SingleLevel
from nas.optimisation.finite import NonFiniteLossError
from nas.sampling.samplers import SAMPLERS


def broken(value: float) -> Batch:
    images, labels = batch(0)
    return torch.full_like(images, value), labels


@pytest.mark.parametrize("sampler", list(SAMPLERS))
@pytest.mark.parametrize(
    "kind", [lambda learner: Alternating(learner), SingleLevel], ids=["alternating", "single"]
)
def test_a_training_loss_that_is_not_finite_stops_before_any_update(
    kind: type[SingleLevel], sampler: str
) -> None:
    learner = make_learner(sampler, momentum=0.9)
    weights, logits = weights_of(learner), logits_of(learner)
    with pytest.raises(NonFiniteLossError, match=r"training loss is nan: lower the learning rate"):
        kind(learner).step(0, broken(math.nan), batches())
    assert same(weights, weights_of(learner)) and torch.equal(logits, logits_of(learner))
    assert not learner.weights.optimizer.state and not learner.logits.optimizer.state


@pytest.mark.parametrize("sampler", ["gdas", "gumbel_softmax", "softmax"])
def test_a_validation_loss_that_is_not_finite_stops_before_the_logits_move(sampler: str) -> None:
    learner = make_learner(sampler)
    weights, logits = weights_of(learner), logits_of(learner)
    alternating = Alternating(learner, order="logits_first")
    with pytest.raises(NonFiniteLossError, match="gradient norm of the logits is nan"):
        alternating.step(0, batch(0), iter([broken(math.nan)]))
    assert same(weights, weights_of(learner)) and torch.equal(logits, logits_of(learner))


def test_single_level_checks_the_logits_before_it_moves_the_weights() -> None:
    """As on a GPU, where the loss itself is not read in the step."""
    learner = make_learner("softmax")

    class Exploding(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, x: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: object, grad: Tensor) -> Tensor:
            return grad * math.inf

    learner.loss = lambda outputs, labels: Exploding.apply(outputs).square().mean()
    weights, logits = weights_of(learner), logits_of(learner)
    with pytest.raises(NonFiniteLossError, match="gradient norm"):
        SingleLevel(learner).step(0, batch(0), nothing())
    assert same(weights, weights_of(learner)) and torch.equal(logits, logits_of(learner))
