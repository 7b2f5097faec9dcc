"""Layers whose sizes are open: one set of weights, of which each size uses the first part.

They are called as their namesakes in `torch.nn` and take a `ValueChoice`, or what follows from one,
wherever those take a number. Selected sizes cost what a layer of that size costs: the weights are
sliced, not masked. A kernel uses the middle of the largest (Once-for-All, arXiv:1908.09791).

While sizes are mixed the layer runs at its largest, and the mixture of masks weighs what it puts
out, or the elements of its kernel (FBNetV2, arXiv:2004.05565; Single-Path NAS, arXiv:1904.02877).
"""

from numbers import Integral
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from nas.errors import UserError
from nas.values import Size, Value, mixed_mask, number, whole

SAME = "same"


class Conv2d(nn.Conv2d):
    """A convolution with open numbers of channels and an open kernel size."""

    def __init__(
        self,
        in_channels: Size,
        out_channels: Size,
        kernel_size: Size,
        stride: int = 1,
        padding: int | str = 0,
        dilation: int = 1,
        groups: Size = 1,
        bias: bool = True,
    ) -> None:
        """Args are those of `torch.nn.Conv2d`, with these differences.

        Args:
            in_channels: Channels of the input.
            out_channels: Channels of the output.
            kernel_size: Odd where it is open.
            stride: As there.
            padding: A number, or `same`: an output of 1 / stride of the size, rounded up.
            dilation: As there.
            groups: 1, a number that divides all channels that are not open, or the number of
                channels in and out: a depthwise convolution.
            bias: As there.

        Raises:
            UserError: sizes that do not go together.
        """
        self._in = whole(in_channels, "Conv2d: in_channels")
        self._out = whole(out_channels, "Conv2d: out_channels")
        self._kernel = whole(kernel_size, "Conv2d: kernel_size")
        groups_value = whole(groups, "Conv2d: groups")
        self._depthwise = bool(groups_value.sources)
        if self._depthwise and not in_channels is out_channels is groups:
            raise UserError(
                "Conv2d: open groups must be the same object as in_channels and out_channels "
                "(a depthwise convolution)"
            )
        if not self._depthwise and groups != 1 and (self._in.sources or self._out.sources):
            raise UserError(
                f"Conv2d: groups={groups} with open channels: pass the channels as groups "
                "(a depthwise convolution) or 1"
            )
        _check_window(self._kernel, stride, padding, dilation)
        super().__init__(
            int(self._in.largest),
            int(self._out.largest),
            int(self._kernel.largest),
            stride,
            0,
            dilation,
            int(groups_value.largest),
            bias,
        )
        self._pad = padding
        self.values = _modules_of(
            in_channels=self._in, out_channels=self._out, kernel_size=self._kernel
        )

    def forward(self, input: Tensor) -> Tensor:
        return self.decided(self.convolve(input))

    def convolve(self, x: Tensor) -> Tensor:
        """The convolution alone, without what the decision adds to its output."""
        weight, bias = self._present()
        groups = number(self._out) if self._depthwise else self.groups
        padding = self._padding(weight.shape[-1])
        stride = self.stride
        if weight.shape[-1] == 1 and padding == 0 and stride != (1, 1):
            # The same, and safe where PyTorch's own is not: see `nas.ops.guard_pointwise`.
            x, stride = x[:, :, :: stride[0], :: stride[1]], (1, 1)
        return functional.conv2d(x, weight, bias, stride, padding, self.dilation, groups)

    def decided(self, out: Tensor) -> Tensor:
        """`out` masked where widths are mixed, and gated where a gradient is wanted."""
        return _decided(out, self._out, 1, self._kernel)

    def _present(self) -> tuple[Tensor, Tensor | None]:
        weight, bias = self.weight, self.bias
        out = number(self._out)
        size, largest = number(self._kernel), weight.shape[-1]
        mask = mixed_mask(self._kernel, weight.device, weight.dtype)
        if mask is not None and self._kernel.sources:
            # Element i belongs to kernels of at least 2 |i - middle| + 1.
            distance = (torch.arange(largest, device=weight.device) - largest // 2).abs()
            needed = 2 * torch.maximum(distance[:, None], distance[None, :])
            weight = weight * mask[needed]
        elif size < largest:
            margin = (largest - size) // 2
            weight = weight[:, :, margin : largest - margin, margin : largest - margin]
        inputs = weight.shape[1] if self._depthwise else number(self._in) // self.groups
        if (out, inputs) != tuple(weight.shape[:2]):
            weight = weight[:out, :inputs]
            bias = None if bias is None else bias[:out]
        return weight, bias

    def _padding(self, kernel_size: int) -> int:
        if self._pad == SAME:
            return self.dilation[0] * (kernel_size - 1) // 2
        return int(self._pad)

    def derived(self) -> nn.Module:
        """The plain layer of the present sizes, with the weights that they use."""
        weight, bias = self._present()
        plain = nn.Conv2d(
            number(self._in),
            number(self._out),
            weight.shape[-1],
            self.stride[0],
            self._padding(weight.shape[-1]),
            self.dilation[0],
            number(self._out) if self._depthwise else self.groups,
            bias is not None,
        )
        return _with(plain, self, weight=weight, bias=bias)


class Linear(nn.Linear):
    """A linear layer with open numbers of features."""

    def __init__(self, in_features: Size, out_features: Size, bias: bool = True) -> None:
        """Args are those of `torch.nn.Linear`."""
        self._in = whole(in_features, "Linear: in_features")
        self._out = whole(out_features, "Linear: out_features")
        super().__init__(int(self._in.largest), int(self._out.largest), bias)
        self.values = _modules_of(in_features=self._in, out_features=self._out)

    def forward(self, input: Tensor) -> Tensor:
        return _decided(functional.linear(input, *self._present()), self._out, -1)

    def _present(self) -> tuple[Tensor, Tensor | None]:
        out, inputs = number(self._out), number(self._in)
        if (out, inputs) == tuple(self.weight.shape):
            return self.weight, self.bias
        return self.weight[:out, :inputs], None if self.bias is None else self.bias[:out]

    def derived(self) -> nn.Module:
        """The plain layer of the present sizes, with the weights that they use."""
        weight, bias = self._present()
        plain = nn.Linear(weight.shape[1], weight.shape[0], bias is not None)
        return _with(plain, self, weight=weight, bias=bias)


class BatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation of an open number of channels.

    Running statistics are shared by all widths, so a supernet of several does better with those of
    the batch (`track_running_stats=False`) or recalibrates them (`recalibration_batches`).
    """

    def __init__(
        self,
        num_features: Size,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
    ) -> None:
        """Args are those of `torch.nn.BatchNorm2d`."""
        self._features = whole(num_features, "BatchNorm2d: num_features")
        super().__init__(int(self._features.largest), eps, momentum, affine, track_running_stats)
        self.values = _modules_of(size=self._features)

    def forward(self, input: Tensor) -> Tensor:
        return self.decided(self.normalize(input))

    def normalize(self, x: Tensor) -> Tensor:
        """The normalisation alone, without what the decision adds to its output."""
        size = number(self._features)
        if size == self.num_features:
            return super().forward(x)
        mean, variance, weight, bias = (None if t is None else t[:size] for t in self._state())
        if self.training and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        momentum = self.momentum
        if momentum is None:  # a cumulative mean
            momentum = 1.0 / float(self.num_batches_tracked or 1)
        batch_statistics = self.training or mean is None
        return functional.batch_norm(
            x, mean, variance, weight, bias, batch_statistics, momentum, self.eps
        )

    def decided(self, out: Tensor) -> Tensor:
        """`out` masked where widths are mixed, and gated where a gradient is wanted."""
        return _decided(out, self._features, 1)

    def _state(self) -> tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None]:
        return self.running_mean, self.running_var, self.weight, self.bias

    def derived(self) -> nn.Module:
        """The plain layer of the present size, with the weights and statistics that it uses."""
        size = number(self._features)
        plain = nn.BatchNorm2d(size, self.eps, self.momentum, self.affine, self.track_running_stats)
        mean, variance, weight, bias = (None if t is None else t[:size] for t in self._state())
        tensors = {"running_mean": mean, "running_var": variance, "weight": weight, "bias": bias}
        return _with(plain, self, num_batches_tracked=self.num_batches_tracked, **tensors)


class LayerNorm(nn.LayerNorm):
    """Layer normalisation of the last dimension, whose size is open."""

    def __init__(self, normalized_shape: Size, eps: float = 1e-5, bias: bool = True) -> None:
        """Args are those of `torch.nn.LayerNorm`; `normalized_shape` is one number."""
        self._features = whole(normalized_shape, "LayerNorm: normalized_shape")
        super().__init__(int(self._features.largest), eps, bias=bias)
        self.values = _modules_of(size=self._features)

    def forward(self, input: Tensor) -> Tensor:
        weights = self._features.weights()
        if weights is None:
            out = self._normalize(input, number(self._features))
            return self._features.gated(out)
        # Each width has a mean and a variance of its own.
        terms = []
        for value, weight in weights.items():
            out = weight * self._normalize(input[..., : int(value)], int(value))
            terms.append(functional.pad(out, (0, input.shape[-1] - int(value))))
        return torch.stack(terms).sum(0)

    def _normalize(self, x: Tensor, size: int) -> Tensor:
        bias = None if self.bias is None else self.bias[:size]
        return functional.layer_norm(x, (size,), self.weight[:size], bias, self.eps)

    def derived(self) -> nn.Module:
        """The plain layer of the present size, with the weights that it uses."""
        size = number(self._features)
        plain = nn.LayerNorm(size, self.eps, bias=self.bias is not None)
        bias = None if self.bias is None else self.bias[:size]
        return _with(plain, self, weight=self.weight[:size], bias=bias)


class ConvNorm2d(nn.Module):
    """A convolution without bias and its batch norm, decided as one.

    Batch norm takes the scale of its input out, and with it the inner product `<dL/dout, out>` of
    a convolution before it, which is 0. So one-path samplers learn a kernel size only where the
    gradient is taken behind the norm, as here.
    """

    def __init__(
        self,
        in_channels: Size,
        out_channels: Size,
        kernel_size: Size,
        stride: int = 1,
        groups: Size = 1,
        affine: bool = True,
        track_running_stats: bool = True,
    ) -> None:
        """Args are those of `Conv2d`, padded to `same`, and of `BatchNorm2d`."""
        super().__init__()
        self.conv = Conv2d(
            in_channels, out_channels, kernel_size, stride, SAME, groups=groups, bias=False
        )
        self.norm = BatchNorm2d(
            out_channels, affine=affine, track_running_stats=track_running_stats
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.conv.decided(self.norm.normalize(self.conv.convolve(x)))

    def derived(self) -> nn.Module:
        """Both layers; each has its own plain form."""
        return nn.Sequential(self.conv, self.norm)


ELASTIC = (Conv2d, Linear, BatchNorm2d, LayerNorm)
"""Layers that pass on a part of their weights."""


def _check_window(kernel: Value, stride: int, padding: int | str, dilation: int) -> None:
    """Raises a `UserError` unless all are numbers, and outputs as large whatever the kernel."""
    for name, value in (("stride", stride), ("dilation", dilation), ("padding", padding)):
        if not (isinstance(value, Integral) or (name == "padding" and value == SAME)):
            raise UserError(
                f"Conv2d: {name} is {value!r}: must be one number"
                + (f", or '{SAME}'" if name == "padding" else "")
            )
    if len(kernel.possible) > 1 and (padding != SAME or any(k % 2 == 0 for k in kernel.possible)):
        raise UserError(
            f"Conv2d: kernel sizes {kernel.possible} give outputs of different sizes: they must be "
            "odd, with padding='same'"
        )
    # An even stride may be meant: patches of 2x2 pixels.
    if padding == SAME and stride % 2 and dilation * (kernel.largest - 1) % 2:
        raise UserError(
            f"Conv2d: padding='same' on both sides needs an odd kernel at stride {stride}, got "
            f"{kernel.largest}"
        )


def _decided(out: Tensor, value: Value, dim: int, *others: Value) -> Tensor:
    mask = mixed_mask(value, out.device, out.dtype) if value.sources else None
    if mask is not None:
        out = out * (mask if dim == -1 else mask[:, None, None])
    for each in (value, *others):
        out = each.gated(out)
    return out


def _modules_of(**sizes: Value) -> nn.ModuleDict:
    """The choices that sizes follow from, so that they are found in the model, by what they set."""
    found: dict[nn.Module, str] = {}
    for name, value in sizes.items():
        for position, source in enumerate(value.sources):
            found.setdefault(source, name if position == 0 else f"{name}_{position}")
    return nn.ModuleDict({name: source for source, name in found.items()})


def _with(plain: nn.Module, layer: nn.Module, **tensors: Tensor | None) -> nn.Module:
    """`plain` with copies of `tensors`, on the device, in the type and mode of `layer`."""
    state: dict[str, Any] = {k: t.detach().clone() for k, t in tensors.items() if t is not None}
    floating = next((t for t in state.values() if t.is_floating_point()), None)
    if floating is not None:
        plain = plain.to(device=floating.device, dtype=floating.dtype)
    plain.load_state_dict(state)
    for name, parameter in plain.named_parameters():
        parameter.requires_grad_(getattr(layer, name).requires_grad)
    return plain.train(layer.training)
