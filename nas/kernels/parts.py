"""A one-path network as a list of parts: which of them a sample runs.

A part reads nodes (feature maps) and adds its output to a node, so a network is a graph whose edges
are modules, or choices between modules. `nas.kernels.graphs` runs networks that say so of
themselves.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum

import torch
from torch import Tensor, nn

from nas.choice import NOT_CONNECTED, Choice
from nas.ops import Zero


class Role(IntEnum):
    """What a module between nodes does under a sample."""

    CUT = 0
    """Nothing."""
    SILENT = 1
    """It is a `none` that wants a gradient of its own: it hangs on its target and reads nothing."""
    CONNECTS = 2
    """It runs where there is something to read."""
    ALWAYS = 3
    """It runs on a node of zeros, too."""


def live_positions(
    ends: Sequence[tuple[tuple[int, ...], int]],
    roles: Sequence[Role],
    inputs: Iterable[int],
    outputs: Iterable[int],
) -> list[int]:
    """Positions of the modules that an output depends on.

    Work on any other cannot change the result: nothing reaches its sources, or nothing that reaches
    an output reads its target. With a `SILENT` one, what leaves a node of zeros runs, as in the
    GDAS authors' code.

    Args:
        ends: (sources, target) of each, each after all that its sources depend on.
        roles: Of each.
        inputs: Nodes that hold the inputs.
        outputs: Nodes that the output is made of.
    """
    zeros_are_read = Role.SILENT in roles
    fed, able = set(inputs), []
    for position, ((sources, target), role) in enumerate(zip(ends, roles, strict=True)):
        if role == Role.CUT:
            continue
        if zeros_are_read or role == Role.ALWAYS or not fed.isdisjoint(sources):
            fed.add(target)
            able.append(position)
    needed, live = set(outputs), []
    for position in reversed(able):
        sources, target = ends[position]
        if target in needed:
            live.append(position)
            if roles[position] != Role.SILENT:
                needed.update(sources)
    return live[::-1]


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

    def role(self, option: int | None, *, silent: bool) -> Role:
        """What it does where `option` of this choice is sampled; None: it is no choice."""
        if option is None:
            return Role.ALWAYS
        if option == NOT_CONNECTED:
            return Role.CUT
        assert isinstance(self.module, Choice)
        if isinstance(self.module.candidates[option], Zero):
            return Role.SILENT if silent else Role.CUT
        return Role.CONNECTS


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

        What comes before a cell that is cut is not among them: a network that runs module by module
        runs it in vain, and its running statistics move.

        Args:
            options: What is sampled of each part that is a choice; None for the others.
            silent: A `none` wants a gradient of its own (see `nas.choice.silent_gate`).
        """
        ends = [(part.sources, part.target) for part in self]
        roles = [p.role(option, silent=silent) for p, option in zip(self, options, strict=True)]
        return live_positions(ends, roles, (0,), (self[-1].target,))


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
