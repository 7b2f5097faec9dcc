"""Estimators against enumeration over all draws, closed forms and the distributions they assume."""

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from nas.sampling.estimators import (
    conditional_gumbel_noise,
    dirichlet,
    dirichlet_concentration,
    rao_blackwell,
    reinmax,
)
from nas.sampling.gumbel import gumbel_max, gumbel_noise, gumbel_softmax, straight_through

SETTINGS = settings(deadline=None, derandomize=True, max_examples=40)
LOGITS = st.lists(st.floats(-3, 3), min_size=2, max_size=6).map(torch.tensor)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def gradient(weights: Callable[[Tensor], Tensor], logits: Tensor, upstream: Tensor) -> Tensor:
    leaf = logits.clone().requires_grad_()
    (found,) = torch.autograd.grad(weights(leaf), leaf, upstream)
    return found


@given(logits=LOGITS, seed=st.integers(0, 10**6))
@SETTINGS
def test_conditional_noise_leads_to_the_draw(logits: Tensor, seed: int) -> None:
    for index in range(len(logits)):
        noise = conditional_gumbel_noise(logits, torch.tensor(index), generator(seed))
        assert noise.isfinite().all()
        assert gumbel_max(logits, noise) == index


def test_conditional_noise_of_a_draw_is_gumbel_noise() -> None:
    """Drawing the index first and the noise after it gives independent standard Gumbel noise."""
    source, num_draws = generator(1), 200_000
    logits = torch.tensor([0.7, -1.0, 0.1]).expand(num_draws, 3)
    indices = torch.multinomial(logits[0].softmax(-1), num_draws, True, generator=source)
    noise = conditional_gumbel_noise(logits, indices, source)
    # P(noise <= x) = exp(-exp(-x)), at several x; three standard errors are 0.0034.
    for x in (-1.0, 0.0, 0.5, 1.5, 3.0):
        share = (noise <= x).float().mean(0)
        expected = torch.full((3,), math.exp(-math.exp(-x)))
        torch.testing.assert_close(share, expected, atol=0.004, rtol=0)
    torch.testing.assert_close(torch.corrcoef(noise.T), torch.eye(3), atol=0.012, rtol=0)


def test_options_that_do_not_exist() -> None:
    logits = torch.tensor([0.3, -math.inf, 0.1])
    for index in (0, 2):
        draw = torch.tensor(index)
        for weights in (
            lambda a, k=draw: rao_blackwell(a, k, 0.5, 8, generator()),
            lambda a, k=draw: reinmax(a, k, 0.5),
        ):
            found = gradient(weights, logits, torch.tensor([1.0, 2.0, 3.0]))
            assert found.isfinite().all() and found[1] == 0


@given(logits=LOGITS, seed=st.integers(0, 10**6), temperature=st.floats(0.1, 10))
@SETTINGS
def test_values_are_the_draw(logits: Tensor, seed: int, temperature: float) -> None:
    index = torch.randint(len(logits), (), generator=generator(seed))
    hard = torch.nn.functional.one_hot(index, len(logits)).float()
    assert torch.equal(rao_blackwell(logits, index, temperature, 3, generator(seed)), hard)
    assert torch.equal(reinmax(logits, index, temperature), hard)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
def test_rao_blackwell_is_the_mean_of_straight_through_given_the_draw(temperature: float) -> None:
    logits, upstream = torch.tensor([0.5, -0.3, 1.0]), torch.tensor([1.0, -2.0, 0.5])
    num_draws, source = 60_000, generator(2)
    many = logits.expand(num_draws, 3)
    noise = gumbel_noise((num_draws, 3), source)
    indices = gumbel_max(many, noise)
    hard = torch.nn.functional.one_hot(indices, 3).float()

    def plain(a: Tensor) -> Tensor:
        return straight_through(hard, gumbel_softmax(a, noise, temperature))

    each = gradient(plain, many, upstream.expand(num_draws, 3))
    for index in range(3):
        draws = each[indices == index]
        draw = torch.tensor(index)
        found = gradient(
            lambda a, k=draw: rao_blackwell(a, k, temperature, 4000, source), logits, upstream
        )
        error = 4 * draws.std(0) * (1 / len(draws) + 1 / 4000) ** 0.5
        assert ((found - draws.mean(0)).abs() < error + 1e-4).all()


