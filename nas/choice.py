"""What a search decides: modules with options and a name.

Decisions of one name share one row of logits and one outcome. Each does what it is told to; who
decides, and what the gradient of the decision is, is not its business. `Choice` is the one that all
built-in cell spaces consist of; `nas.values` has sizes that are open.
"""

import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from nas.errors import UserError
from nas.kernels.arithmetic import element_sum, inner_product
from nas.kernels.pending import Pending
from nas.ops import Zero

NOT_CONNECTED = -1
"""The decision for no candidate at all: the edge is not there."""

# What layers of open sizes call the places of their sizes, which tells a reader nothing.
_INNER = re.compile(
    r"(?<![^.])(conv\.)?values\.(?=((in|out)_(channels|features)|kernel_size|size)(_\d+)?$)"
)


class Decision(nn.Module):
    """Something that a model leaves open.

    It is decided before the forward pass, on the host: `select` for one option, `mix` for a
    weighted sum of all of them. Until then the first option holds.

    Attributes:
        options: Their names.
    """

    def __init__(self, options: Sequence[str], name: str | None = None) -> None:
        """Args:
        options: Their names.
        name: What the decision is called in logits and genotypes; decisions of one name are one.
            None: its place in the model, see `decisions`.

        Raises:
            UserError: there is no option, or two of one name.
        """
        super().__init__()
        self._name = name
        self.options = tuple(options)
        if not self.options or len(set(self.options)) != len(self.options):
            raise UserError(
                f"choice '{name or type(self).__name__}': options must be different names, got "
                f"{list(self.options)}"
            )
        self._index = 0
        self._gate: Tensor | None = None
        self._minus_sum = False
        self._weights: tuple[Tensor | None, ...] | None = None

    @property
    def name(self) -> str:
        """What it is called.

        Raises:
            UserError: nobody has given it a name yet, see `decisions`.
        """
        if self._name is None:
            raise UserError(
                f"a {type(self).__name__} has no name: nas.choice.decisions gives it one"
            )
        return self._name

    @property
    def index(self) -> int:
        """Position of the option that was selected."""
        return self._index

    def select(self, index: int, gate: Tensor | None = None, *, minus_sum: bool = False) -> None:
        """Decides for option `index`.

        Args:
            index: Position of the option; `NOT_CONNECTED` for none of them.
            gate: A scalar whose value is 1 and whose gradient will be the inner product
                `<dL/dout, out>`; None where no architecture gradient is wanted.
            minus_sum: Its gradient is `<dL/dout, out> - sum(dL/dout)` instead.
        """
        # Not attribute by attribute: a module looks closely at each, and a step decides hundreds.
        vars(self).update(_index=index, _gate=gate, _minus_sum=minus_sum, _weights=None)

    def mix(self, weights: tuple[Tensor | None, ...]) -> None:
        """Decides for the sum of all options, each times its scalar weight.

        None is a weight that is known to be 0, without asking the device: its option is not run.
        """
        vars(self).update(_gate=None, _weights=weights)

    def release(self) -> None:
        """Lets go of the tensors of the last decision, which hold a graph; it keeps the index."""
        vars(self).update(_gate=None, _weights=None)

    def gated(self, out: Tensor) -> Tensor:
        """Returns `out`, what was decided for, with the gradient that `select` asks for."""
        return out if self._gate is None else gated(out, self._gate, minus_sum=self._minus_sum)

    def parts(self, index: int) -> Sequence[nn.Module]:
        """The modules inside that the option at `index` runs."""
        return list(self.children())

    def derived(self) -> nn.Module:
        """The plain module that does what the selected option does."""
        raise NotImplementedError

    def extra_repr(self) -> str:
        return f"{self._name!r}, options={self.options}"


