"""Search from genotype to genotype, by one changed decision at a time.

Whoever judges genotypes (a supernet, a training-free score) gives numbers of a scale of their own.
So what counts are ranks within the pool of all genotypes seen so far, averaged over the judges.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from scipy.stats import rankdata

from nas.genotype import Genotype

Judge = Callable[[Genotype], float]
"""A number that is higher for what it thinks is a better genotype."""


@dataclass(frozen=True)
class Judged:
    """A genotype, what each judge says of it, and its standing in the pool.

    Attributes:
        genotype: The genotype.
        values: By judge.
        standing: Mean over the judges of the share of the pool that is worse, 0 to 1.
    """

    genotype: Genotype
    values: tuple[float, ...]
    standing: float


def local_search(
    start: Iterable[Genotype],
    neighbours: Callable[[Genotype], Iterable[Genotype]],
    judges: Sequence[Judge],
    *,
    beam: int,
    max_evaluations: int,
    on_evaluation: Callable[[], None] = lambda: None,
) -> list[Judged]:
    """Looks at the neighbours of the best until the `beam` best have no neighbour left to see.

    Args:
        start: Where to start from; all of them are judged.
        neighbours: The genotypes one decision away.
        judges: What is asked of each genotype, once.
        beam: How many of the best must have been expanded.
        max_evaluations: Genotypes to judge at most.
        on_evaluation: Called after each.

    Returns:
        The pool, best first.
    """
    pool: dict[Key, tuple[Genotype, tuple[float, ...]]] = {}
    expanded: set[Key] = set()

    def add(genotypes: Iterable[Genotype]) -> None:
        for genotype in genotypes:
            key = _key(genotype)
            if key in pool or len(pool) >= max_evaluations:
                continue
            pool[key] = genotype, tuple(judge(genotype) for judge in judges)
            on_evaluation()

    add(start)
    while True:
        ranked = rank(list(pool.values()))
        unseen = [j.genotype for j in ranked[:beam] if _key(j.genotype) not in expanded]
        if not unseen or len(pool) >= max_evaluations:
            return ranked
        expanded.add(_key(unseen[0]))
        add(neighbours(unseen[0]))


def rank(pool: Sequence[tuple[Genotype, tuple[float, ...]]]) -> list[Judged]:
    """The pool by mean rank, best first; equal values share a rank, ties keep their order."""
    columns = zip(*(values for _, values in pool), strict=True)
    last = max(len(pool) - 1, 1)
    ranks = [(rankdata(column) - 1) / last for column in columns]
    found = [
        Judged(genotype, values, float(sum(standing)) / len(values))
        for (genotype, values), standing in zip(pool, zip(*ranks, strict=True), strict=True)
    ]
    return sorted(found, key=lambda judged: -judged.standing)


Key = tuple[tuple[str, str], ...]


def _key(genotype: Genotype) -> Key:
    return tuple(sorted(genotype.choices.items()))