def test_rao_blackwell_has_less_variance() -> None:
    logits, upstream = torch.tensor([0.5, -0.3, 1.0]), torch.tensor([1.0, -2.0, 0.5])
    num_draws, source = 4000, generator(3)
    many, indices = logits.expand(num_draws, 3), torch.ones(num_draws, dtype=torch.long)

    def variance(num_samples: int) -> Tensor:
        grads = gradient(
            lambda a: rao_blackwell(a, indices, 0.5, num_samples, source),
            many,
            upstream.expand(num_draws, 3),
        )
        return grads.var(0)

    # Of a mean of 16 independent samples: a sixteenth.
    ratio = variance(16) / variance(1)
    torch.testing.assert_close(ratio, torch.full((3,), 1 / 16), atol=0.02, rtol=0)


@given(logits=LOGITS, seed=st.integers(0, 10**6))
@SETTINGS
def test_reinmax_is_exact_for_quadratic_functions(logits: Tensor, seed: int) -> None:
    """Its mean over all draws is the gradient of the expectation, at temperature 1."""
    logits = logits.double()
    size, source = len(logits), generator(seed)
    square = torch.randn(size, size, generator=source, dtype=torch.float64)
    square = square + square.T
    linear = torch.randn(size, generator=source, dtype=torch.float64)

    def value(draw: Tensor) -> Tensor:
        return draw @ square @ draw / 2 + linear @ draw

    draws = torch.eye(size, dtype=torch.float64)
    leaf = logits.clone().requires_grad_()
    expectation = sum(p * value(draw) for p, draw in zip(leaf.softmax(-1), draws, strict=True))
    (exact,) = torch.autograd.grad(expectation, leaf)
    mean = torch.zeros_like(logits)
    for index, (p, draw) in enumerate(zip(logits.softmax(-1), draws, strict=True)):
        upstream, chosen = square @ draw + linear, torch.tensor(index)
        mean += p * gradient(lambda a, k=chosen: reinmax(a, k, 1.0), logits, upstream)
    torch.testing.assert_close(mean, exact, rtol=1e-6, atol=1e-8)


# Dirichlet

CONCENTRATION = torch.tensor([0.3, 1.0, 2.5, 0.7])


def dirichlet_draws(num_draws: int, concentration: Tensor, seed: int = 4) -> Tensor:
    return dirichlet(concentration.expand(num_draws, len(concentration)), generator(seed))


def test_a_dirichlet_draw_has_the_distribution() -> None:
    """The marginal of an option is Beta(b, total - b); pairs have the known covariance."""
    draws = dirichlet_draws(20_000, CONCENTRATION)
    total = float(CONCENTRATION.sum())
    torch.testing.assert_close(draws.sum(-1), torch.ones(len(draws)))
    for values, beta in zip(draws.T, CONCENTRATION.tolist(), strict=True):
        assert stats.kstest(values.numpy(), stats.beta(beta, total - beta).cdf).pvalue > 0.0025
    p = CONCENTRATION / total
    covariance = (p.diag() - p.outer(p)) / (total + 1)
    torch.testing.assert_close(torch.cov(draws.T), covariance, atol=2e-3, rtol=0)


def test_the_gradient_of_a_dirichlet_draw_is_that_of_the_expectation() -> None:
    """E[w] = beta / total and E[w_i w_j] = (beta_i beta_j + [i = j] beta_i) / total (total + 1)."""
    linear, square = torch.tensor([1.0, -2.0, 0.5, 0.3]), torch.tensor([0.4, 1.0, -1.0, 2.0])
    leaf = CONCENTRATION.clone().requires_grad_()
    total = leaf.sum()
    expectation = (linear @ leaf) / total
    expectation = expectation + (square @ (leaf * (leaf + 1))) / (total * (total + 1))
    (exact,) = torch.autograd.grad(expectation, leaf)
    many = CONCENTRATION.expand(100_000, 4).clone().requires_grad_()
    draws = dirichlet(many, generator(5))
    (each,) = torch.autograd.grad((draws @ linear + draws.square() @ square).sum(), many)
    error = 4 * each.std(0) / len(each) ** 0.5
    assert ((each.mean(0) - exact).abs() < error + 1e-3).all()


