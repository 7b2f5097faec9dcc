"""Who updates what, from which data, in which order.

`min_a L_val(w*(a), a)` subject to `w*(a) = argmin_w L_train(w, a)`: network weights w are trained
on one part of the data, architecture logits a on another. Every forward pass draws a fresh sample.

GDAS (Dong & Yang, 2019, arXiv:1910.04465, section 3) draws one for every image of a batch. Here a
batch may be split into groups of images, each with samples of its own: with G groups one update
averages over G architectures, for one pass over the images.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from nas.cost.budget import Budget
from nas.distributed import ALONE, Ranks
from nas.optimisation.finite import check_finite
from nas.optimisation.optimizers import Updater
from nas.sampling.baseline import RunningMean
from nas.supernet import Sample, Supernet

Batch = tuple[Tensor, Tensor]
"""Images `[B, C, H, W]` and labels int64 `[B]`."""

ORDERS = ("weights_first", "logits_first")


@dataclass(frozen=True)
class BatchResult:
    """What one forward pass showed; tensors stay on the device so that nothing waits for it."""

    loss: Tensor
    num_correct: Tensor
    num_images: int


@dataclass
class StepResult:
    """The results and samples of one step; one norm of the logits' gradient for each update."""

    weights: list[BatchResult]
    logits: list[BatchResult] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    logits_gradient_norms: list[float] = field(default_factory=list)


@dataclass
class Learner:
    """The parts of a search that every bilevel optimiser works on.

    Attributes:
        supernet: The supernet.
        draw: Draws a sample at the present temperature.
        weights: Updates the network weights.
        logits: Updates the architecture logits.
        draw_for_weights: Draws the samples of one group in a weight update; by default one from
            `draw`.
        autocast: Makes the context of forward passes (bf16 autocast or nothing).
        loss: Maps outputs `[B, classes]` and labels `[B]` to a scalar.
        baseline: Takes the mean inner product out of the noise of the logits' gradient.
        budget: Adds the gradient of the expected cost to that of the logits.
        ranks: The processes that update the same weights and logits.
    """

    supernet: Supernet
    draw: Callable[[], Sample]
    weights: Updater
    logits: Updater
    draw_for_weights: Callable[[], Sequence[Sample]] | None = None
    autocast: Callable[[], AbstractContextManager[object]] = nullcontext
    loss: Callable[[Tensor, Tensor], Tensor] = nn.functional.cross_entropy
    baseline: RunningMean | None = None
    budget: Budget | None = None
    ranks: Ranks = ALONE

    def weights_loss(self, batch: Batch, sample: Sample) -> tuple[Tensor, BatchResult]:
        """Runs the sampled child network, without any architecture gradient."""
        with self.autocast():
            outputs = self.supernet.forward(batch[0], sample)
            loss = self.loss(outputs, batch[1])
        return loss, _result(loss, outputs, batch[1])

    def logits_loss(self, batch: Batch, sample: Sample) -> tuple[Tensor, Tensor, BatchResult]:
        """Runs it with the handle for the gradient of the decisions."""
        with self.autocast():
            outputs, handle = self.supernet.forward_for_logits(batch[0], sample)
            loss = self.loss(outputs, batch[1])
        return loss, handle, _result(loss, outputs, batch[1])

    def decision_gradient(self, batch: Batch, sample: Sample) -> tuple[Tensor, BatchResult]:
        """`dL/dweights` of the sample, `[N, K]` on the host; asks for no weight gradients."""
        with _frozen(self.weights.parameters):
            loss, handle, result = self.logits_loss(batch, sample)
        gradient = None  # where no choice reaches the loss
        if loss.requires_grad:
            (gradient,) = torch.autograd.grad(loss, handle, allow_unused=True)
        return self.supernet.weights_gradient(sample, gradient), result

    def update_weights(
        self, batch: Batch, groups: int = 1
    ) -> tuple[list[BatchResult], list[Sample]]:
        """One update of the weights that any sample uses.

        Their gradient is the mean over `groups` of images, each with samples of its own; within a
        group it is the sum over the samples.

        Raises:
            NonFiniteLossError: on the host, the loss or gradient is NaN or infinite; nothing was
                updated.
            ValueError: the batch cannot be split into so many equal groups.
        """
        results: list[BatchResult] = []
        draw = self.draw_for_weights or (lambda: [self.draw()])
        # Each rank draws all samples, whoever runs them: their generators stay in step.
        drawn = [draw() for _ in range(groups)]
        own = self.ranks.own(drawn)
        for part, samples in zip(split(batch, len(own)), own, strict=True):
            for sample in samples:
                loss, result = self.weights_loss(part, sample)
                self.check_loss(result.loss, sample)
                if loss.requires_grad:  # some paths of a user's model have no weights
                    (loss / len(own)).backward()
                results.append(result)
        self.ranks.average_gradients(self.weights.parameters)
        self.weights.step()
        return results, [sample for samples in drawn for sample in samples]

    def check_loss(self, loss: Tensor, sample: Sample) -> None:
        """Raises a NonFiniteLossError, on all ranks, if the loss is NaN or infinite on one.

        On the host alone. Elsewhere reading it would wait for the device, and it is checked when it
        is shown.
        """
        if loss.device.type == "cpu":
            check_finite(self.ranks.mean(loss.item()), "training loss", sample)

    def update_logits(self, samples: Sequence[Sample], gradients: Sequence[Tensor]) -> float:
        """One update of the logits, by the chain rule from the decisions back to them.

        Args:
            samples: Whose gradients are averaged.
            gradients: `dL/dweights` of each, `[N, K]`.

        Returns:
            The norm of their gradient, before clipping.

        Raises:
            NonFiniteLossError: the gradient is NaN or infinite; nothing was updated.
        """
        if not samples[0].weights.requires_grad:
            return 0.0
        baseline = self.baseline
        for sample, gradient in zip(samples, gradients, strict=True):
            centred = gradient if baseline is None else baseline.centred(sample, gradient)
            sample.weights.backward(centred / len(samples))
        if baseline is not None:
            baseline.expectation().backward()
        if self.budget is not None:
            self.budget.add_gradient(self.supernet)
        norm = float(
            nn.utils.get_total_norm([p.grad for p in self.logits.parameters if p.grad is not None])
        )
        check_finite(norm, "gradient norm of the logits", samples[0])
        if baseline is not None:
            baseline.add(samples, gradients)  # after their use: it must not know of them
        self.logits.step()
        return norm


