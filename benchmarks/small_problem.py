"""The estimators on one choice whose gradients can be computed exactly.

One edge with three options: `none`, whose output is 0, and two that give numbers. The loss is
`(z - 1)^2 / 2` of the edge's output z. Small as it is, it has what matters in a search: the loss is
no linear function of the choice, and the two good options are good on different sides of their best
scale.

Expectations over the noise are integrals, and here they need no sampling: relaxed samples depend on
the noise `g = -log E` by the ratios of the exponentials E alone, and `E / sum(E)` is uniform on the
simplex. So a fine grid on a triangle does it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import product

import torch
from torch import Tensor

from nas.sampling.estimators import reinmax
from nas.sampling.gumbel import gumbel_max, gumbel_softmax, straight_through

OUTPUTS = torch.tensor([0.0, 0.5, 1.5], dtype=torch.float64)
"""What each option puts out; the first is `none`."""

LOGITS = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64).log()
SAMPLES = 4
"""Draws that one update averages, as in docs/estimators.md."""


def loss(output: Tensor) -> Tensor:
    """Loss of an output of the edge."""
    return (output - 1) ** 2 / 2


def inner_products() -> Tensor:
    """`<dL/dout, o_k>` when option k runs alone, `[K]`."""
    return (OUTPUTS - 1) * OUTPUTS


def exact_gradient() -> Tensor:
    """Gradient of the expected loss of one path, `p_j (L_j - sum_k p_k L_k)`, `[K]`."""
    p, losses = LOGITS.softmax(-1), loss(OUTPUTS)
    return p * (losses - (p * losses).sum())


@dataclass(frozen=True)
class Moments:
    """What an estimator gives for one draw.

    Attributes:
        mean: Its expectation, `[K]`.
        variance: Trace of its covariance.
    """

    mean: Tensor
    variance: float

    def bias(self) -> float:
        """`||E[g] - g*|| / ||g*||`."""
        exact = exact_gradient()
        return float((self.mean - exact).norm() / exact.norm())

    def cosine(self) -> float:
        """Between `E[g]` and `g*`."""
        return float(torch.cosine_similarity(self.mean, exact_gradient(), dim=0))

    def deviation(self, num_draws: int = SAMPLES) -> float:
        """Standard deviation of the mean of so many draws, to `||g*||`."""
        return float((self.variance / num_draws) ** 0.5 / exact_gradient().norm())


def noise_grid(num: int) -> Tensor:
    """Gumbel noise, up to a shift that changes no sample, `[num^2, 3]`, all equally likely.

    Centres of the `num^2` equal triangles that a triangle is cut into.
    """
    row, column = torch.meshgrid(torch.arange(num), torch.arange(num), indexing="ij")
    up = torch.stack([row, column], -1).reshape(-1, 2)[(row + column < num).flatten()]
    down = torch.stack([row, column], -1).reshape(-1, 2)[(row + column < num - 1).flatten()]
    first_two = torch.cat([up.double() + 1 / 3, down.double() + 2 / 3]) / num
    exponential = torch.cat([first_two, 1 - first_two.sum(-1, keepdim=True)], -1)
    return -exponential.log()


def gdas(temperature: float, noise: Tensor) -> Tensor:
    """The one-path gradient for each row of the noise, `[len(noise), K]`."""
    logits = LOGITS.expand_as(noise).clone().requires_grad_()
    indices = gumbel_max(logits.detach(), noise)
    hard = torch.nn.functional.one_hot(indices, 3).double()
    weights = straight_through(hard, gumbel_softmax(logits, noise, temperature))
    # Only the option that was drawn has run, so only its entry has an inner product.
    return _gradient((weights * hard * inner_products()).sum(), logits)


def all_outputs(temperature: float, noise: Tensor) -> Tensor:
    """Straight-through with the outputs of all options known, at the slope of the one drawn."""
    logits = LOGITS.expand_as(noise).clone().requires_grad_()
    slope = OUTPUTS[gumbel_max(logits.detach(), noise)] - 1
    weights = gumbel_softmax(logits, noise, temperature)
    return _gradient((slope * (weights * OUTPUTS).sum(-1)).sum(), logits)


def relaxed(temperature: float, noise: Tensor) -> Tensor:
    """The gradient of the loss of the relaxed mixture, all options run (SNAS)."""
    logits = LOGITS.expand_as(noise).clone().requires_grad_()
    weights = gumbel_softmax(logits, noise, temperature)
    return _gradient(loss((weights * OUTPUTS).sum(-1)).sum(), logits)


def _gradient(value: Tensor, logits: Tensor) -> Tensor:
    (gradient,) = torch.autograd.grad(value, logits)
    return gradient


def moments(gradients: Tensor, weights: Tensor | None = None) -> Moments:
    """Of gradients `[N, K]` with probabilities `[N]`; without: all equally likely."""
    n = len(gradients)
    weights = torch.full((n,), 1 / n, dtype=torch.float64) if weights is None else weights
    mean = weights @ gradients
    return Moments(mean, float(weights @ (gradients - mean).square().sum(-1)))


def gdas_moments(temperature: float, noise: Tensor) -> Moments:
    """Of `sampler=gdas`."""
    return moments(gdas(temperature, noise))


def gumbel_rao_moments(temperature: float, noise: Tensor) -> Moments:
    """Of `sampler=gumbel_rao` in the limit of many relaxed samples: the mean for each draw."""
    gradients, drawn = gdas(temperature, noise), gumbel_max(LOGITS, noise)
    means = torch.stack([gradients[drawn == k].mean(0) for k in range(3)])
    return moments(means, torch.bincount(drawn).double() / len(drawn))


def relaxed_moments(temperature: float, noise: Tensor) -> Moments:
    """Of `sampler=gumbel_softmax`."""
    return moments(relaxed(temperature, noise))


def all_outputs_moments(temperature: float, noise: Tensor) -> Moments:
    """Of straight-through with all outputs, which costs a pass through every option."""
    return moments(all_outputs(temperature, noise))


def reinmax_moments(*, all_known: bool = False) -> Moments:
    """Of `sampler=reinmax` at temperature 1, or of ReinMax with all outputs known."""
    logits = LOGITS.expand(3, 3).clone().requires_grad_()
    weights = reinmax(logits, torch.arange(3), 1.0)  # row k: when k was drawn
    products = (OUTPUTS - 1)[:, None] * OUTPUTS  # of row k: dL/dout at o_k with every output
    known = torch.ones(3, 3) if all_known else torch.eye(3)
    gradients = _gradient((weights * products * known).sum(), logits)
    return moments(gradients, LOGITS.softmax(-1))


def softmax_moments() -> Moments:
    """Of `sampler=softmax`, which draws nothing."""
    logits = LOGITS.clone().requires_grad_()
    gradient = _gradient(loss((logits.softmax(-1) * OUTPUTS).sum()), logits)
    return Moments(gradient, 0.0)


def score_function_moments(num_draws: int = SAMPLES) -> Moments:
    """Of `sampler=score_function`: one update of `num_draws`, over all its outcomes.

    The variance is times `num_draws`, as if it were the mean of independent draws.
    """
    p, losses = LOGITS.softmax(-1), loss(OUTPUTS)
    drawn = torch.tensor(list(product(range(3), repeat=num_draws)))
    found = losses[drawn]
    baseline = (found.sum(1, keepdim=True) - found) / (num_draws - 1)
    scores = torch.eye(3, dtype=torch.float64)[drawn] - p
    update = moments(((found - baseline)[..., None] * scores).mean(1), p[drawn].prod(1))
    return Moments(update.mean, update.variance * num_draws)


TEMPERED: dict[str, Callable[[float, Tensor], Moments]] = {
    "gdas": gdas_moments,
    "gumbel_rao": gumbel_rao_moments,
    "straight-through, all outputs": all_outputs_moments,
    "gumbel_softmax": relaxed_moments,
}
FIXED: dict[str, Callable[[], Moments]] = {
    "reinmax": reinmax_moments,
    "ReinMax, all outputs": partial(reinmax_moments, all_known=True),
    "softmax": softmax_moments,
    "score_function": score_function_moments,
}