class Choice(Decision):
    """One of several modules: runs one of its candidates, or a weighted sum of them all.

    Candidates of kind `Zero` are never computed by cells: these leave an edge out where `connects`
    says so, and in a mixture it adds nothing.
    """

    def __init__(
        self, candidates: Mapping[str, nn.Module] | Sequence[nn.Module], name: str | None = None
    ) -> None:
        """Args:
        candidates: Modules by the name of the option. Those of a list are named after their
            classes, numbered where a class comes twice.
        name: See `Decision`.

        Raises:
            UserError: there is no candidate.
        """
        if not isinstance(candidates, Mapping):
            candidates = dict(zip(_class_names(candidates), candidates, strict=True))
        super().__init__(tuple(candidates), name)
        self.candidates = nn.ModuleList(candidates.values())
        self._is_zero = tuple(isinstance(c, Zero) for c in self.candidates)

    @property
    def connects(self) -> bool:
        """Whether the output can differ from zero under the present decision."""
        if self._weights is not None:
            pairs = zip(self._weights, self._is_zero, strict=True)
            return any(weight is not None and not is_zero for weight, is_zero in pairs)
        return self._index != NOT_CONNECTED and not self._is_zero[self._index]

    @property
    def silent_gate(self) -> Tensor | None:
        """The gate of a `none`, whose gradient `-sum(dL/dout)` is wanted though nothing runs."""
        is_none = self._index != NOT_CONNECTED and self._is_zero[self._index]
        return self._gate if self._minus_sum and is_none else None

    def forward(self, x: Tensor) -> Tensor:
        if self._weights is not None:
            return self._mixture(x, self._weights)
        return self.gated(self.candidates[self._index](x))

    def _mixture(self, x: Tensor, weights: tuple[Tensor | None, ...]) -> Tensor:
        terms = [
            weight * candidate(x)
            for weight, candidate, is_zero in zip(
                weights, self.candidates, self._is_zero, strict=True
            )
            if weight is not None and not is_zero
        ]
        if not terms:  # `Zero` alone has weight; cells do not come here
            return torch.zeros_like(self.candidates[self._is_zero.index(True)](x))
        return total(terms)

    def parts(self, index: int) -> Sequence[nn.Module]:
        return [self.candidates[index]]

    def derived(self) -> nn.Module:
        return self.candidates[self._index]


class InputChoice(Decision):
    """One of several tensors of one shape: which layer a layer takes its input from."""

    def __init__(self, inputs: Sequence[str] | int, name: str | None = None) -> None:
        """Args:
        inputs: Names of the inputs, or how many there are.
        name: See `Decision`.
        """
        super().__init__(
            tuple(map(str, range(inputs))) if isinstance(inputs, int) else inputs, name
        )

    def forward(self, *inputs: Tensor) -> Tensor:
        if len(inputs) != len(self.options):
            raise UserError(
                f"choice '{self._name}' has {len(self.options)} inputs, but was given {len(inputs)}"
            )
        if self._weights is not None:
            pairs = zip(self._weights, inputs, strict=True)
            return total([weight * x for weight, x in pairs if weight is not None])
        return self.gated(inputs[self._index])

    def derived(self) -> nn.Module:
        return Take(self._index)


class Take(nn.Module):
    """One of the inputs: what is left of an `InputChoice`."""

    def __init__(self, index: int) -> None:
        super().__init__()
        self.index = index

    def forward(self, *inputs: Tensor) -> Tensor:
        return inputs[self.index]


class Repeat(Decision):
    """How many of several blocks are run, one after the other: the depth of a stage.

    The first ones are; all blocks must have outputs of one shape.
    """

    def __init__(
        self, blocks: Sequence[nn.Module], depths: Sequence[int], name: str | None = None
    ) -> None:
        """Args:
        blocks: At least as many as the largest depth.
        depths: The options; 0 passes the input on.
        name: See `Decision`.

        Raises:
            UserError: a depth is negative or larger than there are blocks.
        """
        super().__init__(tuple(map(str, depths)), name)
        if min(depths) < 0 or max(depths) > len(blocks):
            raise UserError(
                f"choice '{name or 'Repeat'}': depths {list(depths)} must be from 0 to "
                f"{len(blocks)}, the number of blocks"
            )
        self.depths = tuple(depths)
        for number, block in enumerate(blocks[: max(depths)]):  # named as in a Sequential
            self.add_module(str(number), block)

    @property
    def blocks(self) -> list[nn.Module]:
        """Those that can be run; a module that was given twice comes twice."""
        return [block for block in self._modules.values() if block is not None]

    def forward(self, x: Tensor) -> Tensor:
        if self._weights is None:
            for block in self.parts(self._index):
                x = block(x)
            return self.gated(x)
        by_depth = {d: w for d, w in zip(self.depths, self._weights, strict=True) if w is not None}
        terms = [by_depth[0] * x] if 0 in by_depth else []
        for depth, block in enumerate(self.blocks[: max(by_depth)], 1):
            x = block(x)
            if depth in by_depth:
                terms.append(by_depth[depth] * x)
        return total(terms)

    def parts(self, index: int) -> Sequence[nn.Module]:
        return self.blocks[: self.depths[index]]

    def derived(self) -> nn.Module:
        return nn.Sequential(*self.parts(self._index))


