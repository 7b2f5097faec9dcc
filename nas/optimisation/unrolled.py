"""The second-order gradient of the logits (DARTS, arXiv:1806.09055, equations 7 and 8).

The logits' gradient is taken through one step of the weights' real optimiser, SGD with momentum,
Nesterov, weight decay and clipping:

    w'(a) = w - xi * step(c * dL_train(w, a)/dw),
    dL_val(w'(a), a)/da = dL_val/da (w', a) - d/da <dL_train(w, a)/dw, u>,   u = J v

with `v = dL_val/dw'` and J the (symmetric) Jacobian of the step with respect to the gradient. The
mixed second derivative along u is a central finite difference: two more passes, no Hessian.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nas.deriving.recalibration import buffers_restored, generators_restored
from nas.errors import UserError
from nas.optimisation.bilevel import Batch, BatchResult, Learner
from nas.optimisation.optimizers import Updater
from nas.supernet import Sample


@dataclass(frozen=True)
class SecondOrder:
    """The unrolled gradient as a strategy of `nas.optimisation.bilevel.Alternating`.

    Attributes:
        radius: The finite difference moves the weights by this much in norm (DARTS: 1e-2).
    """

    radius: float = 1e-2

    def __call__(
        self, learner: Learner, samples: Sequence[Sample], validation: Batch, train: Batch
    ) -> tuple[list[Tensor], list[BatchResult]]:
        """The gradient of each sample, see `gradient`, and its result."""
        found = [self.gradient(learner, sample, validation, train) for sample in samples]
        return [gradient for gradient, _ in found], [result for _, result in found]

    def gradient(
        self, learner: Learner, sample: Sample, validation: Batch, train: Batch
    ) -> tuple[Tensor, BatchResult]:
        """Gradient `[N, K]` of the decisions; weights, buffers and optimiser end as they were.

        The same sample is used in all four passes: it is one function that is differentiated.

        Raises:
            UserError: the weights' optimiser is not SGD.
        """
        if learner.weights.settings.name != "sgd":
            raise UserError("bilevel=second_order unrolls SGD: set weights.name to sgd")
        model = learner.supernet.model
        with buffers_restored(model):
            gradients = _weight_gradients(learner, sample, train)
            learner.ranks.average(gradients.values())
            with _moved(_unrolled_step(learner.weights, gradients)):
                loss, handle, result = learner.logits_loss(validation, sample)
                inputs = [handle, *gradients]
                first, *vector = torch.autograd.grad(loss, inputs, allow_unused=True)
            learner.ranks.average(part for part in vector if part is not None)
            gradient = learner.supernet.weights_gradient(sample, first)
            direction = _through_the_step(learner.weights, gradients, vector)
            gradient -= self._mixed_derivative(learner, sample, train, direction)
        return gradient, result

    def _mixed_derivative(
        self,
        learner: Learner,
        sample: Sample,
        train: Batch,
        direction: dict[Tensor, Tensor],
    ) -> Tensor:
        """`d/da <dL_train(w, a)/dw, direction>` by central differences."""
        norm = float(_norm(direction.values()))
        if norm == 0.0:
            return torch.zeros_like(learner.supernet.logits)
        distance = self.radius / norm
        sides = []
        for sign in (1, -1):
            moved = _moved({p: sign * distance * d for p, d in direction.items()})
            # Both sides drop the same units, where a user's model has dropout: the difference of
            # two functions, divided by so little, would be noise.
            with moved, generators_restored(learner.supernet.device):
                sides.append(learner.decision_gradient(train, sample)[0])
        return (sides[0] - sides[1]) / (2 * distance)


def _weight_gradients(learner: Learner, sample: Sample, train: Batch) -> dict[Tensor, Tensor]:
    """`dL_train/dw` of the weights that the sample uses."""
    parameters = [p for p in learner.weights.parameters if p.requires_grad]
    loss, _ = learner.weights_loss(train, sample)
    if not loss.requires_grad:  # the path has no weights
        return {}
    loss.backward()  # a supernet that runs as graphs knows no other way to its weights
    gradients = {p: p.grad for p in parameters if p.grad is not None}
    learner.weights.zero_grad()
    return gradients


def _clip_factor(updater: Updater, gradients: dict[Tensor, Tensor]) -> float:
    limit = updater.settings.clip_norm
    if limit <= 0:
        return 1.0
    # As torch.nn.utils.clip_grad_norm_ computes it.
    return min(1.0, limit / (float(_norm(gradients.values())) + 1e-6))


def _unrolled_step(updater: Updater, gradients: dict[Tensor, Tensor]) -> dict[Tensor, Tensor]:
    """How far the real optimiser would move each weight."""
    group = updater.optimizer.param_groups[0]
    rate, momentum, decay = group["lr"], group["momentum"], group["weight_decay"]
    factor = _clip_factor(updater, gradients)
    moves = {}
    for parameter, gradient in gradients.items():
        decayed = factor * gradient + decay * parameter.detach()
        buffer = updater.optimizer.state[parameter].get("momentum_buffer")
        velocity = decayed if buffer is None else momentum * buffer + decayed
        step = decayed + momentum * velocity if group["nesterov"] else velocity
        moves[parameter] = -rate * step
    return moves


def _through_the_step(
    updater: Updater, gradients: dict[Tensor, Tensor], vector: Sequence[Tensor | None]
) -> dict[Tensor, Tensor]:
    """`-dw'/dgradient` applied to `vector`: learning rate, Nesterov and clipping.

    Clipping scales by c = limit / |g| where |g| exceeds the limit, and its Jacobian
    c (I - g g^T / |g|^2) takes out the part along g.
    """
    group = updater.optimizer.param_groups[0]
    scale = group["lr"] * (1 + group["momentum"] if group["nesterov"] else 1.0)
    present = {p: v for (p, _), v in zip(gradients.items(), vector, strict=True) if v is not None}
    factor = _clip_factor(updater, gradients)
    if factor < 1.0:
        squared = float(_norm(gradients.values())) ** 2
        along = sum(float((gradients[p] * v).sum()) for p, v in present.items()) / squared
        zero = torch.zeros(())
        present = {
            p: factor * (present.get(p, zero.to(g.device)) - along * g)
            for p, g in gradients.items()
        }
    return {p: scale * v for p, v in present.items()}


def _norm(tensors: Iterable[Tensor]) -> Tensor:
    return nn.utils.get_total_norm(list(tensors))


@contextmanager
def _moved(moves: dict[Tensor, Tensor]) -> Iterator[None]:
    """Adds `moves` to the weights for the duration; puts back the very same values."""
    saved = {parameter: parameter.detach().clone() for parameter in moves}
    with torch.no_grad():
        for parameter, move in moves.items():
            parameter.add_(move)
    try:
        yield
    finally:
        with torch.no_grad():
            for parameter, value in saved.items():
                parameter.copy_(value)
