"""Both makes of kernels against PyTorch's own modules and autograd."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from conftest import slow
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from nas.errors import UserError
from nas.kernels.arithmetic import (
    ATenKernels,
    CompiledKernels,
    Kernels,
    Statistics,
    Term,
    Want,
    element_sum,
    inner_product,
)

SETTINGS = settings(deadline=None, derandomize=True, max_examples=40)
SIZE = (4, 3, 5, 6)
EPS = 1e-5
CPU = torch.device("cpu")


@pytest.fixture(scope="module", params=["aten", slow("compiled")])
def kernels(request: pytest.FixtureRequest) -> Kernels:
    if request.param == "aten":
        return ATenKernels()
    try:
        return CompiledKernels.checked(CPU)
    except UserError as error:
        pytest.skip(str(error))


def random(seed: int, size: tuple[int, ...] = SIZE) -> Tensor:
    x = torch.randn(size, generator=torch.Generator().manual_seed(seed))
    return x.contiguous(memory_format=torch.channels_last) if len(size) == 4 else x


def norm(seed: int) -> nn.BatchNorm2d:
    """A batch norm with a random scale and shift."""
    module = nn.BatchNorm2d(SIZE[1], EPS)
    with torch.no_grad():
        module.weight.copy_(random(seed, SIZE[1:2]))
        module.bias.copy_(random(seed + 1, SIZE[1:2]))
    return module


@pytest.mark.parametrize("want", Want)
@pytest.mark.parametrize("num_plain", [0, 1, 2])
@pytest.mark.parametrize("affine", [[True], [False], [False, True], [False, False]])
def test_sum(kernels: Kernels, affine: list[bool], num_plain: int, want: Want) -> None:
    terms, expected = [], torch.zeros(SIZE)
    for seed, has_scale in enumerate(affine):
        x, module = random(seed), norm(10 + seed)
        scale = (module.weight.detach(), module.bias.detach()) if has_scale else (None, None)
        terms.append(Term(x, EPS, *scale))
        expected = expected + nn.functional.batch_norm(x, None, None, *scale, True, 0.0, EPS)
    for seed in range(num_plain):
        terms.insert(seed, Term(random(20 + seed)))
        expected = expected + random(20 + seed)
    inputs = [term.x.clone() for term in terms]
    found = kernels.sum_terms(terms, want)
    if want is Want.RELU:
        assert found.value is None
    else:
        torch.testing.assert_close(found.value, expected)
    if want is Want.VALUE:
        assert found.activated is None
    else:
        torch.testing.assert_close(found.activated, expected.relu())
    assert len(found.statistics) == len(affine)
    for term, untouched in zip(terms, inputs, strict=True):
        assert torch.equal(term.x, untouched)


def test_statistics(kernels: Kernels) -> None:
    x = random(0)
    ((mean, invstd),) = kernels.sum_terms([Term(x, EPS)], Want.VALUE).statistics
    torch.testing.assert_close(mean, x.mean((0, 2, 3)))
    torch.testing.assert_close(invstd, (x.var((0, 2, 3), correction=0) + EPS).rsqrt())


def test_statistics_of_a_large_mean(kernels: Kernels) -> None:
    """A deviation of 0.1 around 300: E[x^2] - E[x]^2 would leave one digit in float32."""
    x = 300 + 0.1 * random(0)
    ((_, invstd),) = kernels.sum_terms([Term(x, EPS)], Want.VALUE).statistics
    expected = (x.double().var((0, 2, 3), correction=0) + EPS).rsqrt()
    torch.testing.assert_close(invstd.double(), expected, rtol=1e-3, atol=0)


def test_statistics_of_a_constant(kernels: Kernels) -> None:
    found = kernels.sum_terms([Term(torch.full(SIZE, 0.1), EPS)], Want.VALUE)
    assert found.value is not None
    torch.testing.assert_close(found.value, torch.zeros(SIZE), atol=1e-4, rtol=0)


@pytest.mark.parametrize("affine", [True, False])
def test_gradient_of_a_norm(kernels: Kernels, affine: bool) -> None:
    x, grad, module = random(0).requires_grad_(), random(1), norm(2)
    reference = module if affine else nn.BatchNorm2d(SIZE[1], EPS)
    reference(x).backward(grad)
    (statistics,) = kernels.sum_terms([Term(x.detach(), EPS)], Want.VALUE).statistics
    weight = module.weight.detach() if affine else None
    found = kernels.through_norm(grad, x.detach(), weight, Statistics(*statistics))
    for gradient, parameter in zip(found, (x, reference.weight, reference.bias), strict=True):
        torch.testing.assert_close(gradient, parameter.grad)


@pytest.mark.parametrize("with_more", [True, False])
def test_gradient_of_a_relu(kernels: Kernels, with_more: bool) -> None:
    x, grad, more = random(0).requires_grad_(), random(1), random(2)
    x.relu().backward(grad)
    assert x.grad is not None
    expected = x.grad + more if with_more else x.grad
    untouched = grad.clone(), more.clone()
    found = kernels.through_relu(grad, x.detach().relu(), more if with_more else None)
    torch.testing.assert_close(found, expected)
    assert torch.equal(grad, untouched[0]) and torch.equal(more, untouched[1])


@pytest.mark.parametrize("size", [SIZE, (2, 3, 1, 4), (2, 1, 2, 2), (1, 2, 1, 1)])
def test_average_pool(kernels: Kernels, size: tuple[int, ...]) -> None:
    x, grad = random(0, size).requires_grad_(), random(1, size)
    expected = nn.functional.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
    expected.backward(grad)
    torch.testing.assert_close(kernels.average_pool(x.detach()), expected.detach())
    torch.testing.assert_close(kernels.through_average_pool(grad), x.grad)


@pytest.mark.parametrize("size", [SIZE, (2, 16, 8, 8)])
def test_bf16_rounds_the_same_results(kernels: Kernels, size: tuple[int, ...]) -> None:
    x, grad = random(0, size), random(1, size)
    low = x.bfloat16()
    for found, expected in [
        (kernels.average_pool(low), kernels.average_pool(low.float())),
        (
            kernels.through_average_pool(grad.bfloat16()),
            kernels.through_average_pool(grad.bfloat16().float()),
        ),
        (
            kernels.sum_terms([Term(low, EPS)], Want.VALUE).value,
            kernels.sum_terms([Term(low.float(), EPS)], Want.VALUE).value,
        ),
    ]:
        assert found is not None and expected is not None and found.dtype == torch.bfloat16
        torch.testing.assert_close(found.float(), expected, rtol=2**-6, atol=2**-6)


def test_each_shape_is_compiled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[torch.Size, ...]] = []

    def compile(function: object, tensors: tuple[Tensor, ...]) -> object:
        made.append(tuple(t.shape for t in tensors))
        return function

    monkeypatch.setattr("nas.kernels.arithmetic._compile", compile)
    kernels = CompiledKernels()
    for size in (SIZE, SIZE, (2, 3, 4, 4), SIZE):
        kernels.sum_terms([Term(random(0, size), EPS)], Want.BOTH)
    assert len(made) == 4, "statistics and sum, for each of two shapes"


@contextmanager
def no_compiler(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def fail(function: object, tensors: object) -> object:
        raise RuntimeError("No working C++ compiler found\nmore than one line")

    with monkeypatch.context() as patch:
        patch.setattr("nas.kernels.arithmetic._compile", fail)
        yield


def test_no_compiler_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with no_compiler(monkeypatch), pytest.raises(UserError) as error:
        CompiledKernels.checked(CPU)
    text = str(error.value)
    assert "kernels=compiled" in text and "kernels=auto" in text and "No working C++" in text
    assert "\n" not in text


@given(seed=st.integers(0, 2**31), dtype=st.sampled_from([torch.float32, torch.float64]))
@SETTINGS
def test_inner_product(seed: int, dtype: torch.dtype) -> None:
    a, b = random(seed).to(dtype), random(seed + 1).to(dtype)
    expected = (a.double() * b.double()).sum()
    for left in (a, a.contiguous()):
        found = inner_product(left, b)
        assert found.dtype == dtype
        torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-5)


def test_inner_product_in_bf16_is_rounded_once() -> None:
    a, b = random(0, (8, 4, 16, 16)).bfloat16(), random(1, (8, 4, 16, 16)).bfloat16()
    expected = (a.double() * (a + b).double()).sum()
    found = inner_product(a, a + b)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected, rtol=2**-8, atol=0)


def test_sums_of_bf16_are_made_in_float32() -> None:
    ones = torch.ones(3, 5, 1001, dtype=torch.bfloat16)
    assert element_sum(ones) == 15_015 and element_sum(ones).dtype == torch.float32
    assert element_sum(ones.double()).dtype == torch.float64
