"""Candidate operations: shapes, gradients, and the structures of the papers."""

import copy

import pytest
import torch
from torch import Tensor, nn

from nas.elastic import Conv2d
from nas.errors import UserError
from nas.ops import (
    OPERATIONS,
    FactorizedReduce,
    Norm,
    Zero,
    build_operation,
    guard_pointwise,
)

C = 8
NAMES = OPERATIONS.names()


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("size", [(8, 8), (7, 9), (1, 1), (2, 5)], ids=str)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("name", NAMES)
def test_output_has_the_size_over_the_stride_rounded_up(
    name: str, stride: int, size: tuple[int, int]
) -> None:
    operation = build_operation(name, C, stride, Norm())
    out = operation(torch.randn(2, C, *size))
    assert out.shape == (2, C, -(-size[0] // stride), -(-size[1] // stride))


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("name", NAMES)
def test_gradients_reach_the_input_and_every_weight(name: str, stride: int) -> None:
    torch.manual_seed(0)
    operation = build_operation(name, C, stride, Norm())
    x = torch.randn(3, C, 8, 8, requires_grad=True)
    out = operation(x)
    if name == "none":
        assert out.count_nonzero() == 0
        assert not out.requires_grad
        return
    out.backward(torch.randn_like(out))
    assert x.grad is not None
    assert x.grad.count_nonzero() > 0
    for weight in operation.parameters():
        assert weight.grad is not None
        assert weight.grad.count_nonzero() > 0


# Closed forms: a depthwise kernel has C*k*k weights, a pointwise one C*C, a norm 2C.
PARAMETERS = {
    "none": (0, 0),
    "skip_connect": (0, C * C + 2 * C),
    "avg_pool_3x3": (0, 0),
    "max_pool_3x3": (0, 0),
    "nor_conv_1x1": (C * C + 2 * C,) * 2,
    "nor_conv_3x3": (9 * C * C + 2 * C,) * 2,
    "sep_conv_3x3": (2 * (9 * C + C * C + 2 * C),) * 2,
    "sep_conv_5x5": (2 * (25 * C + C * C + 2 * C),) * 2,
    "dil_conv_3x3": (9 * C + C * C + 2 * C,) * 2,
    "dil_conv_5x5": (25 * C + C * C + 2 * C,) * 2,
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameter_counts_are_the_closed_forms(name: str) -> None:
    counts = tuple(parameters(build_operation(name, C, s, Norm())) for s in (1, 2))
    assert counts == PARAMETERS[name]


# Pixels a side that one output pixel sees: separable convolutions are applied twice, dilation is 2.
FIELDS = {
    "skip_connect": 1,
    "nor_conv_1x1": 1,
    "nor_conv_3x3": 3,
    "avg_pool_3x3": 3,
    "sep_conv_3x3": 5,
    "sep_conv_5x5": 9,
    "dil_conv_3x3": 5,
    "dil_conv_5x5": 9,
}


def seen_by(operation: nn.Module, row: int, column: int, size: int) -> Tensor:
    """Where the input has a gradient from one output pixel, `[H, W]` of bool."""
    x = (torch.rand(1, C, size, size) + 1.0).requires_grad_()
    operation.eval()(x)[0, :, row, column].square().sum().backward()
    assert x.grad is not None
    return x.grad[0].abs().sum(0) > 0


@pytest.mark.parametrize("name", FIELDS)
def test_receptive_field_is_that_of_the_structure(name: str) -> None:
    torch.manual_seed(0)
    seen = seen_by(build_operation(name, C, 1, Norm()), 10, 10, 21).nonzero()
    assert (seen.amax(0) - seen.amin(0) + 1).tolist() == [FIELDS[name]] * 2
    if name.startswith("dil_conv"):
        assert ((seen - 10) % 2 == 0).all()


@pytest.mark.parametrize("norm", [Norm(False, False), Norm(True, False), Norm(True, True)], ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_every_batch_norm_is_as_it_was_asked_for(name: str, norm: Norm) -> None:
    for module in build_operation(name, C, 2, norm).modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.affine == norm.affine
            assert module.track_running_stats == norm.track_running_stats


def test_factorized_reduce_sees_both_pixel_phases() -> None:
    torch.manual_seed(0)
    x = (torch.rand(1, C, 6, 6) + 1.0).requires_grad_()
    FactorizedReduce(C, C, Norm()).eval()(x).square().sum().backward()
    assert x.grad is not None
    seen = x.grad[0].abs().sum(0) > 0
    expected = torch.zeros(6, 6, dtype=torch.bool)
    expected[0::2, 0::2] = True
    expected[1::2, 1::2] = True
    assert torch.equal(seen, expected)


def test_factorized_reduce_equals_its_definition_on_even_and_odd_sizes() -> None:
    """Two strided 1x1 convolutions by hand; what lies outside an odd image counts as zero."""
    torch.manual_seed(0)
    module = FactorizedReduce(4, 6, Norm()).eval()
    for size in (6, 7):
        x = torch.randn(2, 4, size, size)
        padded = nn.functional.pad(x.relu(), (0, size % 2, 0, size % 2))
        halves = [
            torch.einsum("oi,bihw->bohw", conv.weight[:, :, 0, 0], padded[:, :, k::2, k::2])
            for k, conv in enumerate((module.even, module.odd))
        ]
        expected = torch.cat(halves, 1) / (1 + module.norm.eps) ** 0.5
        torch.testing.assert_close(module(x), expected)


def test_average_pool_does_not_count_the_padding() -> None:
    out = build_operation("avg_pool_3x3", 1, 1, Norm())(torch.ones(1, 1, 4, 4))
    assert torch.equal(out, torch.ones(1, 1, 4, 4))


@pytest.mark.parametrize("name", [name for name in NAMES if "conv" in name])
def test_gradients_of_the_weights_in_bf16_are_those_in_float32_but_for_rounding(name: str) -> None:
    """In the layout of a run; PyTorch's own are wrong where a depthwise kernel is dilated."""
    torch.manual_seed(0)
    layout: dict[str, torch.memory_format] = {"memory_format": torch.channels_last}
    operation = build_operation(name, C, 1, Norm()).to(**layout)
    x, upstream = (torch.randn(4, C, 32, 32).contiguous(**layout) for _ in range(2))
    found = {}
    for bf16 in (False, True):
        operation.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
            out = operation(x)
        out.backward(upstream.to(out.dtype))
        weights = operation.named_parameters()
        found[bf16] = {n: w.grad.clone() for n, w in weights if w.grad is not None and w.dim() > 1}
    assert found[True]
    for weight, exact in found[False].items():
        assert (found[True][weight] - exact).norm() < 0.1 * exact.norm(), weight


@pytest.mark.parametrize("name", [name for name in NAMES if name != "none"])
@pytest.mark.parametrize("channels", [2, 4, 9])
def test_few_channels_in_channels_last_have_the_gradients_of_the_definition(
    name: str, channels: int
) -> None:
    """PyTorch's 1x1 convolution of stride 2 breaks the heap there, after some steps."""
    torch.manual_seed(0)
    operation = build_operation(name, channels, 2, Norm())
    exact = copy.deepcopy(operation).double()
    operation.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    x = torch.randn(8, channels, 8, 8).contiguous(memory_format=torch.channels_last)
    gradients = []
    for module, images in ((operation, x), (exact, x.double().contiguous())):
        for _ in range(10):
            module.zero_grad()
            images = images.detach().requires_grad_()
            module(images).square().sum().backward()
        assert images.grad is not None
        gradients.append(
            [images.grad, *(w.grad for w in module.parameters() if w.grad is not None)]
        )
    for found, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(found.double(), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("elastic", [False, True])
def test_strided_1x1_convolutions_of_own_models_have_the_gradients_of_the_definition(
    elastic: bool,
) -> None:
    torch.manual_seed(0)
    make = Conv2d if elastic else nn.Conv2d
    exact = make(3, 4, 1, stride=2).double()
    conv = guard_pointwise(copy.deepcopy(exact).float().to(memory_format=torch.channels_last))  # type: ignore[call-overload]
    x = torch.randn(8, 3, 8, 8)
    for _ in range(10):
        seen = x.contiguous(memory_format=torch.channels_last).requires_grad_()
        conv.zero_grad()
        out = conv(seen)
        out.square().sum().backward()
    definition = x.double().requires_grad_()
    expected = exact(definition)
    expected.square().sum().backward()
    torch.testing.assert_close(out.double(), expected, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(seen.grad.double(), definition.grad, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(conv.weight.grad.double(), exact.weight.grad, rtol=1e-3, atol=1e-3)


def test_zero_keeps_type_and_layout() -> None:
    x = torch.ones(1, 2, 5, 4, dtype=torch.float64)
    assert torch.equal(Zero(2)(x), torch.zeros(1, 2, 3, 2, dtype=torch.float64))


def test_operations_do_not_change_their_input() -> None:
    for name in NAMES:
        x = torch.randn(2, C, 4, 4)
        before = x.clone()
        build_operation(name, C, 1, Norm())(x)
        assert torch.equal(x, before)


def test_unknown_operation_is_answered_with_the_nearest() -> None:
    with pytest.raises(UserError, match=r"'sep_conv_3x4'.*did you mean 'sep_conv_3x3'\?"):
        build_operation("sep_conv_3x4", C, 1, Norm())
