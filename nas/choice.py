"""The one primitive of every search space: a module with K candidates and a name.

Choices of one name share one row of logits and one decision. A choice runs the candidate that it
is told to; who decides, and what the gradient of the decision is, is not its business.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from nas.kernels import element_sum, inner_product
from nas.ops import Zero
from nas.pending import Pending

NOT_CONNECTED = -1
"""The decision for no candidate at all: the edge is not there."""


class Choice(nn.Module):
    """Runs one of its candidates, or a weighted sum of them all.

    The supernet decides before the forward pass, on the host: `select` for one path, `mix` for
    all of them. Candidates of kind `Zero` are never computed: containers leave an edge out where
    `connects` says so, and in a mixture they add nothing. Nor are those whose weight is None.
    """

    def __init__(self, name: str, candidates: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.name = name
        self.options = tuple(candidates)
        self.candidates = nn.ModuleList(candidates.values())
        self._is_zero = tuple(isinstance(c, Zero) for c in self.candidates)
        self._index = NOT_CONNECTED
        self._gate: Tensor | None = None
        self._minus_sum = False
        self._weights: tuple[Tensor | None, ...] | None = None

    def select(self, index: int, gate: Tensor | None = None, *, minus_sum: bool = False) -> None:
        """Decides for candidate `index`.

        Args:
            index: Position of the candidate; `NOT_CONNECTED` for none of them.
            gate: A scalar whose value is 1 and whose gradient will be the inner product
                `<dL/dout, candidate(x)>`; None where no architecture gradient is wanted.
            minus_sum: Its gradient is `<dL/dout, candidate(x)> - sum(dL/dout)` instead.
        """
        self._index, self._gate, self._weights = index, gate, None
        self._minus_sum = minus_sum

    def mix(self, weights: tuple[Tensor | None, ...]) -> None:
        """Decides for the sum of all candidates, each times its scalar weight.

        None is a weight that is known to be 0, without asking the device: its candidate is not run.
        """
        self._gate, self._weights = None, weights

    def release(self) -> None:
        """Lets go of the tensors of the last decision, which hold a graph; it keeps the index."""
        self._gate = self._weights = None

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
        out = self.candidates[self._index](x)
        return out if self._gate is None else gated(out, self._gate, minus_sum=self._minus_sum)

    def _mixture(self, x: Tensor, weights: tuple[Tensor | None, ...]) -> Tensor:
        terms = [
            weight * candidate(x)
            for weight, candidate, is_zero in zip(
                weights, self.candidates, self._is_zero, strict=True
            )
            if weight is not None and not is_zero
        ]
        return torch.stack(terms).sum(0) if len(terms) > 2 else sum(terms[1:], terms[0])

    def extra_repr(self) -> str:
        return f"{self.name!r}, options={self.options}"


def connects(module: nn.Module) -> bool:
    """Whether `module` can have an output other than zero: false for a choice that took `none`."""
    return module.connects if isinstance(module, Choice) else not isinstance(module, Zero)


def silent_gate(module: nn.Module) -> Tensor | None:
    """The gate of a choice that took `none` and wants a gradient for it; else None."""
    return module.silent_gate if isinstance(module, Choice) else None


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