LogitsGradient = Callable[
    [Learner, Sequence[Sample], Batch, Batch], tuple[list[Tensor], list[BatchResult]]
]
"""(learner, samples, validation batch, training batch) -> gradients `[N, K]` and results."""


def first_order_gradient(
    learner: Learner, samples: Sequence[Sample], validation: Batch, train: Batch
) -> tuple[list[Tensor], list[BatchResult]]:
    """`dL_val(w, a)/da` at the present weights: DARTS with xi = 0, and GDAS."""
    found = [learner.decision_gradient(validation, sample) for sample in samples]
    return [gradient for gradient, _ in found], [result for _, result in found]


def score_function_gradient(
    learner: Learner, samples: Sequence[Sample], validation: Batch, train: Batch
) -> tuple[list[Tensor], list[BatchResult]]:
    """`L_val - b` at each sampled option, b the mean loss of the other samples.

    With the gradient of log p behind the samples this is REINFORCE with a leave-one-out baseline
    (Kool et al., 2019, "Buy 4 REINFORCE samples, get a baseline for free!"), an unbiased gradient
    of the expected loss. Forward passes are all it needs, and one copy from the device.
    """
    if len(samples) < 2:
        raise ValueError("the baseline of a sample is made of the others: draw at least two")
    with torch.no_grad():
        results = [learner.weights_loss(validation, sample)[1] for sample in samples]
    losses = torch.stack([result.loss for result in results]).to(learner.supernet.logits)
    advantages = (losses - losses.mean()) * len(samples) / (len(samples) - 1)
    gradients = [a * s.weights.detach() for a, s in zip(advantages, samples, strict=True)]
    return gradients, results


def split(batch: Batch, groups: int) -> list[Batch]:
    """The batch in so many equal groups, without a copy: the mean over them is that over images.

    Raises:
        ValueError: `groups` does not divide the number of images.
    """
    images, labels = batch
    if len(labels) % groups:
        raise ValueError(f"{len(labels)} images cannot be split into {groups} equal groups")
    return list(zip(images.chunk(groups), labels.chunk(groups), strict=True))


