"""The one primitive: what is run, what comes out, which gradients the decision gets."""

from collections import Counter
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from nas.choice import Choice, connects, gated
from nas.ops import Zero

SETTINGS = settings(deadline=None, derandomize=True, max_examples=40)

LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "contiguous": lambda t: t.contiguous(),
    "channels_last": lambda t: t.contiguous(memory_format=torch.channels_last),
    "transposed": lambda t: t.transpose(2, 3).contiguous().transpose(2, 3),
    "strided": lambda t: t.repeat_interleave(2, dim=3)[..., ::2],
}


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def conv(seed: int, channels: int = 3) -> nn.Conv2d:
    torch.manual_seed(seed)
    return nn.Conv2d(channels, channels, 1)


def choice(with_none: bool = True) -> Choice:
    candidates: dict[str, nn.Module] = {"none": Zero(1)} if with_none else {}
    candidates |= {"skip": nn.Identity(), "a": conv(1), "b": conv(2)}
    return Choice(candidates, "edge")


def count_calls(module: Choice) -> Counter[str]:
    """Counts the forward passes of each candidate from now on."""
    calls: Counter[str] = Counter()
    for option, candidate in zip(module.options, module.candidates, strict=True):
        candidate.register_forward_hook(lambda *_, option=option: calls.update([option]))
    return calls


# The gate


