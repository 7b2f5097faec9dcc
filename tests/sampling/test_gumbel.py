"""The Gumbel pieces against definitions: closed forms, statistics, autograd."""

import math

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor
from torch.nn.functional import one_hot

from nas.sampling.gumbel import (
    gumbel_max,
    gumbel_noise,
    gumbel_softmax,
    straight_through,
)

SETTINGS = settings(deadline=None, derandomize=True, max_examples=50)
TEMPERATURES = (1e-6, 1e-2, 1.0, 1e2, 1e6)

finite = st.floats(-8.0, 8.0, allow_subnormal=False)
rows = st.integers(2, 7).flatmap(
    lambda k: st.tuples(*(st.lists(finite, min_size=k, max_size=k) for _ in range(2)))
)
"""Logits and noise of one choice."""


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def float64(values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def gap(logits: Tensor, noise: Tensor) -> float:
    """How far the winner of the Gumbel-max is ahead of the second."""
    first, second = (logits.log_softmax(-1) + noise).topk(2).values.tolist()
    return first - second


def chi_square(indices: Tensor, probabilities: Tensor) -> float:
    """The p-value of the drawn `indices` under `probabilities`."""
    observed = torch.bincount(indices, minlength=len(probabilities)).double()
    expected = probabilities.double() / probabilities.double().sum() * len(indices)
    assert expected.min() > 5
    return float(stats.chisquare(observed.numpy(), expected.numpy()).pvalue)


# Noise


def test_noise_has_the_mean_and_variance_of_a_standard_gumbel() -> None:
    num = 500_000
    noise = gumbel_noise((num,), generator(1)).double()
    variance = math.pi**2 / 6
    # The excess kurtosis of a Gumbel variable is 12/5.
    deviation_of_variance = variance * math.sqrt((3 + 12 / 5 - 1) / num)
    assert abs(noise.mean() - 0.5772156649015329) < 4 * math.sqrt(variance / num)
    assert abs(noise.var() - variance) < 4 * deviation_of_variance


@pytest.mark.parametrize("seed", range(5))
def test_noise_follows_the_gumbel_distribution_function(seed: int) -> None:
    noise = gumbel_noise((20_000,), generator(seed)).double().numpy()
    assert stats.kstest(noise, lambda x: stats.gumbel_r.cdf(x)).pvalue > 0.01 / 5


def test_noise_of_neighbouring_entries_is_uncorrelated() -> None:
    noise = gumbel_noise((100_000, 3), generator(2)).double()
    correlation = torch.corrcoef(noise.T) - torch.eye(3)
    assert correlation.abs().max() < 4.5 / math.sqrt(100_000)


def test_noise_replays_from_the_state_of_its_generator() -> None:
    source = generator(3)
    state = source.get_state()
    first = gumbel_noise((4, 5), source)
    second = gumbel_noise((4, 5), source)
    source.set_state(state)
    assert torch.equal(gumbel_noise((4, 5), source), first)
    assert not torch.equal(first, second)


def test_noise_uses_no_global_randomness() -> None:
    before = torch.get_rng_state()
    noise = gumbel_noise((4, 5), generator())
    assert torch.equal(torch.get_rng_state(), before)
    assert noise.dtype == torch.float32 and noise.shape == (4, 5)


@pytest.mark.parametrize("drawn", [0.0, 1e-45, 120.0])
def test_noise_is_finite_for_every_draw(drawn: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.Tensor, "exponential_", lambda self, generator: self.fill_(drawn))
    assert gumbel_noise((3,), generator()).isfinite().all()


# Hard samples


def test_hard_samples_follow_the_softmax_of_the_logits() -> None:
    num_vectors, num_draws = 40, 20_000
    p_values = []
    for seed in range(num_vectors):
        source = generator(seed)
        options = 2 + seed % 7
        logits = torch.randn(options, generator=source)
        noise = gumbel_noise((num_draws, options), source)
        p_values.append(chi_square(gumbel_max(logits, noise), logits.softmax(-1)))
    assert min(p_values) > 0.01 / num_vectors
    # Were the samples exact, the p-values themselves are uniform.
    assert stats.kstest(p_values, lambda x: x).pvalue > 0.001


def test_the_chi_square_would_notice_a_tempered_softmax() -> None:
    source = generator(0)
    logits = torch.tensor([1.0, 0.0, -1.0])
    indices = gumbel_max(logits, gumbel_noise((20_000, 3), source))
    assert chi_square(indices, (logits / 1.15).softmax(-1)) < 1e-6


def test_options_with_logit_minus_infinity_are_never_drawn() -> None:
    logits = torch.tensor([-math.inf, 0.0, -1e4, -math.inf])
    indices = gumbel_max(logits, gumbel_noise((5_000, 4), generator()))
    assert set(indices.tolist()) == {1}
    lonely = torch.tensor([-math.inf, -1e30])
    assert gumbel_max(lonely, gumbel_noise((100, 2), generator())).eq(1).all()


@SETTINGS
@given(rows, st.floats(0.01, 100.0))
def test_the_largest_entry_does_not_move_with_the_temperature(
    row: tuple[list[float], list[float]], temperature: float
) -> None:
    logits, noise = map(float64, row)
    assume(gap(logits, noise) > 1e-6)
    relaxed = gumbel_softmax(logits, noise, temperature)
    assert relaxed.argmax() == gumbel_max(logits, noise)


@SETTINGS
@given(rows, finite)
def test_a_constant_added_to_the_logits_changes_nothing(
    row: tuple[list[float], list[float]], constant: float
) -> None:
    logits, noise = map(float64, row)
    torch.testing.assert_close(
        gumbel_softmax(logits + constant, noise, 0.7), gumbel_softmax(logits, noise, 0.7)
    )


# Relaxed samples


@SETTINGS
@given(rows, st.floats(0.05, 20.0))
def test_relaxed_samples_are_the_tempered_softmax(
    row: tuple[list[float], list[float]], temperature: float
) -> None:
    logits, noise = map(float64, row)
    exponents = ((logits.exp() / logits.exp().sum()).log() + noise) / temperature
    expected = exponents.exp() / exponents.exp().sum()
    torch.testing.assert_close(gumbel_softmax(logits, noise, temperature), expected)


@SETTINGS
@given(rows)
def test_high_temperatures_tend_to_uniform(row: tuple[list[float], list[float]]) -> None:
    logits, noise = map(float64, row)
    distances = [
        float((gumbel_softmax(logits, noise, t) - 1 / len(logits)).abs().max())
        for t in (1e2, 1e4, 1e6)
    ]
    # Exponents differ by at most 32 / t.
    assert all(d <= 40 / t for d, t in zip(distances, (1e2, 1e4, 1e6), strict=True))


@SETTINGS
@given(rows)
def test_low_temperatures_tend_to_the_one_hot_of_the_hard_sample(
    row: tuple[list[float], list[float]],
) -> None:
    logits, noise = map(float64, row)
    assume(gap(logits, noise) > 1e-3)
    hard = torch.nn.functional.one_hot(gumbel_max(logits, noise), len(logits)).double()
    torch.testing.assert_close(gumbel_softmax(logits, noise, 1e-5), hard, atol=1e-12, rtol=0)


@SETTINGS
@given(rows, st.floats(0.1, 10.0))
def test_the_gradient_of_a_relaxed_sample_is_the_closed_form(
    row: tuple[list[float], list[float]], temperature: float
) -> None:
    logits, noise = map(float64, row)
    jacobian = torch.autograd.functional.jacobian(
        lambda a: gumbel_softmax(a, noise, temperature), logits
    )
    y, p = gumbel_softmax(logits, noise, temperature), logits.softmax(-1)
    by_perturbed = (y.diag() - torch.outer(y, y)) / temperature
    log_softmax = torch.eye(len(p)) - torch.ones_like(p).outer(p)
    torch.testing.assert_close(jacobian, by_perturbed @ log_softmax, atol=1e-10, rtol=1e-8)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 10.0])
