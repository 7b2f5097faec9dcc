"""A one-path network as a list of parts: which of them a sample runs.

A part reads nodes (feature maps) and adds its output to a node, so a network is a graph whose edges
are modules, or choices between modules. `nas.kernels.graphs` runs networks that say so of
themselves.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nas.choice import NOT_CONNECTED, Choice
from nas.ops import Zero


@dataclass(frozen=True)
class Part:
    """A module between nodes.

    Attributes:
        module: Takes one argument a source. Of a `Choice` the sampled candidate is run.
        sources: Numbers of the nodes that it reads; node 0 is the input of the network.
        target: Number of the node that its output is added to.
    """

    module: nn.Module
    sources: tuple[int, ...]
    target: int

    def is_none(self, option: int | None) -> bool:
        """Whether `option` of this choice is the operation `none`."""
        if option is None or option == NOT_CONNECTED:
            return False
        assert isinstance(self.module, Choice)
        return isinstance(self.module.candidates[option], Zero)


class Parts(list[Part]):
    """The parts of a network, each after all that its sources depend on."""

    def __init__(self) -> None:
        super().__init__()
        self.num_nodes = 1

    def new_node(self) -> int:
        """A node that nothing is added to yet."""
        self.num_nodes += 1
        return self.num_nodes - 1

    def add(self, module: nn.Module, *sources: int, target: int | None = None) -> int:
        """Adds a part; returns its target, a new node unless one is given."""
        target = self.new_node() if target is None else target
        self.append(Part(module, sources, target))
        return target

    def live(self, options: Sequence[int | None], *, silent: bool = False) -> list[int]:
        """Positions of the parts that the output, the target of the last part, depends on.

        The rules are those by which `nas.spaces.cell` runs a network module by module, but for what
        comes before a cell that is cut: there it is run in vain, and its running statistics move.

        Args:
            options: What is sampled of each part that is a choice; None for the others.
            silent: A `none` wants a gradient of its own (see `nas.choice.silent_gate`): it is a
                part that reads nothing, and what leaves a node of zeros is run.
        """
        pairs = list(zip(self, options, strict=True))
        silent = silent and any(part.is_none(option) for part, option in pairs)
        fed, able = {0}, []
        for position, (part, option) in enumerate(pairs):
            if option == NOT_CONNECTED or (part.is_none(option) and not silent):
                continue
            if option is None or silent or not fed.isdisjoint(part.sources):
                fed.add(part.target)
                able.append(position)
        needed, live = {self[-1].target}, []
        for position in reversed(able):
            part, option = pairs[position]
            if part.target in needed:
                live.append(position)
                if not part.is_none(option):
                    needed.update(part.sources)
        return live[::-1]


class HasParts:
    """A network that knows its parts.

    Named as a base class: a model of a user's may have a `parts` that is something else.
    """

    def parts(self) -> Parts:
        """They do together what `forward` does."""
        raise NotImplementedError


class Concatenation(nn.Module):
    """Concatenates along the channels."""

    def forward(self, *states: Tensor) -> Tensor:
        return torch.cat(states, dim=1)
