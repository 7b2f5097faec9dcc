"""A warm start of the logits from a training-free score: where to look first, in seconds.

Architectures are scored untrained; the main effect of each option of each choice, in standard
deviations of the score, becomes its logit. Sampled from these logits, architectures have a mean
score that lies so many deviations above that of uniform ones (exponential tilting, exact where the
score is a sum over the choices and normal).
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from nas.genotype import Genotype
from nas.supernet import Sample, Supernet


def main_effects(samples: Sequence[Sample], values: Sequence[float], shape: torch.Size) -> Tensor:
    """Mean of the normal scores of `values` over the samples that took an option, `[N, K]`.

    Normal scores (van der Waerden) are quantiles of the normal distribution at the ranks, so that
    neither the scale of the values nor an outlier matters. An option that was never taken gets 0,
    and so do the inputs of nodes, of which none is ever taken alone.
    """
    from scipy.stats import norm, rankdata  # slow to import, and only needed here

    normal_scores = norm.ppf(rankdata(values) / (len(values) + 1))
    total, count = torch.zeros(shape), torch.zeros(shape)
    for sample, value in zip(samples, normal_scores, strict=True):
        assert sample.indices is not None
        taken = torch.arange(len(sample.indices)), torch.tensor(sample.indices)
        total[taken] += float(value)
        count[taken] += 1
    return total / count.clamp_min(1)


def warm_start(
    supernet: Supernet,
    draw: Callable[[], Sequence[Sample]],
    score: Callable[[Genotype], float],
    genotype_of: Callable[[Sample], Genotype],
    *,
    num_samples: int,
    strength: float,
    on_sample: Callable[[], None] = lambda: None,
) -> None:
    """Adds `strength` times the main effects of `score` to the logits.

    Args:
        supernet: Whose logits are set.
        draw: Draws one-path samples, every option of a choice equally often.
        score: Higher is better.
        genotype_of: The architecture of a sample.
        num_samples: How many are scored, at least.
        strength: By how many standard deviations of the score the mean moves.
        on_sample: Called after each.
    """
    samples: list[Sample] = []
    values: list[float] = []
    while len(samples) < num_samples:
        for sample in draw():
            samples.append(sample)
            values.append(score(genotype_of(sample)))
            on_sample()
    with torch.no_grad():
        supernet.logits += strength * main_effects(samples, values, supernet.logits.shape)
