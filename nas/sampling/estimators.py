"""Gradients of a draw, beyond plain straight-through.

For one path: each function gives weights whose value is the one-hot draw and whose backward pass
is the estimator, as `nas.sampling.gumbel.straight_through` does for GDAS. For mixtures:
`dirichlet`. Shapes are those of `nas.sampling.gumbel`: logits and results `[..., K]`,
indices `[...]`.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from nas.sampling.gumbel import gumbel_softmax, straight_through


def conditional_gumbel_noise(logits: Tensor, indices: Tensor, generator: torch.Generator) -> Tensor:
    """Draws Gumbel noise from its distribution given that Gumbel-max picks `indices`.

    The largest perturbed log-probability is a standard Gumbel variable whatever the index, and the
    others are Gumbel variables truncated there (Maddison et al., 2014, arXiv:1411.0030; Paulus et
    al., 2021, arXiv:2010.04838, equation 9). Options with logit -inf get noise 0.

    Returns:
        `[..., K]`, float32 at least, without a gradient.
    """
    log_p = logits.detach().log_softmax(-1)
    exponential = torch.empty_like(log_p).exponential_(generator=generator)
    exponential.clamp_min_(torch.finfo(log_p.dtype).tiny)
    chosen = nn.functional.one_hot(indices, logits.shape[-1]).bool()
    top = exponential.gather(-1, indices[..., None])  # exp(-maximum)
    perturbed = torch.where(chosen, -top.log(), -(exponential / log_p.exp() + top).log())
    return torch.where(log_p.isfinite(), perturbed - log_p, 0.0)


def rao_blackwell(
    logits: Tensor,
    indices: Tensor,
    temperature: float,
    num_samples: int,
    generator: torch.Generator,
) -> Tensor:
    """Straight-through with the relaxed sample averaged over the noise that leads to the draw.

    Gumbel-Rao (Paulus et al., 2021, arXiv:2010.04838): the same expectation as GDAS's gradient and
    never more variance, at no cost on the device: the operation that runs is the same.

    Args:
        logits: `[..., K]`.
        indices: What was drawn.
        temperature: Of the relaxed samples.
        num_samples: How many are averaged.
        generator: Source of their noise.
    """
    many = logits.expand(num_samples, *logits.shape)
    noise = conditional_gumbel_noise(many, indices.expand(num_samples, *indices.shape), generator)
    relaxed = gumbel_softmax(many, noise, temperature).mean(0)
    return straight_through(_one_hot(indices, logits), relaxed)


def reinmax(logits: Tensor, indices: Tensor, temperature: float) -> Tensor:
    """ReinMax (Liu et al., 2023, arXiv:2304.08612, algorithm 2): accurate to second order.

    Heun's method instead of Euler's for the difference that straight-through approximates: at
    temperature 1 its expectation is exact for functions that are quadratic in the draw, where all
    entries of their gradient are known.
    """
    hard = _one_hot(indices, logits)
    probabilities = logits.softmax(-1)
    middle = (hard + (logits / temperature).softmax(-1).detach()) / 2
    # The logits that have these probabilities, with the gradient of the given ones.
    shift = middle.log() - logits.log_softmax(-1).detach()
    shift = shift.masked_fill(middle == 0, 0.0)
    middle = (logits.log_softmax(-1) + shift).softmax(-1)
    return straight_through(hard, 2 * middle - probabilities / 2)


def dirichlet_concentration(logits: Tensor) -> Tensor:
    """beta = elu(logits) + 1 (DrNAS, Chen et al., 2021, arXiv:2006.10355).

    Not as -1 + 1, which would round beta to 0 for logits below -17 in float32. A logit of 0 is the
    flat distribution, beta = 1; a logit of -inf has beta = 0.
    """
    is_positive = logits > 0
    return logits.masked_fill(is_positive, 0.0).exp() + logits.masked_fill(~is_positive, 0.0)


def dirichlet(concentration: Tensor, generator: torch.Generator) -> Tensor:
    """Draws from `Dirichlet(concentration)` with the pathwise gradient that DrNAS uses:

        dw_i/dbeta_j = -(dF/dbeta_j)(w_j) / f(w_j) * (delta_ij - w_i) / (1 - w_j)

    with F and f the distribution function and density of `Beta(beta_j, sum(beta) - beta_j)`
    (Jankowiak & Obermeyer, 2018, arXiv:1806.01851). Normalised gamma draws, each with its own
    pathwise gradient, have the same expectation and more variance: their sum is noise, too.

    Args:
        concentration: `[..., K]`, not negative, one of each row positive. Options with 0 get weight
            0, and no gradient.
        generator: Source of the noise.
    """
    weights: Tensor = _Dirichlet.apply(concentration, generator)
    return weights


class _Dirichlet(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, concentration: Tensor, generator: torch.Generator) -> Tensor:
        beta = concentration.double()
        # Gamma(beta) = Gamma(beta + 1) * U^(1 / beta), taken as logarithms: for a small beta most
        # draws would be below the smallest number.
        exponential = torch.empty_like(beta).exponential_(generator=generator)
        exponential.clamp_min_(torch.finfo(beta.dtype).tiny)
        log_gamma = torch._standard_gamma(beta + 1, generator=generator).log() - exponential / beta
        weights = log_gamma.softmax(-1)
        ctx.save_for_backward(weights, beta)
        return weights.to(concentration.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        weights, beta = ctx.saved_tensors
        total = beta.sum(-1, keepdim=True).expand_as(beta)
        inside = weights.clamp(torch.finfo(beta.dtype).tiny, 1 - torch.finfo(beta.dtype).eps)
        speed = torch._dirichlet_grad(inside, beta, total)  # dw_j/dbeta_j / (1 - w_j)
        # Neither what cannot be drawn nor what is alone in its row can move.
        speed = torch.where((beta > 0) & (beta < total), speed, 0.0)
        along = grad - (weights * grad).sum(-1, keepdim=True)
        return (speed * along).to(grad.dtype), None


def _one_hot(indices: Tensor, logits: Tensor) -> Tensor:
    return nn.functional.one_hot(indices, logits.shape[-1]).to(logits.dtype)
