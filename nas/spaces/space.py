"""The interface that every search space has, and the registry of spaces."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Protocol

import torch
from torch import Tensor, nn

from nas.errors import UserError
from nas.genotype import Edge, Genotype, Key
from nas.registry import Registry


class SearchSpace(Protocol):
    """A search space with its sizes (channels, cells, input, classes).

    Attributes:
        name: Name in the registry and in `genotype.json`.
        never_derived: Options that a supernet offers but a derivation does not take.
        has_cells: Whether choices are the edges of cells, of operations of this package.
    """

    name: str
    never_derived: frozenset[str]
    has_cells: bool

    def options_of(self, name: str) -> tuple[str, ...]:
        """The options of the choice called `name`, in the order of the logits."""

    def build_supernet(self) -> nn.Module:
        """A module with a `Choice` wherever the space leaves something open."""

    def derive(self, scores: Mapping[str, Tensor]) -> Genotype:
        """The genotype that the space's rule finds best for scores `[K]` by choice name."""

    def neighbours(self, genotype: Genotype) -> Iterator[Genotype]:
        """The genotypes that one decision separates from `genotype`, without a confidence."""

    def key(self, genotype: Genotype) -> Key:
        """The choices that its network depends on: genotypes of one key are one architecture."""

    def build_network(self, genotype: Genotype, *, auxiliary: bool = False) -> nn.Module:
        """The plain network of `genotype`, without a trace of the search.

        Raises:
            UserError: the genotype does not fit, or there is no auxiliary head here.
        """


SPACES: Registry[type] = Registry("space")


def without_weights(build: Callable[[], nn.Module]) -> nn.Module:
    """What `build` makes, on PyTorch's meta device if it can; no generator moves.

    A model of the user's may read numbers from tensors while it is made, as in
    `[rate.item() for rate in torch.linspace(0, 0.1, depth)]`, and there they have none: it gets its
    weights.
    """
    with torch.random.fork_rng(devices=[]):
        # Of the many kinds of errors that PyTorch raises; what else is wrong comes once more.
        with suppress(Exception), torch.device("meta"):
            return build()
        return build()


def other_operations(genotype: Genotype, allowed: Iterable[str]) -> Iterator[Genotype]:
    """The genotypes that differ from `genotype` in the option of one choice."""
    for name, present in genotype.choices.items():
        for option in allowed:
            if option != present:
                yield replace(genotype, choices={**genotype.choices, name: option}, confidence={})


def check_operations(genotype: Genotype, known: Mapping[str, object] | Registry) -> None:  # type: ignore[type-arg]
    """Raises a `UserError` if an operation of `genotype` is not in `known`."""
    for name, operation in genotype.choices.items():
        if operation not in known:
            raise UserError(
                f"genotype: edge {name} has the unknown operation '{operation}'; "
                f"allowed are {', '.join(sorted(known))}"
            )


def parse_edges(genotype: Genotype) -> list[Edge]:
    """The edges of `genotype`, sorted; a `UserError` if a name is not that of an edge."""
    try:
        return sorted(Edge.parse(name) for name in genotype.choices)
    except ValueError as error:
        raise UserError(f"genotype of space '{genotype.space}': {error}") from None
