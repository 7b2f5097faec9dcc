"""Layers of open sizes against the plain layers that they stand for."""

from collections.abc import Callable, Iterator
from itertools import product

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from nas import elastic
from nas.choice import decisions
from nas.errors import UserError
from nas.plain import decide, derive
from nas.values import ValueChoice

WIDTHS = (4, 8, 6)


@pytest.fixture(autouse=True)
def float64() -> Iterator[None]:
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def width(name: str) -> ValueChoice:
    return ValueChoice(WIDTHS, name)


def narrowed(x: Tensor, size: int, dim: int) -> Tensor:
    return x.narrow(dim, 0, size)


def depthwise() -> nn.Module:
    channels = width("in")
    return elastic.Conv2d(channels, channels, 3, padding=1, groups=channels)


LAYERS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "conv": (lambda: elastic.Conv2d(width("in"), width("out"), 3, padding=1), 1),
    "kernel": (
        lambda: elastic.Conv2d(
            width("in"), width("out"), ValueChoice([3, 5, 1], "kernel"), 2, "same", bias=False
        ),
        1,
    ),
    "dilated": (
        lambda: elastic.Conv2d(
            width("in"), 5, ValueChoice([1, 5], "kernel"), padding="same", dilation=2
        ),
        1,
    ),
    "depthwise": (depthwise, 1),
    "conv_norm": (
        lambda: elastic.ConvNorm2d(width("in"), width("out"), ValueChoice([5, 3], "kernel"), 2),
        1,
    ),
    "batch_norm": (lambda: elastic.BatchNorm2d(width("in")), 1),
    "batch_statistics": (
        lambda: elastic.BatchNorm2d(width("in"), affine=False, track_running_stats=False),
        1,
    ),
    "linear": (lambda: elastic.Linear(width("in"), 2 * width("out")), -1),
    "layer_norm": (lambda: elastic.LayerNorm(width("in")), -1),
}
EVERY_LAYER = pytest.mark.parametrize("name", LAYERS)


def build(name: str) -> tuple[nn.Module, Tensor, int]:
    """The layer with weights of its own, an input of the largest width, the dim of the channels."""
    make, dim = LAYERS[name]
    module = nn.Sequential(make())
    for parameter in module.parameters():
        nn.init.normal_(parameter)
    x = torch.randn(3, 8, 7, 7) if dim == 1 else torch.randn(3, 5, 8)
    return module, x, dim


def genotypes(module: nn.Module) -> list[dict[str, str]]:
    found = decisions(module)
    rows = product(*(modules[0].options for modules in found.values()))
    return [dict(zip(found, row, strict=True)) for row in rows]


@pytest.mark.parametrize("training", [True, False])
@EVERY_LAYER
def test_every_size_is_the_plain_layer_with_a_part_of_the_weights(
    name: str, training: bool
) -> None:
    module, x, dim = build(name)
    for chosen in genotypes(module):
        module.train(training)
        decide(module, chosen)
        plain = derive(module, chosen)
        assert not any(m.__module__.startswith("nas.") for m in plain.modules())
        narrow = narrowed(x, int(chosen["in"]), dim)
        expected = plain(narrow)
        torch.testing.assert_close(module(narrow), expected)
        size = int(chosen.get("out", chosen["in"])) * (2 if name == "linear" else 1)
        assert expected.shape[dim] == (5 if name == "dilated" else size)


@pytest.mark.parametrize("name", [name for name in LAYERS if name != "batch_statistics"])
def test_gradients_reach_the_part_that_is_used_and_no_other(name: str) -> None:
    module, x, dim = build(name)
    chosen = genotypes(module)[0]
    decide(module, chosen)
    plain = derive(module, chosen)
    narrow = narrowed(x, int(chosen["in"]), dim)
    target = torch.randn_like(plain(narrow))
    (module(narrow) * target).sum().backward()
    (plain(narrow) * target).sum().backward()
    used = [p.grad for p in plain.parameters()]
    for parameter, expected in zip(module.parameters(), used, strict=True):
        assert parameter.grad is not None and expected is not None
        torch.testing.assert_close(parameter.grad.abs().sum(), expected.abs().sum())


@EVERY_LAYER
def test_a_mixture_with_one_weight_is_that_size_among_zeros(name: str) -> None:
    module, x, dim = build(name)
    for chosen in genotypes(module):
        decide(module, chosen)
        inputs = narrowed(x, int(chosen["in"]), dim)
        expected = module(inputs)
        for other, modules in decisions(module).items():
            hot = [float(option == chosen[other]) for option in modules[0].options]
            for each in modules:
                each.mix(tuple(torch.tensor(w) for w in hot))
        before = 8 - inputs.shape[dim]
        pad = (0, 0, 0, 0, 0, before) if dim == 1 else (0, before)
        found = module(functional.pad(inputs, pad))
        size = expected.shape[dim]
        torch.testing.assert_close(narrowed(found, size, dim), expected)
        assert not found.narrow(dim, size, found.shape[dim] - size).any()


