"""The arithmetic of `nas.kernels.fused`, in two makes: PyTorch's own kernels and compiled ones.

Feature maps are `[B, C, H, W]`, statistics `[C]` in float32. Both makes compute the same functions;
the compiled one reads and writes memory fewer times, which is what these functions cost.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, conv2d

from nas.errors import UserError

# Overloads by name: PyTorch would look for the right one in every call, which takes longer than
# small operations do.
_batch_norm = torch.ops.aten.native_batch_norm.default
_batch_norm_backward = torch.ops.aten.native_batch_norm_backward.default
_threshold_backward = torch.ops.aten.threshold_backward.default


class Term(NamedTuple):
    """A summand: `x` itself, or its batch norm where `eps` is given.

    Attributes:
        x: `[B, C, H, W]`.
        eps: Added to the variance; None for no batch norm.
        weight: Scale of the batch norm, `[C]`, or None for 1.
        bias: Shift of the batch norm, `[C]`, or None for 0.
    """

    x: Tensor
    eps: float | None = None
    weight: Tensor | None = None
    bias: Tensor | None = None


class Statistics(NamedTuple):
    """Mean and 1 / sqrt(variance + eps) of each channel over the batch."""

    mean: Tensor
    invstd: Tensor


class Want(Enum):
    """What is wanted of a sum."""

    VALUE = "value"
    RELU = "relu"
    BOTH = "both"


class Sum(NamedTuple):
    """A sum of terms.

    Attributes:
        value: The sum itself, unless only its ReLU was wanted.
        activated: Its ReLU, unless only the value was wanted.
        statistics: Of the batch norms, in the order of their terms.
    """

    value: Tensor | None
    activated: Tensor | None
    statistics: list[Statistics]


class Kernels(Protocol):
    """What a make has to offer."""

    def sum_terms(self, terms: Sequence[Term], want: Want) -> Sum:
        """The sum of `terms`, at least one of them a batch norm."""

    def through_relu(self, grad: Tensor, activated: Tensor, more: Tensor | None) -> Tensor:
        """`grad` where `activated` is positive and 0 elsewhere, plus `more` where it is given."""

    def through_norm(
        self, grad: Tensor, x: Tensor, weight: Tensor | None, statistics: Statistics
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The gradients of a batch norm's input `[B, C, H, W]`, weight and bias `[C]`.

        The last two also where it has neither: `sum(grad * normalised)` and `sum(grad)`.
        """

    def average_pool(self, x: Tensor) -> Tensor:
        """3x3 average pooling of stride 1; windows are divided by their pixels in the image."""

    def through_average_pool(self, grad: Tensor) -> Tensor:
        """The gradient of its input."""


class ATenKernels:
    """PyTorch's own kernels."""

    def sum_terms(self, terms: Sequence[Term], want: Want) -> Sum:
        statistics = []
        normalised, others = [], []
        for x, eps, weight, bias in terms:
            if eps is None:
                others.append(x)
                continue
            out, mean, invstd = _batch_norm(x, weight, bias, None, None, True, 0.0, eps)
            normalised.append(out)
            statistics.append(Statistics(mean, invstd))
        # The result of a batch norm is nobody else's: the sum is made in the first of them.
        total, *rest = normalised + others
        for summand in rest:
            total.add_(summand)
        if want is Want.RELU:
            return Sum(None, total.relu_(), statistics)
        return Sum(total, total.relu() if want is Want.BOTH else None, statistics)

    def through_relu(self, grad: Tensor, activated: Tensor, more: Tensor | None) -> Tensor:
        out: Tensor = _threshold_backward(grad, activated, 0)
        return out if more is None else out.add_(more)

    def through_norm(
        self, grad: Tensor, x: Tensor, weight: Tensor | None, statistics: Statistics
    ) -> tuple[Tensor, Tensor, Tensor]:
        mean, invstd = statistics
        weight = torch.ones_like(mean) if weight is None else weight
        gradients: tuple[Tensor, Tensor, Tensor] = _batch_norm_backward(
            grad, x, weight, None, None, mean, invstd, True, 0.0, [True, True, True]
        )
        return gradients

    def average_pool(self, x: Tensor) -> Tensor:
        return _window_sum(x).mul_(_window_weights(x.shape[1:], x.dtype, x.device))

    def through_average_pool(self, grad: Tensor) -> Tensor:
        # The sum over a window is its own adjoint.
        return _window_sum(grad * _window_weights(grad.shape[1:], grad.dtype, grad.device))


