"""One choice of a supernet while all others are fixed: exact gradients, and what estimators make.

With the other choices fixed the expected loss over one choice is a sum of K terms, so its gradient
is known. The losses and inner products of the K options are computed once each; the draws of an
estimator are then work for the host alone, thousands of them. Shapes: K options, D draws, C cases
(what the others are fixed to, and the batch of images).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nas.optimisation.bilevel import Batch, Learner
from nas.sampling.samplers import Sampler
from nas.supernet import Sample


@dataclass(frozen=True)
class Case:
    """What each option of the choice does.

    Attributes:
        losses: The loss with each option, `[K]`.
        products: `<dL/dout, o_k(x)>` where option k runs, `[K]`.
        sums: `sum(dL/dout)` where option k runs, `[K]`.
        mixed: `dL/dweights` `[S, K]` where the sum of all options runs, at each given mixture.
    """

    losses: Tensor
    products: Tensor
    sums: Tensor
    mixed: Tensor

    def exact(self, logits: Tensor) -> Tensor:
        """The gradient of `sum_k softmax(logits)_k losses_k`: `p_j (L_j - sum_k p_k L_k)`."""
        p = logits.detach().to(self.losses).softmax(-1)
        return p * (self.losses - p @ self.losses)


@dataclass(frozen=True)
class Draws:
    """Many draws of one choice by a one-path sampler.

    Attributes:
        indices: The options, `[D]`.
        jacobians: The gradient of the weight of the drawn option, `d weights_k / d logits`,
            `[D, K]`: times an inner product it is what a search takes for the gradient.
    """

    indices: Tensor
    jacobians: Tensor

    @classmethod
    def of(
        cls,
        sampler: Sampler,
        logits: Tensor,
        temperature: float,
        count: int,
        generator: torch.Generator,
        chunk: int = 10_000,
    ) -> "Draws":
        """`count` draws for logits `[K]`, `chunk` at a time."""
        found: list[tuple[Tensor, Tensor]] = []
        for size in torch.arange(count).split(chunk):
            many = logits.detach().repeat(len(size), 1).requires_grad_()
            sample = sampler.draw(many, temperature, generator)
            assert sample.indices is not None
            indices = torch.tensor(sample.indices)
            chosen = sample.weights.gather(1, indices[:, None]).sum()
            found.append((indices, torch.autograd.grad(chosen, many)[0]))
        indices, jacobians = (torch.cat(parts) for parts in zip(*found, strict=True))
        return cls(indices, jacobians.double())

    def gradients(self, products: Tensor, baseline: float = 0.0) -> Tensor:
        """The estimates `[D, K]` from the inner products `[K]`, see `nas.sampling.baseline`."""
        centred = products[self.indices] - baseline
        return centred[:, None] * self.jacobians + baseline * self.jacobians.mean(0)

    def score_function(self, losses: Tensor, passes: int) -> Tensor:
        """Estimates `[D / passes, K]` from losses `[K]`, each with a leave-one-out baseline."""
        groups = losses[self.indices].view(-1, passes)
        advantages = (groups - groups.mean(1, keepdim=True)) * passes / (passes - 1)
        return (advantages[:, :, None] * self.jacobians.view(-1, passes, losses.numel())).mean(1)


@dataclass(frozen=True)
class Moments:
    """The estimates of one case, summed up.

    Attributes:
        truth: The exact gradient, `[K]`.
        mean: Of the estimates, `[K]`.
        variance: Of one estimate, summed over its K entries.
        mean_variance: Of `mean`, likewise: what is left of the noise.
        positive: Share of the estimates whose cosine with the truth is positive.
    """

    truth: Tensor
    mean: Tensor
    variance: float
    mean_variance: float
    positive: float

    @classmethod
    def of(cls, estimates: Tensor, truth: Tensor) -> "Moments":
        """Of estimates `[D, K]`; a single one is taken to have no variance."""
        estimates = estimates.to(truth)
        count = len(estimates)
        variance = float(estimates.var(0).sum()) if count > 1 else 0.0
        positive = float(((estimates @ truth) > 0).double().mean())
        return cls(truth, estimates.mean(0), variance, variance / count, positive)


def averaged(estimates: Tensor, count: int) -> Tensor:
    """Means `[D / count, K]` of so many estimates each; a single one has nothing to average."""
    if len(estimates) == 1:
        return estimates
    kept = len(estimates) // count * count
    return estimates[:kept].view(-1, count, estimates.shape[1]).mean(1)


def summary(choices: Sequence[Sequence[Moments]], none: int) -> dict[str, float]:
    """The figures of an estimator; norms are root mean squares over all cases.

    The noise that a finite number of draws leaves in `E[g]` is taken out of its norm.

    Args:
        choices: The cases of each choice.
        none: Index of the option `none`.

    Returns:
        bias: `||E[g] - g*|| / ||g*||`.
        cosine: Between `E[g]` and `g*`, all cases in one vector.
        cosine_of_means: The same after the mean over the cases of each choice: what many steps
            amount to.
        deviation: Standard deviation of an estimate to `||g*||`.
        noise: The same to `||E[g]||`: free of the scale, which Adam takes out.
        positive: Probability that an estimate has a positive cosine with `g*`.
        none_sign: Share of the cases in which `E[g]` moves `none` where `g*` does.
        none_push: Mean of the entry of `none` in `E[g]`, to `||E[g]||`; a positive one makes
            `none` less likely.
    """
    cases = [case for found in choices for case in found]
    truths, means = (torch.stack([getattr(c, n) for c in cases]) for n in ("truth", "mean"))
    left, variance = _mean(c.mean_variance for c in cases), _mean(c.variance for c in cases)
    truth_square = float(truths.square().sum(1).mean())
    mean_square = max(float(means.square().sum(1).mean()) - left, 1e-30)
    error_square = max(float((means - truths).square().sum(1).mean()) - left, 0.0)
    same_sign = means[:, none].sign() == truths[:, none].sign()
    truth, mean = (
        torch.cat([torch.stack([getattr(c, n) for c in found]).mean(0) for found in choices])
        for n in ("truth", "mean")
    )
    return {
        "bias": (error_square / truth_square) ** 0.5,
        "cosine": float((means * truths).sum(1).mean()) / (mean_square * truth_square) ** 0.5,
        "cosine_of_means": float(torch.cosine_similarity(truth, mean, dim=0)),
        "deviation": (variance / truth_square) ** 0.5,
        "noise": (variance / mean_square) ** 0.5,
        "positive": _mean(c.positive for c in cases),
        "none_sign": float(same_sign.double().mean()),
        "none_push": float(means[:, none].mean()) / mean_square**0.5,
    }


def enumerate_choice(
    learner: Learner, batch: Batch, others: Sequence[int], row: int, mixtures: Tensor
) -> Case:
    """Runs every option of choice `row` with the `others` fixed, and the given mixtures of them.

    Args:
        learner: Has the supernet and the loss.
        batch: Images and labels.
        others: The option of every choice; that of `row` is ignored.
        row: The choice.
        mixtures: Weights of the options, `[S, K]`.
    """
    supernet = learner.supernet
    num_options = mixtures.shape[1]
    losses: list[float] = []
    products: list[float] = []
    centred: list[float] = []
    for option in range(num_options):
        indices = tuple(option if r == row else k for r, k in enumerate(others))
        weights = torch.nn.functional.one_hot(torch.tensor(indices), num_options).float()
        found = [
            learner.decision_gradient(batch, Sample(weights, indices, minus_sum))
            for minus_sum in (False, True)
        ]
        losses.append(float(found[0][1].loss))
        for (gradient, _), collected in zip(found, (products, centred), strict=True):
            collected.append(float(gradient[row, option]))
    fixed = torch.nn.functional.one_hot(torch.tensor(others), num_options).to(supernet.logits)
    mixed = []
    for mixture in mixtures:
        weights = fixed.detach().clone()
        weights[row] = mixture
        mixed.append(learner.decision_gradient(batch, Sample(weights, None))[0][row])
    first, second, third = (
        torch.tensor(values, dtype=torch.float64) for values in (losses, products, centred)
    )
    return Case(first, second, second - third, torch.stack(mixed).double())


def running_means(cases: Sequence[Case], logits: Tensor) -> list[float]:
    """For each case the mean inner product of the other ones: a baseline that knows nothing of it.

    The running mean of a search settles there.
    """
    p = logits.detach().double().softmax(-1)
    means = [float(p @ case.products) for case in cases]
    return [(sum(means) - own) / (len(means) - 1) for own in means]


def _mean(values: Iterable[float]) -> float:
    return float(torch.tensor(list(values), dtype=torch.float64).mean())
