"""Whole updates of the logits, as a search makes them: every choice drawn, every batch another.

What `benchmarks.one_choice` leaves out: the noise that the other choices and the images bring. No
exact gradient is at hand here; the score function is unbiased, so its mean stands for it, and all
norms and products are taken so that the noise of the means does not count. Shapes: U updates of n
samples, N choices, K options.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.one_choice import Draws
from nas.optimisation.bilevel import Batch, Learner
from nas.supernet import Sample


@dataclass(frozen=True)
class Updates:
    """What the samples of many updates showed.

    Attributes:
        indices: Options drawn, `[U, n, N]`.
        losses: `[U, n]`.
        products: `<dL/dout, o_k(x)>` of each choice, `[U, n, N]`.
        centred: The same less `sum(dL/dout)`.
    """

    indices: Tensor
    losses: Tensor
    products: Tensor
    centred: Tensor

    @classmethod
    def of(cls, learner: Learner, batches: Iterator[Batch], count: int, samples: int) -> "Updates":
        """Runs `count` updates, without updating anything."""
        indices, losses, tables = [], [], []
        for _ in range(count):
            batch = next(batches)
            for _ in range(samples):
                drawn = learner.draw()
                assert drawn.indices is not None
                pair = [
                    learner.decision_gradient(batch, Sample(drawn.weights, drawn.indices, minus))
                    for minus in (False, True)
                ]
                indices.append(drawn.indices)
                losses.append(float(pair[0][1].loss))
                tables.append(torch.stack([gradient.sum(1) for gradient, _ in pair]))
        products, centred = torch.stack(tables).double().unbind(1)
        shape = (count, samples, -1)
        return cls(
            torch.tensor(indices).view(shape),
            torch.tensor(losses, dtype=torch.float64).view(count, samples),
            products.view(shape),
            centred.view(shape),
        )

    def jacobians(self, draws: Sequence[Draws], generator: torch.Generator) -> Tensor:
        """For each sample and choice one of the `draws` of its option, `[U, n, N, K]`."""
        found = []
        for row, drawn in enumerate(draws):
            wanted = self.indices[..., row].flatten()
            picked = torch.empty(len(wanted), dtype=torch.long)
            for option in wanted.unique():
                places, those = wanted == option, (drawn.indices == option).nonzero()[:, 0]
                chosen = torch.randint(len(those), (int(places.sum()),), generator=generator)
                picked[places] = those[chosen]
            found.append(drawn.jacobians[picked])
        return torch.stack(found, 1).view(*self.indices.shape, -1)

    def inner_products(self, products: Tensor, jacobians: Tensor) -> Tensor:
        """Estimates `[U, N, K]` from inner products `[U, n, N]`."""
        return (products[..., None] * jacobians).mean(1)

    def running_mean(self, draws: Sequence[Draws], jacobians: Tensor) -> Tensor:
        """The same with the mean of the other updates' products as a baseline, see `Draws`."""
        means = self.products.mean(1)
        others = (means.sum(0) - means) / (len(means) - 1)
        estimates = self.inner_products(self.products - others[:, None], jacobians)
        return estimates + others[..., None] * torch.stack([d.jacobians.mean(0) for d in draws])

    def score_function(self, jacobians: Tensor) -> Tensor:
        """Estimates from the losses, each sample's baseline being the mean of the others."""
        count = self.losses.shape[1]
        advantages = (self.losses - self.losses.mean(1, keepdim=True)) * count / (count - 1)
        return (advantages[..., None, None] * jacobians).mean(1)


def square_of_mean(estimates: Tensor) -> float:
    """`||E[g]||^2` of independent estimates `[U, ...]`, free of bias: no estimate meets itself."""
    flat = estimates.flatten(1)
    count = len(flat)
    total = flat.sum(0).square().sum() - flat.square().sum()
    return float(total) / (count * (count - 1))


def product_of_means(first: Tensor, second: Tensor) -> float:
    """`<E[f], E[s]>` of estimates of the same updates, likewise."""
    flat, other = first.flatten(1), second.flatten(1)
    count = len(flat)
    total = (flat.sum(0) * other.sum(0)).sum() - (flat * other).sum()
    return float(total) / (count * (count - 1))


def is_resolved(estimates: Tensor) -> bool:
    """Whether `||E[g]||^2` stands out of its own noise by three deviations."""
    covariance = torch.cov(estimates.flatten(1).T)
    deviation = 2**0.5 * float(covariance.norm()) / len(estimates)
    return square_of_mean(estimates) > 3 * deviation


def figures(estimates: Tensor, unbiased: Tensor, none: int) -> dict[str, float | None]:
    """Figures of estimates `[U, N, K]` against those of an unbiased estimator.

    Returns:
        cosine: Between `E[g]` and the expectation of the unbiased ones; noise may take it over 1.
        deviation: Standard deviation of an update to the norm of that expectation.
        noise: The same to `||E[g]||`.
        updates: Updates whose mean has as much signal as noise: `noise` squared.
        none_push: Mean of the entries of `none` in `E[g]` to the root mean square norm of a row.
        What needs an expectation that so few updates do not tell from 0 is None.
    """
    signal = square_of_mean(estimates) if is_resolved(estimates) else None
    exact = square_of_mean(unbiased) if is_resolved(unbiased) else None
    variance, product = float(estimates.var(0).sum()), product_of_means(estimates, unbiased)
    push = float(estimates[..., none].mean())
    return {
        "cosine": product / (signal * exact) ** 0.5 if signal and exact else None,
        "deviation": (variance / exact) ** 0.5 if exact else None,
        "noise": (variance / signal) ** 0.5 if signal else None,
        "updates": variance / signal if signal else None,
        "none_push": push / (signal / estimates.shape[1]) ** 0.5 if signal else None,
    }