def test_a_mixture_weighs_widths_and_kernels() -> None:
    layer = elastic.Conv2d(3, ValueChoice([2, 4], "out"), ValueChoice([1, 3], "k"), padding="same")
    weights = {"out": (0.25, 0.75), "k": (0.4, 0.6)}
    expected = torch.zeros(2, 4, 5, 5)
    x = torch.randn(2, 3, 5, 5)
    for i, out in enumerate((2, 4)):
        for j, kernel in enumerate((1, 3)):
            decide(layer, {"out": str(out), "k": str(kernel)})
            # The bias is not the kernel's.
            y = layer(x) - layer.bias[:out, None, None]
            expected[:, :out] += weights["out"][i] * weights["k"][j] * y
        expected[:, :out] += weights["out"][i] * layer.bias[:out, None, None]
    for name, modules in decisions(layer).items():
        modules[0].mix(tuple(map(torch.tensor, weights[name])))
    torch.testing.assert_close(layer(x), expected)


@EVERY_LAYER
def test_the_gate_gets_the_inner_product(name: str) -> None:
    module, x, dim = build(name)
    chosen = genotypes(module)[-1]
    narrow = narrowed(x, int(chosen["in"]), dim)
    for which, modules in decisions(module).items():
        decide(module, chosen)
        gate = torch.ones((), requires_grad=True)
        for each in modules:
            each.select(each.options.index(chosen[which]), gate)
        out = module(narrow)
        target = torch.randn_like(out)
        (out * target).sum().backward()
        follows = which == "kernel" or which == "out" or (which == "in" and "out" not in chosen)
        if name == "dilated" and which == "in":
            follows = False  # the number of channels in is nothing that it puts out
        if follows:
            assert gate.grad is not None
            torch.testing.assert_close(gate.grad, (out * target).sum().detach())
        else:
            assert gate.grad is None


def test_behind_a_norm_a_kernel_has_a_gradient_and_before_it_none() -> None:
    kernel = ValueChoice([3, 5], "kernel")
    bare = nn.Sequential(
        elastic.Conv2d(3, 4, kernel, padding="same", bias=False), nn.BatchNorm2d(4)
    )
    x, target = torch.randn(4, 3, 6, 6), torch.randn(4, 4, 6, 6)
    gradients = []
    for module in (bare, elastic.ConvNorm2d(3, 4, kernel)):
        gate = torch.ones((), requires_grad=True)
        kernel.select(1, gate)
        (module(x) * target).sum().backward()
        gradients.append(float(gate.grad))
    # What is left is the epsilon of the norm.
    assert abs(gradients[0]) < 1e-3 * abs(gradients[1])


def test_running_statistics_of_the_part_that_is_used_move() -> None:
    layer = elastic.BatchNorm2d(ValueChoice([2, 4], "c"))
    decide(layer, {"c": "2"})
    x = torch.randn(8, 2, 3, 3) + 5
    plain = derive(layer, {"c": "2"})
    layer(x)
    plain(x)
    torch.testing.assert_close(layer.running_mean[:2], plain.running_mean)
    assert not layer.running_mean[2:].any() and int(layer.num_batches_tracked) == 1


def test_patches_of_an_even_size_may_be_halved() -> None:
    layer = elastic.ConvNorm2d(3, ValueChoice([2, 4], "c"), 2, stride=2)
    assert layer(torch.zeros(2, 3, 8, 8)).shape[2:] == (4, 4)


def test_numbers_of_numpy_are_numbers() -> None:
    layer = elastic.Conv2d(np.int64(3), 4, np.int64(3), np.int64(2), np.int64(1))  # type: ignore[arg-type]
    assert layer(torch.zeros(1, 3, 8, 8)).shape == (1, 4, 4, 4)


def test_frozen_weights_and_modes_are_kept() -> None:
    layer = elastic.Linear(ValueChoice([2, 4], "c"), 3).eval()
    layer.weight.requires_grad_(False)
    plain = derive(layer, {"c": "2"})
    assert not plain.weight.requires_grad and plain.bias.requires_grad and not plain.training


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda w: elastic.Conv2d(w, w, 3, groups=2), "groups=2 with open channels"),
        (lambda w: elastic.Conv2d(w, 4, 3, groups=w), "must be the same object"),
        (lambda w: elastic.Conv2d(3, 4, ValueChoice([3, 5])), r"\[3, 5\] .* padding='same'"),
        (lambda w: elastic.Conv2d(3, 4, ValueChoice([2, 4]), padding="same"), "must be odd"),
        (lambda w: elastic.Linear(0.6 * w, 4), "in_features can be 2.4: must be a whole number"),
        (lambda w: elastic.LayerNorm(w // 6), "normalized_shape can be 0"),
        (lambda w: elastic.LayerNorm([4]), r"normalized_shape is \[4\]: must be one number"),  # type: ignore[arg-type]
        (lambda w: elastic.Conv2d(3, w, (3, 3)), r"kernel_size is \(3, 3\): must be one number"),  # type: ignore[arg-type]
        (lambda w: elastic.Conv2d(3, w, 3, stride=(1, 2)), r"stride is \(1, 2\): must be one"),  # type: ignore[arg-type]
        (lambda w: elastic.Conv2d(3, w, 3, dilation=(1, 2)), "dilation is .* must be one number"),  # type: ignore[arg-type]
        (lambda w: elastic.Conv2d(3, w, 3, padding=(1, 1)), "padding is .* one number, or 'same'"),  # type: ignore[arg-type]
        (lambda w: elastic.Conv2d(3, w, 3, padding="valid"), "padding is 'valid': must be"),
        (
            lambda w: elastic.Conv2d(3, w, 4, padding="same"),
            "needs an odd kernel at stride 1, got 4",
        ),
    ],
)
def test_sizes_that_do_not_go_together(
    make: Callable[[ValueChoice], nn.Module], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        make(width("w"))