class Alternating:
    """Updates weights and logits in turn, on disjoint halves of the training data."""

    def __init__(
        self,
        learner: Learner,
        logits_gradient: LogitsGradient = first_order_gradient,
        *,
        order: str = "weights_first",
        weight_steps: int = 1,
        logits_steps: int = 1,
        logits_samples: int = 1,
        groups: int = 1,
    ) -> None:
        """Args:
        learner: What is trained.
        logits_gradient: First or second order, or from losses alone.
        order: Which of the two goes first.
        weight_steps: Weight updates in a round.
        logits_steps: Logits updates in a round.
        logits_samples: Samples whose gradients one logits update averages, on the same images.
        groups: Parts of each batch, each of which has samples of its own.
        """
        self.learner = learner
        self._logits_gradient = logits_gradient
        self._logits_first = order == "logits_first"
        self._weight_steps, self._logits_steps = weight_steps, logits_steps
        self._logits_samples, self._groups = logits_samples, groups

    def step(
        self,
        step: int,
        train: Batch,
        validation: Iterator[Batch],
        *,
        learn_logits: bool = True,
    ) -> StepResult:
        """One weight update and, where the round asks for them, the logits updates.

        Args:
            step: Number of the weight update, from 0; says where in the round this is.
            train: Batch for the weights.
            validation: Batches for the logits; as many as needed are taken.
            learn_logits: False while only the weights are trained (warm-up).
        """
        position = step % self._weight_steps
        due = position == (0 if self._logits_first else self._weight_steps - 1)
        rounds = self._logits_steps if learn_logits and due else 0
        updates: list[tuple[list[BatchResult], list[Sample], float]] = []
        if self._logits_first:
            updates += [self.update_logits(train, next(validation)) for _ in range(rounds)]
        weights, samples = self.learner.update_weights(train, self._groups)
        if not self._logits_first:
            updates += [self.update_logits(train, next(validation)) for _ in range(rounds)]
        return StepResult(
            weights,
            [result for results, _, _ in updates for result in results],
            [*samples, *(sample for _, drawn, _ in updates for sample in drawn)],
            [norm for _, _, norm in updates],
        )

    def update_logits(
        self, train: Batch, validation: Batch
    ) -> tuple[list[BatchResult], list[Sample], float]:
        """One update of the logits: results and samples, group by group, and the gradient's norm.

        Raises:
            ValueError: the batches cannot be split into the groups.
        """
        results: list[BatchResult] = []
        gradients: list[Tensor] = []
        learner, ranks = self.learner, self.learner.ranks
        drawn = [[learner.draw() for _ in range(self._logits_samples)] for _ in range(self._groups)]
        own = ranks.own(drawn)
        parts = zip(own, split(validation, len(own)), split(train, len(own)), strict=True)
        for samples, validation_part, train_part in parts:
            found, shown = self._logits_gradient(learner, samples, validation_part, train_part)
            results += shown
            gradients += found
        gradients = ranks.combined(gradients, shared=self._groups == 1)
        every = [sample for samples in drawn for sample in samples]
        return results, every, learner.update_logits(every, gradients)


class SingleLevel:
    """Updates weights and logits together, from one pass over the same batch."""

    def __init__(self, learner: Learner) -> None:
        self.learner = learner

    def step(
        self,
        step: int,
        train: Batch,
        validation: Iterator[Batch],
        *,
        learn_logits: bool = True,
    ) -> StepResult:
        """One update of both; takes nothing from `validation`."""
        learner = self.learner
        if not learn_logits:
            results, samples = learner.update_weights(train)
            return StepResult(results, [], samples)
        sample = learner.draw()
        loss, handle, result = learner.logits_loss(train, sample)
        learner.check_loss(result.loss, sample)
        loss.backward()
        own = [learner.supernet.weights_gradient(sample, handle.grad)]
        gradients = learner.ranks.combined(own, shared=True)
        # The logits first: they refuse a gradient that is not finite before anything has moved.
        norm = learner.update_logits([sample], gradients)
        learner.ranks.average_gradients(learner.weights.parameters)
        learner.weights.step()
        return StepResult([result], [result], [sample], [norm])


@contextmanager
def _frozen(parameters: list[Tensor]) -> Iterator[None]:
    """Graphs that are built inside lead to none of `parameters`, so they keep less."""
    trained = [p for p in parameters if p.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)


def _result(loss: Tensor, outputs: Tensor, labels: Tensor) -> BatchResult:
    correct = (outputs.detach().argmax(1) == labels).sum()
    return BatchResult(loss.detach(), correct, len(labels))
