"""Search from genotype to genotype, by one changed decision at a time.

Whoever judges genotypes (a supernet, a training-free score) gives numbers of a scale of their own.
So what counts is where a number stands in the pool of all genotypes seen so far, averaged over the
judges.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from random import Random

import numpy as np
from numpy.typing import NDArray

from nas.genotype import Genotype, Key

Judge = Callable[[Genotype], float]
"""A number that is higher for what it thinks is a better genotype."""

Values = tuple[float, ...]
"""What several judges say of one genotype."""

Values2D = NDArray[np.float64]
Scale = Callable[[Values2D], Values2D]


class Jury:
    """Several judges, each asked once of every architecture."""

    def __init__(self, judges: Sequence[Judge], key: Callable[[Genotype], Key]) -> None:
        """Args:
        judges: Who is asked.
        key: What tells architectures apart, see `nas.spaces.SearchSpace`.
        """
        self._judges, self._key = judges, key
        self._said: dict[Key, Values] = {}

    def __call__(self, genotypes: Sequence[Genotype]) -> list[Values]:
        """What the judges say of each of `genotypes`."""
        return [self._of(genotype) for genotype in genotypes]

    def _of(self, genotype: Genotype) -> Values:
        key = self._key(genotype)
        if key not in self._said:
            self._said[key] = tuple(judge(genotype) for judge in self._judges)
        return self._said[key]


@dataclass(frozen=True)
class Judged:
    """A genotype, what each judge says of it, and its standing in the pool.

    Attributes:
        genotype: The genotype.
        values: By judge.
        standing: Mean over the judges of where it stands in the pool.
    """

    genotype: Genotype
    values: Values
    standing: float


def ranks(values: Values2D) -> Values2D:
    """The share of the pool that is worse, 0 to 1; equal values share a rank.

    Args:
        values: `[genotypes, judges]`.
    """
    from scipy.stats import rankdata  # slow to import, and only needed here

    shares: Values2D = (rankdata(values, axis=0) - 1) / max(len(values) - 1, 1)
    return shares


def standard_scores(values: Values2D) -> Values2D:
    """How many standard deviations above the mean of the pool.

    Unlike ranks they tell a clear lead from one by chance, of which there are many in a pool of
    neighbours. What is not finite counts as the worst that is.

    Args:
        values: `[genotypes, judges]`.
    """
    finite = np.where(np.isfinite(values), values, np.nan)
    known = ~np.isnan(finite).all(axis=0)
    scores = np.zeros_like(values)
    finite = finite[:, known]
    finite = np.where(np.isnan(finite), np.nanmin(finite, axis=0), finite)
    deviation = finite.std(axis=0)
    scores[:, known] = (finite - finite.mean(axis=0)) / np.where(deviation > 0, deviation, 1)
    return scores


def rank(
    pool: Sequence[tuple[Genotype, Values]],
    scale: Scale = ranks,
    weights: Sequence[float] | None = None,
) -> list[Judged]:
    """The pool, best first; ties keep their order.

    Args:
        pool: Genotypes and what the judges say of them; without judges all stand alike.
        scale: What makes the judges comparable.
        weights: Of the judges; None for equal ones.
    """
    scaled = np.array([values for _, values in pool], dtype=np.float64)
    if scaled.size:
        standings = np.average(scale(scaled), axis=1, weights=weights)
    else:
        standings = np.zeros(len(pool))
    found = [
        Judged(genotype, values, float(standing))
        for (genotype, values), standing in zip(pool, standings, strict=True)
    ]
    return sorted(found, key=lambda judged: -judged.standing)


def local_search(
    start: Iterable[Genotype],
    neighbours: Callable[[Genotype], Iterable[Genotype]],
    jury: Callable[[Sequence[Genotype]], Sequence[Values]],
    key: Callable[[Genotype], Key],
    *,
    beam: int,
    max_evaluations: int,
    at_a_time: int | None = None,
    scale: Scale = ranks,
    weights: Sequence[float] | None = None,
) -> list[Judged]:
    """Looks at the neighbours of the best until the `beam` best have no neighbour left to see.

    Args:
        start: Where to start from; all of them are judged.
        neighbours: The genotypes one decision away.
        jury: What the judges say; asked of several genotypes at a time, of each once.
        key: What tells architectures apart: of those of one key the first is looked at.
        beam: How many of the best must have been expanded.
        max_evaluations: Genotypes to judge at most.
        at_a_time: Where a genotype has more new neighbours, so many of them are drawn; after that
            the search goes on from whichever is best. Else the first decisions of a large space
            would take all evaluations. None for all.
        scale: What makes the judges comparable.
        weights: Of the judges in the standing; None for equal ones.

    Returns:
        The pool, best first.
    """
    pool: dict[Key, tuple[Genotype, Values]] = {}
    expanded: set[Key] = set()
    order = Random(0)

    def new_of(genotypes: Iterable[Genotype]) -> dict[Key, Genotype]:
        new: dict[Key, Genotype] = {}
        for genotype in genotypes:
            new.setdefault(key(genotype), genotype)
        return {of: genotype for of, genotype in new.items() if of not in pool}

    def add(new: dict[Key, Genotype]) -> None:
        taken = list(new)[: max_evaluations - len(pool)]
        if not taken:
            return
        said = jury([new[of] for of in taken])
        pool.update((of, (new[of], values)) for of, values in zip(taken, said, strict=True))

    add(new_of(start))
    while True:
        ranked = rank(list(pool.values()), scale, weights)
        unseen = [j.genotype for j in ranked[:beam] if key(j.genotype) not in expanded]
        if not unseen or len(pool) >= max_evaluations:
            return ranked
        new = new_of(neighbours(unseen[0]))
        if at_a_time is None or len(new) <= at_a_time:
            expanded.add(key(unseen[0]))
        else:
            new = {of: new[of] for of in order.sample(list(new), at_a_time)}
        add(new)
