"""How a sample is drawn from the logits and what its gradient is.

A sampler is a function `(logits, temperature, generator) -> Sample` with logits `[N, K]` on the
host. Whether one path runs or all is stated by the sample itself.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from nas.registry import Registry
from nas.sampling.estimators import dirichlet, dirichlet_concentration, rao_blackwell, reinmax
from nas.sampling.gumbel import gumbel_max, gumbel_noise, gumbel_softmax, straight_through
from nas.supernet import Sample, Supernet

GUMBEL_RAO_SAMPLES = 100
"""Relaxed samples that are averaged; they are drawn on the host, in a fraction of a millisecond."""

WEIGHT_SAMPLES = ("sampler", "uniform", "fair")
"""What the weights are trained on: samples of the sampler, or a draw that ignores the logits."""

Draw = Callable[[Tensor, float, torch.Generator], Sample]


@dataclass(frozen=True)
class Sampler:
    """A way to draw samples.

    Attributes:
        draw: The function that draws one.
        learns: Whether a sample has a gradient with respect to the logits.
        uses_temperature: Whether the temperature matters.
        learns_from_losses: Its gradient is that of log p, to be weighted with the losses of whole
            architectures (`nas.optimisation.bilevel.score_function_gradient`), not with inner
            products.
        samples_an_update: How many an update of the logits averages, if nothing else is said.
        one_path: Whether one operation a choice runs, or all of them.
    """

    draw: Draw
    learns: bool = True
    uses_temperature: bool = True
    learns_from_losses: bool = False
    samples_an_update: int = 1
    one_path: bool = True


SAMPLERS: Registry[Sampler] = Registry("sampler")


def _gdas(logits: Tensor, temperature: float, generator: torch.Generator) -> Sample:
    """One path by Gumbel-max, straight-through gradient (GDAS, arXiv:1910.04465, eq. 5-7)."""
    noise = gumbel_noise(tuple(logits.shape), generator)
    relaxed = gumbel_softmax(logits, noise, temperature)
    # Not the argmax of the relaxed sample, whose entries may tie at a high temperature.
    indices = gumbel_max(logits.detach(), noise)
    hard = nn.functional.one_hot(indices, logits.shape[-1]).to(logits.dtype)
    return Sample(straight_through(hard, relaxed), tuple(indices.tolist()))


def _gdas_authors(logits: Tensor, temperature: float, generator: torch.Generator) -> Sample:
    """GDAS with the gradient of its authors' code for NAS-Bench-201 (xautodl, cell_searchs).

    That code adds the weights of the operations that were not run, bare, to the output of an edge.
    Since the weights sum to a constant, this amounts to a baseline: with `g = dL/dout`

        dL/da_j = (<g, o_k(x)> - sum(g)) * y_k * (delta_jk - y_j) / t,

    as if the operation's output were `o_k(x) - 1`. A sampled `none` gets `-sum(g)`; an edge into a
    node that the output does not depend on gets 0. A node that only `none` enters is zeros, and the
    edges that leave it run, as there; with `space.affine=true` the shift of their batch norms then
    counts, which elsewhere here it does not.

    Their code for the DARTS space has no baseline: `gdas`.
    """
    return replace(_gdas(logits, temperature, generator), minus_sum=True)


def _gumbel_rao(logits: Tensor, temperature: float, generator: torch.Generator) -> Sample:
    """One path; GDAS's gradient averaged over the noise that leads to it (arXiv:2010.04838)."""
    indices = gumbel_max(logits.detach(), gumbel_noise(tuple(logits.shape), generator))
    weights = rao_blackwell(logits, indices, temperature, GUMBEL_RAO_SAMPLES, generator)
    return Sample(weights, tuple(indices.tolist()))


def _reinmax(logits: Tensor, temperature: float, generator: torch.Generator) -> Sample:
    """One path, the second-order gradient of ReinMax (arXiv:2304.08612)."""
    indices = gumbel_max(logits.detach(), gumbel_noise(tuple(logits.shape), generator))
    return Sample(reinmax(logits, indices, temperature), tuple(indices.tolist()))


def _score_function(logits: Tensor, temperature: float, generator: torch.Generator) -> Sample:
    """One path; behind the weights is the gradient of log p (REINFORCE, Williams, 1992)."""
    indices = gumbel_max(logits.detach(), gumbel_noise(tuple(logits.shape), generator))
    hard = nn.functional.one_hot(indices, logits.shape[-1]).to(logits.dtype)
    log_p = logits.log_softmax(-1).masked_fill(logits.detach().isinf(), 0.0)
    return Sample(straight_through(hard, log_p), tuple(indices.tolist()))


def _gumbel_softmax(logits: Tensor, temperature: float, generator: torch.Generator) -> Sample:
    """All operations, weighted by a relaxed sample (SNAS, arXiv:1812.09926)."""
    noise = gumbel_noise(tuple(logits.shape), generator)
    return Sample(gumbel_softmax(logits, noise, temperature), None)


def _dirichlet(logits: Tensor, temperature: float, generator: torch.Generator) -> Sample:
    """All operations, weighted by a draw from Dirichlet(elu(logits) + 1): DrNAS (arXiv:2006.10355).

    What is shown and derived is softmax(logits), as in the authors' code; its order is that of the
    mean of the Dirichlet distribution.
    """
    return Sample(dirichlet(dirichlet_concentration(logits), generator), None)


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
SAMPLERS.register("gdas_authors")(Sampler(_gdas_authors))
SAMPLERS.register("gumbel_rao")(Sampler(_gumbel_rao))
SAMPLERS.register("reinmax")(Sampler(_reinmax))
SAMPLERS.register("score_function")(
    Sampler(_score_function, uses_temperature=False, learns_from_losses=True, samples_an_update=4)
)
SAMPLERS.register("gumbel_softmax")(Sampler(_gumbel_softmax, one_path=False))
SAMPLERS.register("dirichlet")(Sampler(_dirichlet, uses_temperature=False, one_path=False))
SAMPLERS.register("softmax")(Sampler(_softmax, uses_temperature=False, one_path=False))
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
        sample = self.sampler.draw(self._logits(), self.temperature, self.generator)
        return self.supernet.completed(sample)

    def fair(self) -> list[Sample]:
        """Draws as many one-path samples as options, so that each option comes equally often.

        Strict fairness (FairNAS, Chu et al., 2019, arXiv:1907.01845, section 3): the options of
        each choice in an order of their own, one a sample; a choice with fewer options starts
        over. Weights that are trained on all of them at once have seen every option.
        """
        allowed = self._logits().detach().isfinite()
        num_samples = int(allowed.sum(1).max())
        columns = []
        for row in allowed:
            options = row.nonzero()[:, 0]
            rounds = [
                options[torch.randperm(len(options), generator=self.generator)]
                for _ in range(-(-num_samples // len(options)))
            ]
            columns.append(torch.cat(rounds)[:num_samples])
        table = torch.stack(columns, 1)
        hard = nn.functional.one_hot(table, allowed.shape[1]).to(self.supernet.logits.dtype)
        return [
            self.supernet.completed(Sample(weights, tuple(indices)))
            for weights, indices in zip(hard, table.tolist(), strict=True)
        ]

    def uniform(self) -> list[Sample]:
        """Draws one path, every option equally likely."""
        return [self.supernet.completed(_uniform(self._logits(), 1.0, self.generator))]

    def _logits(self) -> Tensor:
        """The logits of the choices, `[N, K]`."""
        logits, num_choices = self.supernet.masked_logits(), self.supernet.num_choices
        return logits if len(logits) == num_choices else logits[:num_choices]