def test_the_gradient_passes_gradcheck_for_rows_of_choices(temperature: float) -> None:
    logits = torch.randn(3, 5, dtype=torch.float64, generator=generator()).requires_grad_()
    noise = gumbel_noise((3, 5), generator(1)).double()
    assert torch.autograd.gradcheck(lambda a: gumbel_softmax(a, noise, temperature), logits)


def test_rows_do_not_influence_each_other() -> None:
    logits, noise = torch.randn(3, 5, generator=generator()), gumbel_noise((3, 5), generator(1))
    table = gumbel_softmax(logits, noise, 0.5)
    alone = torch.stack([gumbel_softmax(a, g, 0.5) for a, g in zip(logits, noise, strict=True)])
    torch.testing.assert_close(table, alone)


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan, math.inf, -math.inf])
def test_a_temperature_that_is_not_positive_and_finite_is_refused(temperature: float) -> None:
    with pytest.raises(ValueError, match=r"temperature is .*positive and finite"):
        gumbel_softmax(torch.zeros(2), torch.zeros(2), temperature)


EXTREME = {
    "far apart": [1e4, -1e4, 0.0, 5.0],
    "farther": [1e30, -1e30, 0.0, 1.0],
    "tied at the top": [1e30, 1e30, -1e30, -1e30],
    "all very low": [-1e30, -1e30, -1e30, -1e4],
    "masked": [0.1, -math.inf, 0.2, -math.inf],
    "masked and far apart": [1e30, -math.inf, -1e30, 0.0],
    "only one left": [-math.inf, -math.inf, -1e4, -math.inf],
}


