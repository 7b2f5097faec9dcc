"""Values that are put off until it is known what becomes of them, and what puts them off.

A batch norm at the end of a candidate operation goes into the sum of a node, and the ReLU of that
sum is what the next operations ask for: made together they need half the memory traffic. And the
gradient of a gate, `<dL/dout, out>`, can be had without keeping `out`, if the one who makes `out`
knows of the gate.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils._pytree import tree_map

from nas.kernels.arithmetic import Kernels, Statistics, Term, Want, element_sum, inner_product


class Pending:
    """A value that is made when somebody needs it.

    PyTorch functions that are given one get its value; so do attributes and methods.
    """

    def gated(self, gate: Tensor, minus_sum: bool = False) -> "Pending":
        """The same with a gate: a scalar of value 1 whose gradient is `<dL/dout, out>`.

        With `minus_sum` it is `<dL/dout, out> - sum(dL/dout)`.
        """
        raise NotImplementedError

    def value(self) -> Tensor:
        """The value, `[B, C, H, W]`."""
        raise NotImplementedError

    @classmethod
    def __torch_function__(
        cls, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        args, kwargs = tree_map(value_of, (args, kwargs or {}))
        return function(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.value(), name)


def _forward_operator(name: str) -> None:
    """Python looks operators up in the class, not by `__getattr__`."""

    def operate(self: Pending, *args: Any) -> Any:
        return getattr(self.value(), name)(*map(value_of, args))

    setattr(Pending, name, operate)


for _operator in ("add", "sub", "mul", "truediv", "pow"):
    _forward_operator(f"__{_operator}__")
    _forward_operator(f"__r{_operator}__")
for _operator in ("neg", "getitem", "len", "lt", "le", "gt", "ge"):
    _forward_operator(f"__{_operator}__")


def value_of(x: Any) -> Any:
    """The value of what is pending; anything else as it is."""
    return x.value() if isinstance(x, Pending) else x


class PendingNorm(Pending):
    """A batch norm of `x` by the statistics of the batch."""

    def __init__(
        self, x: Tensor, norm: "FusedNorm", gate: Tensor | None = None, minus_sum: bool = False
    ) -> None:
        self.x, self.norm, self.gate, self.minus_sum = x, norm, gate, minus_sum
        self._value: Tensor | None = None
        self._activated: Tensor | None = None
        self._is_counted = False

    def gated(self, gate: Tensor, minus_sum: bool = False) -> "PendingNorm":
        return PendingNorm(self.x, self.norm, gate, minus_sum)

    def value(self) -> Tensor:
        if self._value is None:
            self._value = _sum([self], Want.VALUE)[0]
        return self._value

    def relu(self) -> Tensor:
        """Its ReLU."""
        if self._activated is None:
            known = self._value
            self._activated = _sum([self], Want.RELU)[1] if known is None else relu(known)
        return self._activated

    def state(self) -> Tensor:
        """Its value with its ReLU at hand."""
        if self._value is None:
            self._value, self._activated = _sum([self], Want.BOTH)
            _keep_relu(self._value, self._activated)
        return self._value

    def count(self, statistics: Statistics) -> None:
        """Moves the running statistics of the norm, once."""
        if not self._is_counted:
            self._is_counted = True
            self.norm.update_running_statistics(self.x, statistics)


class FusedNorm(nn.BatchNorm2d):
    """A batch norm that is put off where it uses the statistics of the batch."""

    kernels: Kernels

    def forward(self, input: Tensor) -> Tensor:
        if self.training or self.running_mean is None:
            return PendingNorm(value_of(input), self)  # type: ignore[return-value]
        return super().forward(input)

    def update_running_statistics(self, x: Tensor, statistics: tuple[Tensor, Tensor]) -> None:
        """What `nn.BatchNorm2d` does with the statistics of a batch in training."""
        if not (self.training and self.running_mean is not None):
            return
        assert self.running_var is not None and self.num_batches_tracked is not None
        assert self.momentum is not None  # `fuse` leaves such norms alone
        mean, invstd = statistics
        count = x.numel() // x.shape[1]
        variance = (invstd.square().reciprocal() - self.eps) * (count / max(count - 1, 1))
        self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance, self.momentum)


class PendingPool(Pending):
    """An average pooling of `x`."""

    def __init__(
        self, x: Tensor, kernels: Kernels, gate: Tensor | None = None, minus_sum: bool = False
    ) -> None:
        self.x, self.kernels, self.gate, self.minus_sum = x, kernels, gate, minus_sum

    def gated(self, gate: Tensor, minus_sum: bool = False) -> "PendingPool":
        return PendingPool(self.x, self.kernels, gate, minus_sum)

    def value(self) -> Tensor:
        out: Tensor = _AveragePool.apply(self.x, self.gate, self.kernels, self.minus_sum)
        return out


def state_of(x: Tensor | Pending) -> Tensor:
    """The value of `x` for many readers: with its ReLU at hand where it is a pending norm."""
    return x.state() if isinstance(x, PendingNorm) else value_of(x)


def relu(x: Tensor | Pending) -> Tensor:
    """The ReLU of `x`, made once for all who ask for that of the same tensor."""
    if isinstance(x, PendingNorm):
        return x.relu()
    value: Tensor = value_of(x)
    activated: Tensor | None = getattr(value, "activated", None)
    return _keep_relu(value, value.relu()) if activated is None else activated


def _keep_relu(x: Tensor, activated: Tensor) -> Tensor:
    """Notes `activated` as the ReLU of `x`, for as long as `x` lives; returns it."""
    x.activated = activated  # type: ignore[attr-defined]
    return activated


def total(summands: Sequence[Tensor | Pending], silent: Sequence[Tensor] = ()) -> Tensor:
    """The sum of at least one `[B, C, H, W]`, with its ReLU at hand where a norm is pending.

    Args:
        summands: What is added.
        silent: Gates of zeros that are not added; the gradient of each is `-sum(dL/dsum)`.
    """
    if len(summands) == 1 and not silent:
        return state_of(summands[0])
    if any(isinstance(summand, PendingNorm) for summand in summands):
        value: Tensor
        value, activated = _sum(summands, Want.BOTH, silent)
        _keep_relu(value, activated)
        return value
    values = [value_of(summand) for summand in summands]
    value = values[0]
    for other in values[1:]:
        value = value + other
    return _SilentGates.apply(value, *silent) if silent else value


def _sum(summands: Sequence[Tensor | Pending], want: Want, silent: Sequence[Tensor] = ()) -> Any:
    """The sum and its ReLU, each None where it is not wanted."""
    terms: list[Term] = []
    gates: list[Tensor | None] = []
    for summand in summands:
        if isinstance(summand, PendingNorm):
            norm = summand.norm
            terms.append(Term(summand.x, norm.eps, norm.weight, norm.bias))
            gates.append(summand.gate)
        else:
            terms.append(Term(value_of(summand)))
            gates.append(None)
    inputs = [tensor for x, _, weight, bias in terms for tensor in (x, weight, bias)]
    return _Sum.apply(summands, terms, want, *inputs, *gates, *silent)


class _Sum(torch.autograd.Function):
    """A sum of terms and its ReLU.

    Inputs are (x, weight, bias) a term, then a gate each, then the gates of zeros.
    """

    @staticmethod
    def forward(
        ctx: Any,
        summands: Sequence[Tensor | Pending],
        terms: list[Term],
        want: Want,
        *inputs: Tensor | None,
    ) -> tuple[Tensor | None, Tensor | None]:
        norms = [summand for summand in summands if isinstance(summand, PendingNorm)]
        kernels = norms[0].norm.kernels
        value, activated, statistics = kernels.sum_terms(terms, want)
        # The backward pass of the ReLU asks which of them are positive. Where logits are trained
        # the value is kept for the gates of the next edges, elsewhere the ReLU for convolutions.
        has_gate = any(gate is not None for gate in inputs[3 * len(terms) :])
        saved: list[Tensor | None] = [value if has_gate and value is not None else activated]
        for pending, known in zip(norms, statistics, strict=True):
            pending.count(known)
            saved += [pending.x, pending.norm.weight, pending.norm.bias, *known]
        ctx.save_for_backward(*saved)
        ctx.kernels, ctx.is_norm = kernels, [term.eps is not None for term in terms]
        ctx.minus_sum = [pending.minus_sum for pending in norms]
        ctx.set_materialize_grads(False)
        return value, activated

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor | None, grad_activated: Tensor | None) -> Any:
        activated: Tensor
        saved: list[Tensor]
        activated, *saved = ctx.saved_tensors
        num_terms = len(ctx.is_norm)
        if grad_activated is not None:
            grad = ctx.kernels.through_relu(grad_activated, activated, grad)
        wanted = ctx.needs_input_grad[3:]
        gradients: list[Tensor | None] = [None for _ in wanted]
        norms = zip(*(saved[i::5] for i in range(5)), ctx.minus_sum, strict=True)
        if grad is not None and len(wanted) > 4 * num_terms:
            minus_sum = -element_sum(grad)
            gradients[4 * num_terms :] = [minus_sum for _ in wanted[4 * num_terms :]]
        for i, is_norm in enumerate(ctx.is_norm):
            where, gate = slice(3 * i, 3 * i + 3), 3 * num_terms + i
            if not is_norm:
                gradients[3 * i] = grad
                continue
            x, weight, bias, mean, invstd, minus_sum = next(norms)
            if grad is None or not (any(wanted[where]) or wanted[gate]):
                continue
            found = ctx.kernels.through_norm(grad, x, weight, Statistics(mean, invstd))
            gradients[where] = found if weight is not None else (found[0], None, None)
            if wanted[gate]:
                inner = _gate_gradient(weight, bias, *found[1:])
                # The gradient of a bias, there or not, is the sum over all but the channels.
                gradients[gate] = inner - found[2].sum() if minus_sum else inner
        return None, None, None, *gradients


def _gate_gradient(
    weight: Tensor | None, bias: Tensor | None, grad_weight: Tensor, grad_bias: Tensor
) -> Tensor:
    """`<dL/dout, out>` of `out = weight * normalised + bias`."""
    if weight is None or bias is None:
        return grad_weight.sum()
    return grad_weight.dot(weight) + grad_bias.dot(bias)


class _SilentGates(torch.autograd.Function):
    """An identity that the gates of zeros hang on."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, *gates: Tensor) -> Tensor:
        ctx.num_gates = len(gates)
        return x.view_as(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        minus_sum = -element_sum(grad)
        return grad, *(minus_sum for _ in range(ctx.num_gates))


class _AveragePool(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, gate: Tensor | None, kernels: Kernels, minus_sum: bool
    ) -> Tensor:
        ctx.save_for_backward(*([] if gate is None else [x]))
        ctx.kernels, ctx.minus_sum = kernels, minus_sum
        return kernels.average_pool(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None, None, None]:
        grad_x = ctx.kernels.through_average_pool(grad)
        grad_gate = None
        if ctx.needs_input_grad[1]:
            # <grad, pool(x)> from the other side: x is kept for other edges, too, and pool(x) not.
            grad_gate = inner_product(grad_x, *ctx.saved_tensors)
            if ctx.minus_sum:
                grad_gate = grad_gate - element_sum(grad)
        return grad_x, grad_gate, None, None
