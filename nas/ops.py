"""Candidate operations and their registry.

An operation is built by `build_operation(name, channels, stride, norm)` and maps `[B, C, H, W]` to
`[B, C, H / stride, W / stride]`, rounded up. The structures are those of
NAS-Bench-201 (Dong & Yang, 2020, arXiv:2001.00326) and DARTS (Liu et al., 2019, arXiv:1806.09055);
parameter counts agree with the published networks.

A new operation is one decorated function here or in the user's own module.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nas.registry import Registry


@dataclass(frozen=True)
class Norm:
    """How batch normalisation is set in a network.

    Attributes:
        affine: Learn a scale and a shift. Off in supernets, where they could rescale an operation
            against its logits.
        track_running_stats: Keep running statistics for evaluation; otherwise the statistics of
            the batch are used there too.
    """

    affine: bool = True
    track_running_stats: bool = True

    def __call__(self, channels: int) -> nn.BatchNorm2d:
        return nn.BatchNorm2d(
            channels, affine=self.affine, track_running_stats=self.track_running_stats
        )


class AveragePool2d(nn.AvgPool2d):
    """`nn.AvgPool2d`, with the right gradient in channels-last on a GPU, too.

    There the gradient that PyTorch computes where padding is not counted is wrong: with torch 2.11
    on an H200 it was off by as much as the gradient itself, while the output, and both in NCHW,
    were exact (`tests/gpu/test_gpu_ops.py`). So a GPU pools in NCHW.
    """

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "cuda" or x.is_contiguous():
            return super().forward(x)
        return super().forward(x.contiguous()).contiguous(memory_format=torch.channels_last)


_SAFE_CHANNELS = 8

OperationBuilder = Callable[[int, int, Norm], nn.Module]
OPERATIONS: Registry[OperationBuilder] = Registry("operation")


def build_operation(name: str, channels: int, stride: int, norm: Norm) -> nn.Module:
    """Builds the operation called `name`, for `channels` in and out and stride 1 or 2.

    Raises:
        UserError: no operation has that name.
    """
    return OPERATIONS.get(name)(channels, stride, norm)


class Zero(nn.Module):
    """The operation `none`: no connection.

    Cells leave such edges out (see `nas.spaces.cell`), so its forward pass is only met where
    somebody calls it directly.
    """

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        return torch.zeros_like(x[:, :, :: self.stride, :: self.stride])


def every_other(x: Tensor) -> Tensor:
    """The pixels that a 1x1 convolution of stride 2 reads; one of stride 1 after it is the same.

    And it is safe where PyTorch's own is not, see `guard_pointwise`.
    """
    return x[:, :, ::2, ::2]


def guard_pointwise(model: nn.Module) -> nn.Module:
    """Keeps 1x1 convolutions with strides and few channels out of channels-last memory on a CPU.

    There PyTorch's own write beyond their memory in the backward pass (seen with torch 2.14 and
    fewer than 8 channels), which ends the process sooner or later. Results stay.

    Returns:
        `model`, with hooks on such convolutions.
    """
    for module in model.modules():
        if (
            isinstance(module, nn.Conv2d)
            and module.kernel_size == (1, 1)
            and module.stride != (1, 1)
            and module.in_channels < _SAFE_CHANNELS
        ):
            # Of this shape `contiguous` takes both layouts for one.
            plain = module.weight.detach().clone(memory_format=torch.contiguous_format)
            module.weight.data = plain
            module.register_forward_pre_hook(_in_nchw)
    return model


def _in_nchw(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    (x,) = inputs
    if x.device.type != "cpu":
        return (x,)
    return (x.clone(memory_format=torch.contiguous_format),)


class ReLUConvBN(nn.Sequential):
    """ReLU, convolution without bias, batch norm; `padding` keeps the size at stride 1."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int,
        norm: Norm,
    ) -> None:
        picks = kernel_size == 1 and stride == 2
        super().__init__(
            nn.ReLU(),
            nn.Conv2d(
                in_channels,
                out_channels,
                kernel_size,
                1 if picks else stride,
                kernel_size // 2,
                bias=False,
            ),
            norm(out_channels),
        )
        self.picks = picks

    def forward(self, input: Tensor) -> Tensor:
        out: Tensor = super().forward(every_other(input) if self.picks else input)
        return out