def decisions(model: nn.Module) -> dict[str, list[Decision]]:
    """The decisions of `model` by name, in the order in which they are met.

    Gives those that have no name that of their place in the model, such as `stages.0.block`.

    Raises:
        UserError: there is none, or two of one name differ in their options.
    """
    found: dict[str, list[Decision]] = {}
    for path, module in model.named_modules():
        if not isinstance(module, Decision):
            continue
        if module._name is None:
            short = _INNER.sub("", path) or "choice"
            module._name = path if short in found else short  # it is a decision of its own
        others = found.setdefault(module.name, [])
        if others and others[0].options != module.options:
            raise UserError(
                f"choices named '{module.name}' differ in their options: "
                f"{list(others[0].options)} and {list(module.options)}"
            )
        others.append(module)
    if not found:
        raise UserError(
            f"the model {type(model).__name__} has no choice in it, so that there is nothing to "
            "search: put nas.Choice, nas.InputChoice, nas.Repeat or nas.ValueChoice into it"
        )
    return found


def connects(module: nn.Module) -> bool:
    """Whether `module` can have an output other than zero: false for a choice that took `none`."""
    return module.connects if isinstance(module, Choice) else not isinstance(module, Zero)


def silent_gate(module: nn.Module) -> Tensor | None:
    """The gate of a choice that took `none` and wants a gradient for it; else None."""
    return module.silent_gate if isinstance(module, Choice) else None


def total(terms: Sequence[Tensor]) -> Tensor:
    """Their sum, in one kernel where there are many."""
    return torch.stack(list(terms)).sum(0) if len(terms) > 2 else sum(terms[1:], terms[0])


def gated(out: Tensor, gate: Tensor, *, minus_sum: bool = False) -> Tensor:
    """Returns `out` times a gate that is known to be 1, without the multiplication.

    Backward: `out` receives dL/dout as it is, the gate `<dL/dout, out>` (equation 7 of GDAS,
    arXiv:1910.04465, for the sampled operation), with `minus_sum` less `sum(dL/dout)`.
    """
    if isinstance(out, Pending):
        return out.gated(gate, minus_sum)  # type: ignore[return-value]
    result: Tensor = _Gate.apply(out, gate, minus_sum)
    return result


class _Gate(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx, out: Tensor, gate: Tensor, minus_sum: bool
    ) -> Tensor:
        ctx.save_for_backward(out)
        ctx.minus_sum = minus_sum  # type: ignore[attr-defined]
        return out.view_as(out)

    @staticmethod
    def backward(
        ctx: torch.autograd.function.FunctionCtx, grad: Tensor
    ) -> tuple[Tensor | None, Tensor | None, None]:
        (out,) = ctx.saved_tensors  # type: ignore[attr-defined]
        wants_input, wants_gate, _ = ctx.needs_input_grad  # type: ignore[attr-defined]
        grad_gate = None
        if wants_gate:
            grad_gate = inner_product(grad, out)
            if ctx.minus_sum:  # type: ignore[attr-defined]
                grad_gate = grad_gate - element_sum(grad)
        return grad if wants_input else None, grad_gate, None


def _class_names(modules: Sequence[nn.Module]) -> list[str]:
    names = [type(module).__name__ for module in modules]
    return [
        name if names.count(name) == 1 else f"{name}_{names[:position].count(name)}"
        for position, name in enumerate(names)
    ]