class CompiledKernels(ATenKernels):
    """Kernels that PyTorch's Inductor makes: C++ on a CPU, Triton on a GPU.

    Each is compiled when its shapes are first met (seconds) and kept on disk by Inductor.
    """

    def __init__(self) -> None:
        self._compiled: dict[Hashable, Callable[..., Any]] = {}

    @classmethod
    def checked(cls, device: torch.device) -> "CompiledKernels":
        """The kernels, after a try whether anything can be compiled for `device`.

        Raises:
            UserError: it cannot; says why.
        """
        kernels, x = cls(), torch.zeros(2, 1, 2, 2, device=device)
        try:
            kernels.sum_terms([Term(x, 1e-5)], Want.BOTH)
        except Exception as error:  # whatever Inductor and the compilers below it raise
            reason = str(error).strip().partition("\n")[0]
            raise UserError(
                f"kernels=compiled needs a C++ compiler on a CPU and Triton on a GPU; use "
                f"kernels=auto. Inductor says: {reason}"
            ) from None
        return kernels

    def sum_terms(self, terms: Sequence[Term], want: Want) -> Sum:
        statistics = []
        normalised: list[Tensor] = []
        others: list[Tensor] = []
        for x, eps, weight, bias in terms:
            if eps is None:
                others.append(x)
                continue
            mean, scale, shift = self._run(_Measure(eps), x)
            statistics.append(Statistics(mean, scale))
            if weight is not None and bias is not None:
                scale = scale * weight
                shift = bias - mean * scale
            normalised += [x, scale, shift]
        value, activated = self._run(_SumTerms(len(normalised), want), *normalised, *others)
        return Sum(value, activated, statistics)

    def through_relu(self, grad: Tensor, activated: Tensor, more: Tensor | None) -> Tensor:
        if more is None:
            out: Tensor = _threshold_backward(grad, activated, 0)
        else:
            out = self._run(_through_relu, grad, activated, more)
        return out

    def through_norm(
        self, grad: Tensor, x: Tensor, weight: Tensor | None, statistics: Statistics
    ) -> tuple[Tensor, Tensor, Tensor]:
        mean, invstd = statistics
        scale = invstd if weight is None else invstd * weight
        gradients: tuple[Tensor, Tensor, Tensor] = self._run(
            _through_norm, grad, x, mean, invstd, scale
        )
        return gradients

    def average_pool(self, x: Tensor) -> Tensor:
        if _is_slow_to_compile(x):
            return super().average_pool(x)
        weights = _window_weights(x.shape[1:], torch.float32, x.device)
        out: Tensor = self._run(_average_pool, x, weights)
        return out

    def through_average_pool(self, grad: Tensor) -> Tensor:
        if _is_slow_to_compile(grad):
            return super().through_average_pool(grad)
        weights = _window_weights(grad.shape[1:], torch.float32, grad.device)
        out: Tensor = self._run(_through_average_pool, grad, weights)
        return out

    def _run(self, function: Callable[..., Any], *tensors: Tensor) -> Any:
        key = (function, *[(t.shape, t.stride(), t.dtype, t.device) for t in tensors])
        kernel = self._compiled.get(key)
        if kernel is None:
            kernel = self._compiled[key] = _compile(function, tensors)
        return kernel(*tensors)


def inner_product(a: Tensor, b: Tensor) -> Tensor:
    """`<a, b>` over all elements, a scalar: float64 for float64, else float32.

    In bf16 the sum is made in float32 and rounded once, by at most 2^-9 of itself.
    """
    if b.dim() == 4 and b.is_contiguous(memory_format=torch.channels_last):
        # Flatten in the order in which b lies in memory: views, no copies, where a lies alike.
        a, b = a.permute(0, 2, 3, 1), b.permute(0, 2, 3, 1)
    product = torch.dot(a.reshape(-1), b.reshape(-1).to(a.dtype))
    return product if a.dtype == torch.float64 else product.float()


def element_sum(a: Tensor) -> Tensor:
    """The sum of all elements, a scalar: float64 for float64, else float32."""
    return a.sum(dtype=torch.float64 if a.dtype == torch.float64 else torch.float32)