class FactorizedReduce(nn.Module):
    """Halves the resolution with two 1x1 convolutions of stride 2, the second shifted by one pixel.

    Sees every pixel's diagonal neighbour too, which one 1x1 convolution of stride 2 would drop.
    Odd sizes are padded with zeros below and to the right, so that both halves agree in size.
    """

    def __init__(self, in_channels: int, out_channels: int, norm: Norm) -> None:
        super().__init__()
        half = out_channels // 2
        self.relu = nn.ReLU()
        self.even = nn.Conv2d(in_channels, half, 1, bias=False)
        self.odd = nn.Conv2d(in_channels, out_channels - half, 1, bias=False)
        self.norm = norm(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(x)
        height, width = x.shape[-2:]
        shifted = every_other(x[:, :, 1:, 1:])
        shifted = nn.functional.pad(shifted, (0, width % 2, 0, height % 2))
        out: Tensor = self.norm(torch.cat([self.even(every_other(x)), self.odd(shifted)], dim=1))
        return out


def _separable(channels: int, kernel_size: int, stride: int, dilation: int) -> list[nn.Module]:
    """ReLU, depthwise convolution, pointwise convolution."""
    padding = dilation * (kernel_size - 1) // 2
    depthwise = nn.Conv2d(
        channels,
        channels,
        kernel_size,
        stride,
        padding,
        dilation,
        groups=channels,
        bias=False,
    )
    return [nn.ReLU(), depthwise, nn.Conv2d(channels, channels, 1, bias=False)]


def separable_conv(channels: int, kernel_size: int, stride: int, norm: Norm) -> nn.Module:
    """Depthwise separable convolution, applied twice (DARTS, section 3.1)."""
    return nn.Sequential(
        *_separable(channels, kernel_size, stride, dilation=1),
        norm(channels),
        *_separable(channels, kernel_size, 1, dilation=1),
        norm(channels),
    )


class DilatedConv(nn.Sequential):
    """ReLU, dilated depthwise and pointwise convolution, norm; right in bf16 on a CPU, too.

    There the gradient that PyTorch computes for the weights of a dilated depthwise convolution is
    wrong: with torch 2.14 on maps of 32x32 in channels-last it was off by more than itself, or
    infinite, while the output and the gradient of the input were right (`tests/test_ops.py`). So
    there it runs in float32, which takes about half the time as well.
    """

    def forward(self, x: Tensor) -> Tensor:
        relu, depthwise, *others = self
        x = relu(x)
        if x.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
            with torch.autocast("cpu", enabled=False):
                x = depthwise(x.float())
        else:
            x = depthwise(x)
        for module in others:
            x = module(x)
        return x


def dilated_conv(channels: int, kernel_size: int, stride: int, norm: Norm) -> nn.Module:
    """Depthwise separable convolution with dilation 2, applied once."""
    return DilatedConv(*_separable(channels, kernel_size, stride, dilation=2), norm(channels))


@OPERATIONS.register("none")
def _none(channels: int, stride: int, norm: Norm) -> nn.Module:
    """No connection."""
    return Zero(stride)


@OPERATIONS.register("skip_connect")
def _skip_connect(channels: int, stride: int, norm: Norm) -> nn.Module:
    """The input as it is; halved by two 1x1 convolutions where the stride is 2."""
    return nn.Identity() if stride == 1 else FactorizedReduce(channels, channels, norm)


@OPERATIONS.register("nor_conv_1x1")
def _nor_conv_1x1(channels: int, stride: int, norm: Norm) -> nn.Module:
    """ReLU, 1x1 convolution, batch norm (NAS-Bench-201)."""
    return ReLUConvBN(channels, channels, 1, stride, norm)


@OPERATIONS.register("nor_conv_3x3")
def _nor_conv_3x3(channels: int, stride: int, norm: Norm) -> nn.Module:
    """ReLU, 3x3 convolution, batch norm (NAS-Bench-201)."""
    return ReLUConvBN(channels, channels, 3, stride, norm)


@OPERATIONS.register("avg_pool_3x3")
def _avg_pool_3x3(channels: int, stride: int, norm: Norm) -> nn.Module:
    """3x3 average pooling, padding not counted."""
    return AveragePool2d(3, stride, padding=1, count_include_pad=False)


@OPERATIONS.register("max_pool_3x3")
def _max_pool_3x3(channels: int, stride: int, norm: Norm) -> nn.Module:
    """3x3 max pooling."""
    return nn.MaxPool2d(3, stride, padding=1)


@OPERATIONS.register("sep_conv_3x3")
def _sep_conv_3x3(channels: int, stride: int, norm: Norm) -> nn.Module:
    """3x3 depthwise separable convolution, applied twice (DARTS)."""
    return separable_conv(channels, 3, stride, norm)


@OPERATIONS.register("sep_conv_5x5")
def _sep_conv_5x5(channels: int, stride: int, norm: Norm) -> nn.Module:
    """5x5 depthwise separable convolution, applied twice (DARTS)."""
    return separable_conv(channels, 5, stride, norm)


@OPERATIONS.register("dil_conv_3x3")
def _dil_conv_3x3(channels: int, stride: int, norm: Norm) -> nn.Module:
    """3x3 depthwise separable convolution with dilation 2 (DARTS)."""
    return dilated_conv(channels, 3, stride, norm)


@OPERATIONS.register("dil_conv_5x5")
def _dil_conv_5x5(channels: int, stride: int, norm: Norm) -> nn.Module:
    """5x5 depthwise separable convolution with dilation 2 (DARTS)."""
    return dilated_conv(channels, 5, stride, norm)
