"""From logits to one discrete architecture, and how sure it is.

The rule that turns scores into a genotype belongs to the space (argmax per edge for NAS-Bench-201,
the two strongest inputs of a node for DARTS). Here: which scores it is given, and the confidence.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from nas.edge_normalization import edge_scores
from nas.genotype import Confidence, Genotype, Key
from nas.sampling.gumbel import gumbel_noise
from nas.spaces.space import SearchSpace

Evaluate = Callable[[Genotype], float]
"""Accuracy in percent of a genotype on validation data, under the supernet's weights."""


def derive_argmax(space: SearchSpace, probabilities: Mapping[str, Tensor]) -> Genotype:
    """The genotype of the most probable options; probabilities are `[K]` by choice name."""
    scores = {name: row.log() for name, row in edge_scores(probabilities).items()}
    return with_confidence(space, space.derive(scores), probabilities)


def derive_sampled(
    space: SearchSpace,
    probabilities: Mapping[str, Tensor],
    evaluate: Evaluate,
    num_samples: int,
    generator: torch.Generator,
    on_sample: Callable[[], None] = lambda: None,
) -> tuple[Genotype, list[tuple[Genotype, float]]]:
    """The best of `num_samples` genotypes drawn from the probabilities, on validation data.

    Each architecture is evaluated once; ties go to the one drawn first. `on_sample` is called
    after each draw.

    Returns:
        The best genotype, and all distinct ones with their accuracies, best first.
    """
    found: dict[Key, tuple[Genotype, float]] = {}
    for _ in range(num_samples):
        genotype = draw_genotype(space, probabilities, generator)
        key = space.key(genotype)
        if key not in found:
            found[key] = genotype, evaluate(genotype)
        on_sample()
    ranked = sorted(found.values(), key=lambda entry: -entry[1])
    return with_confidence(space, ranked[0][0], probabilities), ranked


def draw_genotype(
    space: SearchSpace, probabilities: Mapping[str, Tensor], generator: torch.Generator
) -> Genotype:
    """Draws a genotype from the probabilities `[K]` by choice name, without a confidence.

    Perturbing log p with Gumbel noise and applying the space's rule draws each option from its
    probability (and a DARTS node's inputs without replacement; with edge normalisation an input and
    its operation together, from the product of weight and probability).
    """
    scores = {
        name: p.log() + gumbel_noise(tuple(p.shape), generator)
        for name, p in edge_scores(probabilities).items()
    }
    return space.derive(scores)


def with_confidence(
    space: SearchSpace, genotype: Genotype, probabilities: Mapping[str, Tensor]
) -> Genotype:
    """Returns `genotype` with the confidence of each of its choices."""
    confidence = {
        name: option_confidence(space, name, probabilities[name], option)
        for name, option in genotype.choices.items()
    }
    return replace(genotype, confidence=confidence)


def option_confidence(
    space: SearchSpace, name: str, probabilities: Tensor, option: str
) -> Confidence:
    """The confidence in `option` of choice `name`, whose options have `probabilities` `[K]`.

    The margin compares with the best other option that a derivation may take; it is negative
    where a sampled genotype took a less probable one.
    """
    options = space.options_of(name)
    chosen = float(probabilities[options.index(option)])
    others = [
        float(p)
        for other, p in zip(options, probabilities, strict=True)
        if other != option and other not in space.never_derived
    ]
    return Confidence(
        probability=chosen,
        margin=chosen - max(others, default=0.0),
        entropy=normalised_entropy(probabilities),
    )


def normalised_entropy(probabilities: Tensor) -> float:
    """Entropy of `[K]` probabilities over log K: 0 for a certain choice, 1 for a uniform one."""
    if len(probabilities) < 2:
        return 0.0
    return float(torch.special.entr(probabilities.double()).sum()) / math.log(len(probabilities))
