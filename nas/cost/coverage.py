"""Genotypes that together run all that networks of a space run."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from itertools import product

import torch
from torch import nn

from nas.choice import Choice, Decision, Repeat, decisions
from nas.genotype import Genotype
from nas.monitor.console import Progress
from nas.spaces import SearchSpace
from nas.spaces.space import without_weights
from nas.values import Value

PATIENCE = 50
"""Random genotypes in a row that must bring nothing new before the search for more ends."""

Choices = dict[str, str]


class Draw:
    """Draws genotypes of a space, every option of a choice equally likely."""

    def __init__(self, space: SearchSpace, seed: int) -> None:
        self.space = space
        self.model = without_weights(space.build_supernet)
        self._names = tuple(decisions(self.model))
        self._generator = torch.Generator().manual_seed(seed)

    def __call__(self, given: Mapping[str, str] | None = None) -> Genotype:
        """One that takes the `given` options, as far as those of the space can."""
        scores = {}
        for name in self._names:
            options = self.space.options_of(name)
            scores[name] = torch.rand(len(options), generator=self._generator)
            if given and name in given:
                scores[name][options.index(given[name])] += 1.0
        return self.space.derive(scores)

    def distinct(self, number: int) -> list[Genotype]:
        """So many that differ; fewer where the space hardly has as many."""
        found: dict[tuple[tuple[str, str], ...], Genotype] = {}
        for _ in range(20 * number):
            genotype = self()
            found.setdefault(tuple(genotype.choices.items()), genotype)
            if len(found) == number:
                break
        return list(found.values())


def cover(
    draw: Draw,
    keys_of: Callable[[Genotype], Collection[str]],
    genotypes: Iterable[Genotype] = (),
) -> list[Genotype]:
    """Genotypes that run every option of every choice and every layer at every size.

    Which sizes meet in what is between the layers no list tells: random genotypes follow, until
    `PATIENCE` in a row bring nothing new. Shows how far it is.

    Args:
        draw: Draws genotypes of the space.
        keys_of: What the network of a genotype runs.
        genotypes: Further ones whose networks must be covered.

    Returns:
        Those that brought something new when their turn came.
    """
    known: set[str] = set()
    seen: list[Mapping[str, str]] = []
    kept: list[Genotype] = []

    def brings_new(genotype: Genotype) -> bool:
        new = set(keys_of(genotype)) - known
        known.update(new)
        seen.append(genotype.choices)
        if new:
            kept.append(genotype)
        return bool(new)

    allowed = [
        choices
        for choices in required_choices(draw.model)
        if draw.space.never_derived.isdisjoint(choices.values())
    ]
    for genotype in genotypes:
        brings_new(genotype)
    with Progress(len(allowed) + PATIENCE, unit="network") as progress:
        for done, choices in enumerate(allowed, start=1):
            if not any(choices.items() <= other.items() for other in seen):
                brings_new(draw(choices))
            progress.update(done, operations=str(len(known)))
        in_a_row = 0
        while in_a_row < PATIENCE:
            in_a_row = 0 if brings_new(draw()) else in_a_row + 1
            progress.update(len(allowed) + in_a_row, operations=str(len(known)))
    return kept


def required_choices(model: nn.Module) -> list[Choices]:
    """Options by choice such that all together run all that `model` has.

    Each option of each choice, with what it takes for that choice to be run; and for layers of
    open sizes each combination of sizes. Those of more choices are first.
    """
    decisions(model)  # gives them their names
    found: dict[frozenset[tuple[str, str]], Choices] = {}
    for choices in _required(model, {}):
        found.setdefault(frozenset(choices.items()), choices)
    return sorted(found.values(), key=lambda choices: -len(choices))


def _required(module: nn.Module, outer: Choices) -> Iterator[Choices]:
    """Those of `module` and all inside it, which is run where the options `outer` are taken."""
    sizes = [value for value in vars(module).values() if isinstance(value, Value)]
    if any(size.sources for size in sizes):
        yield from _sizes(sizes, outer)
    if isinstance(module, Decision):
        for option in module.options:
            yield from _with(outer, module.name, option)
    for child, inner in _children(module):
        for choices in _with(outer, *inner) if inner else [outer]:
            yield from _required(child, choices)


def _children(module: nn.Module) -> Iterator[tuple[nn.Module, tuple[str, str] | None]]:
    """The modules in `module`, and the name and option of the choice that runs each."""
    if isinstance(module, Choice):
        for option, candidate in zip(module.options, module.candidates, strict=True):
            yield candidate, (module.name, option)
    elif isinstance(module, Repeat):
        for number, block in enumerate(module.blocks):
            depth = min(depth for depth in module.depths if depth > number)
            yield block, (module.name, module.options[module.depths.index(depth)])
    else:
        for child in module.children():
            yield child, None


def _sizes(sizes: list[Value], outer: Choices) -> Iterator[Choices]:
    """One way to each combination of `sizes`."""
    sources = list(dict.fromkeys(source for size in sizes for source in size.sources))
    found = set()
    for options in product(*(source.options for source in sources)):
        choices = dict(outer)
        for source, option in zip(sources, options, strict=True):
            choices.setdefault(source.name, option)
        for source in sources:
            source.select(source.options.index(choices[source.name]))
        values = tuple(size.value for size in sizes)
        if values not in found:
            found.add(values)
            yield choices


def _with(outer: Choices, name: str, option: str) -> Iterator[Choices]:
    """`outer` and this option; nothing where it takes another of the same choice."""
    if outer.get(name, option) == option:
        yield {**outer, name: option}