@pytest.mark.parametrize("gradient_layout", LAYOUTS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_the_gate_is_an_identity_whose_gradient_is_the_inner_product(
    dtype: torch.dtype, layout: str, gradient_layout: str
) -> None:
    out = LAYOUTS[layout](random(3, 5, 4, 6, dtype=dtype)).requires_grad_()
    gradient = LAYOUTS[gradient_layout](random(3, 5, 4, 6, seed=1, dtype=dtype))
    gate_dtype = torch.float64 if dtype == torch.float64 else torch.float32
    gate = torch.ones((), dtype=gate_dtype, requires_grad=True)
    result = gated(out, gate)
    assert torch.equal(result, out) and result.stride() == out.stride()
    result.backward(gradient)
    assert out.grad is not None and torch.equal(out.grad, gradient)
    assert gate.grad is not None and gate.grad.dtype == gate_dtype
    exact = (gradient.double() * out.detach().double()).sum()
    # In bf16 the product is rounded once, at the end.
    tolerance = {torch.float64: 1e-12, torch.float32: 2e-5, torch.bfloat16: 2**-8}[dtype]
    torch.testing.assert_close(gate.grad.double(), exact, atol=tolerance, rtol=tolerance)
    (centred,) = torch.autograd.grad(gated(out, gate, minus_sum=True), gate, gradient)
    expected = exact - gradient.double().sum()
    torch.testing.assert_close(centred.double(), expected, atol=8 * tolerance, rtol=tolerance)


@SETTINGS
@given(st.lists(st.integers(1, 4), min_size=1, max_size=5), st.integers(0, 99))
def test_the_gate_agrees_with_a_multiplication_for_any_shape(shape: list[int], seed: int) -> None:
    out = random(*shape, seed=seed, dtype=torch.float64).requires_grad_()
    towards = random(*shape, seed=seed + 1, dtype=torch.float64)
    gate = torch.ones((), dtype=torch.float64, requires_grad=True)

    def gradients(product: Tensor) -> tuple[Tensor, ...]:
        return torch.autograd.grad((product.sin() * towards).sum(), (out, gate))

    for found, expected in zip(gradients(gated(out, gate)), gradients(out * gate), strict=True):
        torch.testing.assert_close(found, expected)


def test_the_gate_accepts_an_expanded_gradient() -> None:
    out = random(2, 3, 4, 4).contiguous(memory_format=torch.channels_last)
    gate = torch.ones((), requires_grad=True)
    gated(out, gate).sum().backward()
    assert gate.grad is not None
    torch.testing.assert_close(gate.grad, out.sum())


def test_a_gate_alone_asks_for_no_gradient_of_the_output() -> None:
    out, gate = random(2, 3), torch.ones((), requires_grad=True)
    (gradient,) = torch.autograd.grad(gated(out, gate).square().sum(), gate)
    torch.testing.assert_close(gradient, 2 * out.square().sum())
    assert out.grad is None


# One path


@pytest.mark.parametrize("gate", [None, torch.ones(())], ids=["plain", "gated"])
@pytest.mark.parametrize("index", [1, 2, 3])
def test_one_path_runs_only_the_sampled_candidate(index: int, gate: Tensor | None) -> None:
    module, x = choice(), random(2, 3, 4, 4)
    expected = module.candidates[index](x)
    calls = count_calls(module)
    module.select(index, gate)
    assert torch.equal(module(x), expected)
    assert calls == {module.options[index]: 1}


def test_without_a_gate_nothing_is_added_to_the_graph() -> None:
    module, x = choice(), random(2, 3, 4, 4)
    module.select(1)
    assert module(x) is x


def test_the_gradient_of_a_gate_is_that_of_the_sampled_candidates_weight() -> None:
    module, x, towards = choice(), random(2, 3, 4, 4), random(2, 3, 4, 4, seed=1)
    gate = torch.ones((), requires_grad=True)
    module.select(2, gate)
    (module(x) * towards).sum().backward()
    assert gate.grad is not None
    torch.testing.assert_close(gate.grad, (module.candidates[2](x) * towards).sum())
    assert module.candidates[3].weight.grad is None


# Mixture


@pytest.mark.parametrize("options", [["a"], ["none", "a"], ["a", "b"], ["none", "skip", "a", "b"]])
def test_a_mixture_is_the_weighted_sum_of_all_candidates(options: list[str]) -> None:
    known = dict(zip(choice().options, choice().candidates, strict=True))
    module = Choice({name: known[name] for name in options}, "edge")
    x, towards = random(2, 3, 4, 4), random(2, 3, 4, 4, seed=1)
    weights = random(len(options), seed=2).softmax(0).requires_grad_()
    module.mix(weights.unbind())
    out = module(x)
    outputs = [known[name](x) for name in options]
    expected = torch.zeros_like(x)
    for weight, output in zip(weights.detach(), outputs, strict=True):
        expected = expected + weight * output
    torch.testing.assert_close(out, expected)
    (gradient,) = torch.autograd.grad((out * towards).sum(), weights)
    torch.testing.assert_close(gradient, torch.stack([(o * towards).sum() for o in outputs]))


def test_a_mixture_runs_every_candidate_once_but_never_none() -> None:
    module = choice()
    calls = count_calls(module)
    module.mix(torch.full((4,), 0.25).unbind())
    module(random(2, 3, 4, 4))
    assert calls == {"skip": 1, "a": 1, "b": 1}


def test_a_mixture_does_not_run_what_has_no_weight() -> None:
    module, x = choice(), random(2, 3, 4, 4)
    calls = count_calls(module)
    weights = torch.tensor([0.1, 0.2, 0.3, 0.4]).unbind()
    module.mix((weights[0], weights[1], None, weights[3]))
    torch.testing.assert_close(module(x), 0.2 * x + 0.4 * module.candidates[3](x))
    assert calls["skip"] == 1 and calls["a"] == 0
    module.mix((weights[0], None, None, None))
    assert not module.connects, "none alone is no connection"
    module.mix((None, None, weights[2], None))
    assert module.connects


def test_a_mixture_keeps_the_precision_of_its_input() -> None:
    module = Choice({"skip": nn.Identity(), "twice": nn.Identity()}, "edge")
    module.mix(torch.tensor([0.25, 0.75]).unbind())
    assert module(random(2, 3, dtype=torch.bfloat16)).dtype == torch.bfloat16


# Decisions


def test_connects_is_false_only_where_none_was_selected() -> None:
    module = choice()
    found = []
    for index in range(4):
        module.select(index)
        found.append(connects(module))
    assert found == [False, True, True, True]
    module.mix(torch.full((4,), 0.25).unbind())
    assert connects(module) and module.connects


def test_plain_modules_connect_unless_they_are_zero() -> None:
    assert connects(nn.Identity()) and not connects(Zero(1))


def test_each_decision_replaces_the_one_before() -> None:
    module, x = choice(), random(2, 3, 4, 4)
    module.mix(torch.full((4,), 0.25).unbind())
    module.select(1)
    assert torch.equal(module(x), x)
    gate = torch.ones((), requires_grad=True)
    module.select(1, gate)
    module.select(1)
    assert not module(x).requires_grad


def test_options_keep_their_order_and_show_in_the_representation() -> None:
    module = choice()
    assert module.options == ("none", "skip", "a", "b")
    assert "'edge'" in repr(module) and "none" in repr(module)
