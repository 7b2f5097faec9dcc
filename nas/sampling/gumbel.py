"""Gumbel noise, Gumbel-max, Gumbel-softmax and the straight-through estimator.

Pure functions of tensors. Noise is an input that comes from an explicit generator, so the path
from logits to sample is differentiable (reparameterisation: Jang et al., 2017, arXiv:1611.01144;
Maddison et al., 2017, arXiv:1611.00712) and the same generator state replays the same samples.

Shapes: the last dimension holds the K options, all others are batch dimensions (one row of logits
per choice). Arithmetic is done in float32 at least, and the result has the dtype of the logits.
"""

import torch
from torch import Tensor


def gumbel_noise(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Draws independent standard Gumbel noise, float32, on the generator's device.

    `g = -log(E)` with `E ~ Exponential(1)`, which is `-log(-log u)` without its two cancellations.
    The clamp keeps g finite should the generator give an exact 0 (probability 2^-24 a draw).
    """
    exponential = torch.empty(shape, device=generator.device).exponential_(generator=generator)
    return -exponential.clamp_min_(torch.finfo(torch.float32).tiny).log_()


def gumbel_max(logits: Tensor, noise: Tensor) -> Tensor:
    """Returns the index of the sampled option, int64 `[...]`, for logits and noise `[..., K]`.

    The index is an exact sample of `Categorical(softmax(logits))` and, unlike the relaxed sample,
    does not depend on a temperature. Options with logit -inf are never drawn.
    """
    return (_at_least_float32(logits).log_softmax(-1) + noise).argmax(-1)


def gumbel_softmax(logits: Tensor, noise: Tensor, temperature: float) -> Tensor:
    """Returns the relaxed sample `softmax((log p + g) / t)`, `[..., K]`, p = softmax(logits).

    It tends to the uniform distribution for high temperatures and to the one-hot vector of
    `gumbel_max` for low ones; its expectation is not softmax(logits).

    Raises:
        ValueError: the temperature is not a positive finite number.
    """
    if not 0.0 < temperature < float("inf"):
        raise ValueError(f"temperature is {temperature}: must be positive and finite")
    perturbed = _at_least_float32(logits).log_softmax(-1) + noise
    # Shifting by the maximum before the division changes nothing in exact arithmetic and keeps
    # every quotient at or below 0: positive noise over a temperature near 0 would be inf.
    shifted = perturbed - perturbed.detach().amax(-1, keepdim=True)
    return (shifted / temperature).softmax(-1).to(logits.dtype)


def straight_through(hard: Tensor, relaxed: Tensor) -> Tensor:
    """Returns `hard` in the forward pass with the gradient of `relaxed` in the backward pass.

    `h + y - stop_gradient(y)` (Bengio et al., 2013), written so that the forward value is `hard`
    to the bit: with the plain formula 1 + y - y may differ from 1 by rounding.
    """
    return hard.detach() + (relaxed - relaxed.detach())


def _at_least_float32(logits: Tensor) -> Tensor:
    return logits if logits.dtype == torch.float64 else logits.float()
