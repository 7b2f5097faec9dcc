"""Faster forms of the modules of a supernet, with the same results.

Run module by module, each batch norm, ReLU and sum of a cell reads and writes whole feature maps,
and the ReLUs of all edges that leave a node do the same work. Here these are made together (see
`nas.kernels.pending` and `nas.kernels.arithmetic`), and the inner product `<dL/dout, out>` that
trains the logits comes from the backward pass of the batch norm, which computes it anyway. Average
pooling becomes a depthwise convolution, which CPUs run three times as fast.

`fuse` replaces the modules of a supernet. Parameters, buffers and their names stay.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from nas.kernels.arithmetic import ATenKernels, CompiledKernels, Kernels
from nas.kernels.pending import FusedNorm, PendingPool, relu, state_of, value_of

KERNELS = ("auto", "plain", "fused", "compiled", "graphs")


class FusedReLU(nn.Module):
    """ReLU that takes the result that the sum before it has at hand."""

    def forward(self, x: Tensor) -> Tensor:
        return relu(x)


class FusedAveragePool(nn.Module):
    """3x3 average pooling of stride 1 that does not count the padding."""

    def __init__(self, kernels: Kernels) -> None:
        super().__init__()
        self.kernels = kernels

    def forward(self, x: Tensor) -> Tensor:
        return PendingPool(state_of(x), self.kernels)  # type: ignore[return-value]


class FusedConv(nn.Conv2d):
    """A convolution that keeps nothing but its weights while these are not trained."""

    def forward(self, input: Tensor) -> Tensor:
        if self.weight.requires_grad or not torch.is_grad_enabled():
            return super().forward(input)
        settings = (self.stride, self.padding, self.dilation, self.groups)
        out: Tensor = _FrozenConv.apply(value_of(input), self.weight, settings)
        return out


class _FrozenConv(torch.autograd.Function):
    """PyTorch's own keeps its input, which only the gradient of the weights needs."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, settings: tuple[Any, ...]) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.size, ctx.strides, ctx.settings = x.shape, x.stride(), settings
        return nn.functional.conv2d(x, weight, None, *settings)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (weight,) = ctx.saved_tensors
        stride, padding, dilation, groups = ctx.settings
        # Stands for the input, whose size and memory layout are asked for and whose values are not.
        x = grad.new_empty_strided(ctx.size, ctx.strides)
        grad_x: Tensor = torch.ops.aten.convolution_backward.default(
            grad,
            x,
            weight.to(grad.dtype),
            None,
            stride,
            padding,
            dilation,
            False,
            [0, 0],
            groups,
            [True, False, False],
        )[0]
        return grad_x, None, None


def accelerate(model: nn.Module, kernels: str, device: torch.device) -> nn.Module:
    """Makes `model`, a supernet on `device`, run with the kernels called `kernels`.

    `plain` is module by module, `fused` and `compiled` are this module with either make of
    `nas.kernels.arithmetic`, and so is `auto` on a CPU. For `graphs`, and `auto` on a GPU, see
    `nas.kernels.graphs`: the modules stay.

    Raises:
        UserError: `compiled`, and nothing can be compiled here.
    """
    if kernels == "compiled":
        fuse(model, CompiledKernels.checked(device))
    elif kernels == "fused" or (kernels == "auto" and device.type == "cpu"):
        fuse(model, ATenKernels())
    return model


def fuse(model: nn.Module, kernels: Kernels) -> None:
    """Replaces the batch norms, ReLUs and average pools inside `model` by faster ones."""
    for name, module in model.named_children():
        replacement = _replacement(module, kernels)
        if replacement is None:
            fuse(module, kernels)
        else:
            setattr(model, name, replacement)


def _replacement(module: nn.Module, kernels: Kernels) -> nn.Module | None:
    if module._forward_hooks or module._forward_pre_hooks:  # which somebody has put there
        return None
    if type(module) is nn.BatchNorm2d and module.momentum is not None:
        norm = FusedNorm(module.num_features, module.eps, module.momentum)
        norm.affine, norm.track_running_stats = module.affine, module.track_running_stats
        norm._parameters, norm._buffers = module._parameters, module._buffers
        norm.kernels = kernels
        return norm.train(module.training)
    if type(module) is nn.Conv2d and module.bias is None and module.padding_mode == "zeros":
        conv = FusedConv(
            module.in_channels,
            module.out_channels,
            module.kernel_size,  # type: ignore[arg-type]
            module.stride,  # type: ignore[arg-type]
            module.padding,  # type: ignore[arg-type]
            module.dilation,  # type: ignore[arg-type]
            module.groups,
            bias=False,
            device="meta",
        )
        conv._parameters = module._parameters
        return conv
    if type(module) is nn.ReLU:
        return FusedReLU()
    if isinstance(module, nn.AvgPool2d) and not module.count_include_pad:
        sizes: tuple[object, ...] = (module.kernel_size, module.stride, module.padding)
        return FusedAveragePool(kernels) if sizes == (3, 1, 1) else None
    return None