def _compile(function: Callable[..., Any], tensors: Sequence[Tensor]) -> Callable[..., Any]:
    from torch.fx.experimental.proxy_tensor import make_fx  # slow to import, and only needed here

    with torch.no_grad(), torch.autocast(tensors[0].device.type, enabled=False):
        examples: list[Any] = [tensor.detach() for tensor in tensors]
        graph = make_fx(function)(*examples)
        # Not torch.compile: its guards cost four times the call of a kernel (21 and 5 us on a CPU),
        # and what they guard is the key of the table above.
        kernel: Callable[..., Any] = torch._inductor.compile(graph, examples)
    return kernel


def _is_slow_to_compile(x: Tensor) -> bool:
    """Inductor's C++ for pooling bf16 is not vectorised: ten times the time of a convolution."""
    return x.device.type == "cpu" and x.dtype != torch.float32


def _window_sum(x: Tensor) -> Tensor:
    """The sum over each 3x3 window."""
    if x.device.type != "cpu":
        return avg_pool2d(x, 3, 1, 1, divisor_override=1)
    # A depthwise convolution takes a third of the time of PyTorch's pooling on a CPU.
    channels = x.shape[1]
    return conv2d(x, _ones(channels, x.dtype), padding=1, groups=channels)


@lru_cache
def _ones(channels: int, dtype: torch.dtype) -> Tensor:
    return torch.ones(channels, 1, 3, 3, dtype=dtype)


@lru_cache
def _window_weights(size: torch.Size, dtype: torch.dtype, device: torch.device) -> Tensor:
    """1 / (pixels in the 3x3 window around each pixel), `[1, C, H, W]`, channels last."""
    # Not broadcast over the channels: in bf16 that takes eight times as long.
    inside = torch.ones(1, *size, dtype=torch.float64)
    weights = _window_sum(inside).reciprocal()
    return weights.to(device, dtype).contiguous(memory_format=torch.channels_last)


def _spread(per_channel: Tensor) -> Tensor:
    return per_channel[None, :, None, None]


@dataclass(frozen=True)
class _Measure:
    """Mean, 1 / sqrt(variance + eps) and minus their product, in one pass."""

    eps: float

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        # Shifted by one pixel, which lies near the mean: without it E[x^2] - E[x]^2 would lose
        # its digits where the mean is large against the deviation.
        pivot = x[:1, :, :1, :1].float()
        shifted = x.float() - pivot
        mean = shifted.mean((0, 2, 3), keepdim=True)
        variance = (shifted * shifted).mean((0, 2, 3), keepdim=True) - mean * mean
        mean, invstd = (
            (mean + pivot).flatten(),
            (variance.clamp_min(0) + self.eps).rsqrt().flatten(),
        )
        return mean, invstd, -mean * invstd


@dataclass(frozen=True)
class _SumTerms:
    """The sum of `x * scale + shift` over the first tensors and of the rest as they are."""

    num_normalised: int
    want: Want

    def __call__(self, *tensors: Tensor) -> tuple[Tensor | None, Tensor | None]:
        normalised, others = tensors[: self.num_normalised], tensors[self.num_normalised :]
        summands = [other.float() for other in others]
        for x, scale, shift in zip(*(normalised[i::3] for i in range(3)), strict=True):
            summands.append(x.float() * _spread(scale) + _spread(shift))
        total = sum(summands[1:], summands[0]).to(tensors[0].dtype)
        return (
            None if self.want is Want.RELU else total,
            None if self.want is Want.VALUE else total.relu(),
        )


def _through_relu(grad: Tensor, activated: Tensor, more: Tensor) -> Tensor:
    return torch.where(activated > 0, grad + more, more)


def _through_norm(
    grad: Tensor, x: Tensor, mean: Tensor, invstd: Tensor, scale: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    normalised = (x.float() - _spread(mean)) * _spread(invstd)
    grad = grad.float()
    grad_weight, grad_bias = (grad * normalised).sum((0, 2, 3)), grad.sum((0, 2, 3))
    count = x.numel() // x.shape[1]
    along = _spread(grad_bias) + normalised * _spread(grad_weight)
    return ((grad - along / count) * _spread(scale)).to(x.dtype), grad_weight, grad_bias


def _average_pool(x: Tensor, weights: Tensor) -> Tensor:
    return (avg_pool2d(x.float(), 3, 1, 1, divisor_override=1) * weights).to(x.dtype)


def _through_average_pool(grad: Tensor, weights: Tensor) -> Tensor:
    return avg_pool2d(grad.float() * weights, 3, 1, 1, divisor_override=1).to(grad.dtype)
