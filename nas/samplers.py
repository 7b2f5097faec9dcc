"""How a sample is drawn from the logits and what its gradient is.

A sampler is a function `(logits, temperature, generator) -> Sample` with logits `[N, K]` on the
host. Whether one path runs or all is stated by the sample itself.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nas.estimators import rao_blackwell, reinmax
from nas.gumbel import gumbel_max, gumbel_noise, gumbel_softmax, straight_through
from nas.registry import Registry
from nas.supernet import Sample, Supernet

GUMBEL_RAO_SAMPLES = 100
"""Relaxed samples that are averaged; they are drawn on the host, in a fraction of a millisecond."""

Draw = Callable[[Tensor, float, torch.Generator], Sample]


@dataclass(frozen=True)
class Sampler:
    """A way to draw samples.

    Attributes:
        draw: The function that draws one.
        learns: Whether a sample has a gradient with respect to the logits.
        uses_temperature: Whether the temperature matters.
    """

    draw: Draw
    learns: bool = True
    uses_temperature: bool = True


SAMPLERS: Registry[Sampler] = Registry("sampler")


def _gdas(logits: Tensor, temperature: float, generator: torch.Generator) -> Sample:
    """One path by Gumbel-max, straight-through gradient (GDAS, arXiv:1910.04465, eq. 5-7)."""
    noise = gumbel_noise(tuple(logits.shape), generator)
    relaxed = gumbel_softmax(logits, noise, temperature)
    # Not the argmax of the relaxed sample, whose entries may tie at a high temperature.
    indices = gumbel_max(logits.detach(), noise)
    hard = nn.functional.one_hot(indices, logits.shape[-1]).to(logits.dtype)
    return Sample(straight_through(hard, relaxed), tuple(indices.tolist()))


def _gumbel_rao(logits: Tensor, temperature: float, generator: torch.Generator) -> Sample:
    """One path; GDAS's gradient averaged over the noise that leads to it (arXiv:2010.04838)."""
    indices = gumbel_max(logits.detach(), gumbel_noise(tuple(logits.shape), generator))
    weights = rao_blackwell(logits, indices, temperature, GUMBEL_RAO_SAMPLES, generator)
    return Sample(weights, tuple(indices.tolist()))


def _reinmax(logits: Tensor, temperature: float, generator: torch.Generator) -> Sample:
    """One path, the second-order gradient of ReinMax (arXiv:2304.08612)."""
    indices = gumbel_max(logits.detach(), gumbel_noise(tuple(logits.shape), generator))
    return Sample(reinmax(logits, indices, temperature), tuple(indices.tolist()))


def _gumbel_softmax(logits: Tensor, temperature: float, generator: torch.Generator) -> Sample:
    """All operations, weighted by a relaxed sample (SNAS, arXiv:1812.09926)."""
    noise = gumbel_noise(tuple(logits.shape), generator)
    return Sample(gumbel_softmax(logits, noise, temperature), None)


def _softmax(logits: Tensor, temperature: float, generator: torch.Generator) -> Sample:
    """All operations, weighted by softmax(logits): DARTS (arXiv:1806.09055). Samples nothing."""
    return Sample(logits.softmax(-1), None)


def _uniform(logits: Tensor, temperature: float, generator: torch.Generator) -> Sample:
    """One path, every option equally likely (single-path one-shot, arXiv:1904.00420)."""
    allowed = logits.detach().isfinite().float()
    indices = torch.multinomial(allowed, 1, generator=generator)[:, 0]
    weights = nn.functional.one_hot(indices, logits.shape[1]).to(logits.dtype)
    return Sample(weights, tuple(indices.tolist()))


SAMPLERS.register("gdas")(Sampler(_gdas))
SAMPLERS.register("gumbel_rao")(Sampler(_gumbel_rao))
SAMPLERS.register("reinmax")(Sampler(_reinmax))
SAMPLERS.register("gumbel_softmax")(Sampler(_gumbel_softmax))
SAMPLERS.register("softmax")(Sampler(_softmax, uses_temperature=False))
SAMPLERS.register("uniform")(Sampler(_uniform, learns=False, uses_temperature=False))


def linear_temperature(start: float, end: float, epoch: int, epochs: int) -> float:
    """Temperature of `epoch` (from 0) on the straight line from `start` to `end`.

    The last epoch has `end`, as in the reference code of GDAS.
    """
    share = epoch / max(epochs - 1, 1)
    return start + (end - start) * share


class SampleSource:
    """Draws samples for a supernet at a temperature that the search sets epoch by epoch.

    Attributes:
        temperature: The present temperature.
    """

    def __init__(
        self,
        supernet: Supernet,
        sampler: Sampler,
        generator: torch.Generator,
        temperature: float = 1.0,
    ) -> None:
        self.supernet, self.sampler, self.generator = supernet, sampler, generator
        self.temperature = temperature

    def __call__(self) -> Sample:
        """Draws one sample."""
        logits = self.supernet.masked_logits()
        return self.sampler.draw(logits, self.temperature, self.generator)