def test_the_gradient_of_a_dirichlet_draw_is_that_of_the_distribution_function() -> None:
    """Of two options: the weight moves so that its Beta distribution function stays."""
    concentration = torch.tensor([[0.8, 1.7]], dtype=torch.float64)
    for seed in range(5):
        leaf = concentration.clone().requires_grad_()
        draw = dirichlet(leaf, generator(seed))
        (found,) = torch.autograd.grad(draw[0, 0], leaf)
        w, (a, b), h = draw[0, 0].item(), concentration[0].tolist(), 1e-5
        level = stats.beta(a, b).cdf(w)
        by_a = (stats.beta(a + h, b).ppf(level) - stats.beta(a - h, b).ppf(level)) / (2 * h)
        by_b = (stats.beta(a, b + h).ppf(level) - stats.beta(a, b - h).ppf(level)) / (2 * h)
        # PyTorch approximates the derivative of the distribution function to about 0.1 %.
        torch.testing.assert_close(found[0], torch.tensor([by_a, by_b]).double(), rtol=1e-2, atol=0)


def test_the_gradient_of_a_dirichlet_draw_varies_less_than_that_of_gamma_draws() -> None:
    upstream = torch.tensor([1.0, -2.0, 0.5, 0.3])
    many = CONCENTRATION.expand(50_000, 4).clone().requires_grad_()
    (ours,) = torch.autograd.grad((dirichlet(many, generator(6)) @ upstream).sum(), many)
    gamma = torch._standard_gamma(many, generator=generator(6))
    normalised = gamma / gamma.sum(-1, keepdim=True)
    (theirs,) = torch.autograd.grad((normalised @ upstream).sum(), many)
    assert (ours.var(0) < 0.98 * theirs.var(0)).all()


@given(logits=LOGITS, seed=st.integers(0, 10**6), data=st.data())
@SETTINGS
def test_a_dirichlet_draw_leaves_masked_options_alone(
    logits: Tensor, seed: int, data: st.DataObject
) -> None:
    masked = torch.tensor(
        data.draw(st.lists(st.booleans(), min_size=len(logits), max_size=len(logits)))
    )
    masked[data.draw(st.integers(0, len(logits) - 1))] = False
    leaf = logits.clone().requires_grad_()
    beta = dirichlet_concentration(leaf.masked_fill(masked, -math.inf))
    draw = dirichlet(beta, generator(seed))
    (found,) = torch.autograd.grad(draw, leaf, torch.randn(draw.shape, generator=generator(seed)))
    assert draw[masked].eq(0).all() and found[masked].eq(0).all()
    assert draw.isfinite().all() and found.isfinite().all()
    torch.testing.assert_close(draw.sum(), torch.ones(()))
    alone = (~masked).sum() == 1
    assert not alone or (draw.max() == 1 and found.eq(0).all())


@pytest.mark.parametrize("scale", [-60.0, -5.0, 0.0, 40.0])
def test_a_dirichlet_draw_of_extreme_logits_is_finite(scale: float) -> None:
    """Options of equal logits share the weight equally in the mean, however small they are."""
    leaf = torch.full((4000, 4), scale).requires_grad_()
    draws = dirichlet(dirichlet_concentration(leaf), generator(8))
    torch.testing.assert_close(draws.mean(0), torch.full((4,), 0.25), atol=0.03, rtol=0)
    (found,) = torch.autograd.grad(draws, leaf, torch.tensor([1.0, 2.0, 3.0, 4.0]).expand(4000, 4))
    assert found.isfinite().all()


@given(logits=st.floats(-10, 10))
@SETTINGS
def test_the_concentration_is_that_of_drnas(logits: float) -> None:
    leaf = torch.tensor(logits, dtype=torch.float64, requires_grad=True)
    expected = torch.nn.functional.elu(leaf) + 1
    found = dirichlet_concentration(leaf)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(
        torch.autograd.grad(found, leaf), torch.autograd.grad(expected, leaf)
    )