@pytest.mark.parametrize("temperature", (1e-39, *TEMPERATURES))
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("values", EXTREME.values(), ids=EXTREME.keys())
def test_extreme_logits_and_temperatures_stay_finite(
    values: list[float], dtype: torch.dtype, temperature: float
) -> None:
    logits = torch.tensor(values, dtype=dtype).expand(64, -1).clone().requires_grad_()
    noise = gumbel_noise((64, 4), generator())
    relaxed = gumbel_softmax(logits, noise, temperature)
    (relaxed * torch.tensor([3.0, -2.0, 1.0, 0.5], dtype=dtype)).sum().backward()
    assert relaxed.dtype == dtype and relaxed.isfinite().all()
    assert logits.grad is not None and logits.grad.isfinite().all()
    tolerance = 0.02 if dtype == torch.bfloat16 else 1e-5
    torch.testing.assert_close(relaxed.sum(-1).float(), torch.ones(64), atol=tolerance, rtol=0)
    masked = logits.isneginf()
    assert relaxed[masked].eq(0).all() and logits.grad[masked].eq(0).all()
    assert not masked.gather(-1, gumbel_max(logits, noise)[:, None]).any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_lower_precision_agrees_with_float64(dtype: torch.dtype, temperature: float) -> None:
    logits = torch.randn(200, 5, generator=generator()).to(dtype)
    noise = gumbel_noise((200, 5), generator(1))
    exact = gumbel_softmax(logits.double(), noise.double(), temperature)
    # What a rounding of the perturbed logits to float32 can move: 4 * 2^-22 / t.
    tolerance = min(1.0, 1e-6 / temperature) + (0.004 if dtype == torch.bfloat16 else 1e-6)
    found = gumbel_softmax(logits, noise, temperature).double()
    torch.testing.assert_close(found, exact, atol=tolerance, rtol=0)


# Straight-through


@SETTINGS
@given(rows, st.sampled_from((1e-6, 0.1, 1.0, 3.0, 1e6)))
def test_straight_through_is_exactly_one_hot_forward(
    row: tuple[list[float], list[float]], temperature: float
) -> None:
    logits, noise = (torch.tensor(values) for values in row)
    relaxed = gumbel_softmax(logits, noise, temperature)
    hard = one_hot(relaxed.argmax(-1), len(relaxed)).to(relaxed.dtype)
    result = straight_through(hard, relaxed)
    assert sorted(result.tolist()) == [0.0] * (len(logits) - 1) + [1.0]
    assert result.argmax() == relaxed.argmax()


@SETTINGS
@given(rows, st.floats(0.1, 10.0))
def test_straight_through_has_the_gradient_of_the_relaxed_sample(
    row: tuple[list[float], list[float]], temperature: float
) -> None:
    logits, noise = map(float64, row)
    logits.requires_grad_()
    towards = torch.linspace(-1.0, 2.0, len(logits), dtype=torch.float64)
    relaxed = gumbel_softmax(logits, noise, temperature)
    (expected,) = torch.autograd.grad(relaxed @ towards, logits, retain_graph=True)
    hard = one_hot(relaxed.argmax(-1), len(relaxed)).to(relaxed.dtype)
    (found,) = torch.autograd.grad(straight_through(hard, relaxed) @ towards, logits)
    assert torch.equal(found, expected)
