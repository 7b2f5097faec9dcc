"""Order and randomness of batches, as pure functions of (seed, stream, epoch, step).

Nothing of it is state, so a run that is resumed at any step sees what it would have seen.
"""

import hashlib
from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor

from nas.distributed import Ranks


class Loader(Protocol):
    """Batches of an epoch, on the device: images float32 `[B, C, H, W]` and labels int64 `[B]`.

    Attributes:
        num_batches: Batches in an epoch.
        batch_size: Images in a batch (the last of an evaluation may have fewer).
    """

    num_batches: int
    batch_size: int

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of `epoch` from step `start` on."""


def shares(ranks: Ranks, loader: Loader, start: int, *, cuts: bool) -> tuple[range, slice]:
    """Which steps of an epoch from `start` on are this rank's, and which images of their batches.

    Args:
        ranks: Of the run.
        loader: Whose epoch it is.
        start: The first step.
        cuts: Every rank has a part of every batch (training); else every batch is one rank's
            (evaluation, where a batch may be what the images are normalised by).
    """
    if not cuts:
        return range(start + ranks.rank, loader.num_batches, ranks.size), slice(None)
    count = loader.batch_size // ranks.size
    rows = slice(ranks.rank * count, (ranks.rank + 1) * count)
    return range(start, loader.num_batches), rows


class Cycle:
    """Batches of a loader without end, epoch after epoch.

    Attributes:
        step: How many batches were taken; a new `Cycle` goes on from there.
    """

    def __init__(self, loader: Loader, step: int = 0) -> None:
        self._loader = loader
        self._batches: Iterator[tuple[Tensor, Tensor]] | None = None
        self.step = step

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return self

    def __next__(self) -> tuple[Tensor, Tensor]:
        epoch, start = divmod(self.step, self._loader.num_batches)
        if self._batches is None or start == 0:
            self._batches = iter(self._loader.epoch(epoch, start))
        self.step += 1
        return next(self._batches)


def derived_seed(*parts: int | str) -> int:
    """A seed of 63 bits from numbers and names, well mixed: near parts give unrelated seeds."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def permutation(size: int, *parts: int | str) -> Tensor:
    """A random order of `size` items, int64 on the host, that depends on `parts` alone."""
    return torch.randperm(size, generator=torch.Generator().manual_seed(derived_seed(*parts)))


def stratified_split(labels: Tensor, fraction: float, *parts: int | str) -> tuple[Tensor, Tensor]:
    """Splits indices so that the second part has `round(fraction * N)`, each class its share.

    Shares are rounded by largest remainder, so that rounding never adds up over many classes.
    Both parts are sorted and depend on labels and `parts` alone.
    """
    shares = torch.bincount(labels).double() * fraction
    quota = shares.floor().long()
    missing = round(fraction * len(labels)) - int(quota.sum())
    quota[(quota - shares).argsort(stable=True)[:missing]] += 1
    chosen = torch.zeros(len(labels), dtype=torch.bool)
    for label, count in enumerate(quota.tolist()):
        members = (labels == label).nonzero()[:, 0]
        chosen[members[permutation(len(members), *parts, label)[:count]]] = True
    return (~chosen).nonzero()[:, 0], chosen.nonzero()[:, 0]
