"""A running mean of the inner products as a control variate of one-path gradients.

Let k be the sampled option of a choice and `I = <dL/dout, o_k(x)>` (in the authors' form less
`sum(dL/dout)`). The sampler makes of it `I J` with `J = dw_k/da`, the gradient of the weight of the
sampled option with respect to the logits a: it depends on k and on the noise behind the relaxed
sample. For any number b that does not depend on the present draw of this choice

    E[(I - b) J + b E[J]] = E[I J],

so the estimate in brackets has the expectation of `I J`, biased or not. Its variance in an entry is
`Var(I J) - 2 b Cov(I J, J) + b^2 Var(J)`. Were I independent of J, it would be least at `b = E[I]`,
and there less by `E[I]^2 Var(J)`: the part of the noise that the draw makes of the mean of I goes,
that of the deviation of I stays. Hence b is the exponential moving mean of I, one for each choice,
over the updates before this one; where the mean is small against the deviation, little is gained.

`E[J]` is over the option and the noise together. It is 0 only for the gradient of log p, and has no
closed form else, but needs no network: it is the mean over fresh draws on the host. They are
independent of the sample, so the expectation stays; they add `b^2 Var(J)` over their number.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from nas.sampling.samplers import SampleSource
from nas.supernet import Sample

BASELINES = ("none", "running_mean")

DECAY = 0.99
"""Of the running mean, an update of the logits: it looks back a hundred of them."""

NUM_DRAWS = 64
"""Over which E[J] is averaged."""


class RunningMean:
    """The running means of a search.

    Attributes:
        means: Of the inner products of each choice, `[N]`, on the host; 0 before the first update.
    """

    def __init__(self, source: SampleSource) -> None:
        self._source = source
        self._sums = torch.zeros(len(source.supernet.logits))
        self._num_updates = 0

    @property
    def means(self) -> Tensor:
        # Divided by the sum of the weights: without it the first means would lie near 0.
        return self._sums / (1 - DECAY ** max(self._num_updates, 1))

    def centred(self, sample: Sample, gradient: Tensor) -> Tensor:
        """`dL/dweights` `[N, K]` of a one-path sample with `I - b` in place of I."""
        return gradient - self.means[:, None] * sample.weights.detach()

    def expectation(self) -> Tensor:
        """A scalar whose gradient with respect to the logits is `b E[J]`."""
        logits = self._source.supernet.masked_logits()
        sampler, generator = self._source.sampler, self._source.generator
        many = logits.repeat(NUM_DRAWS, 1)
        sample = sampler.draw(many, self._source.temperature, generator)
        indices = torch.tensor(sample.indices)[:, None]
        weights = sample.weights.gather(1, indices).view(NUM_DRAWS, len(logits))
        return weights.mean(0) @ self.means

    def add(self, samples: Sequence[Sample], gradients: Sequence[Tensor]) -> None:
        """Takes the inner products of an update, `dL/dweights` of its samples, into the means."""
        pairs = zip(samples, gradients, strict=True)
        products = torch.stack([(s.weights.detach() * g).sum(1) for s, g in pairs])
        self._sums.lerp_(products.mean(0), 1 - DECAY)
        self._num_updates += 1

    def state_dict(self) -> dict[str, Any]:
        return {"sums": self._sums, "num_updates": self._num_updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._sums.copy_(state["sums"])
        self._num_updates = state["num_updates"]
