"""What the pictures of the Gumbel-softmax page show is true, and they are what the code draws."""

import pytest
import torch
from conftest import ROOT

from benchmarks import gumbel_pictures as pictures
from benchmarks import small_problem as problem
from nas.sampling.gumbel import gumbel_max

NOISE = problem.noise_grid(150)


def test_integral_over_the_noise_gives_the_probabilities() -> None:
    shares = torch.bincount(gumbel_max(problem.LOGITS, NOISE)) / len(NOISE)
    torch.testing.assert_close(shares.double(), problem.LOGITS.exp(), atol=2e-3, rtol=0)


def test_exact_gradient_is_that_of_the_expected_loss() -> None:
    logits = problem.LOGITS.clone().requires_grad_()
    (logits.softmax(-1) * problem.loss(problem.OUTPUTS)).sum().backward()
    torch.testing.assert_close(logits.grad, problem.exact_gradient())


def test_unbiased_estimators_have_no_bias() -> None:
    assert problem.score_function_moments().bias() < 1e-12
    assert problem.reinmax_moments(all_known=True).bias() < 1e-12, "the loss is quadratic"


@pytest.mark.parametrize("temperature", [0.3, 1.0, 3.0])
def test_gumbel_rao_has_the_mean_of_gdas_and_less_variance(temperature: float) -> None:
    gdas = problem.gdas_moments(temperature, NOISE)
    rao = problem.gumbel_rao_moments(temperature, NOISE)
    torch.testing.assert_close(rao.mean, gdas.mean)
    assert rao.variance < gdas.variance


def test_inner_products_point_elsewhere_and_all_outputs_do_not() -> None:
    for temperature in (0.1, 1.0, 10.0):
        assert problem.gdas_moments(temperature, NOISE).cosine() < 0.06
    biases = [problem.all_outputs_moments(t, NOISE).bias() for t in (0.2, 1.0, 5.0)]
    assert biases == sorted(biases) and biases[0] < 0.2
    biases = [problem.relaxed_moments(t, NOISE).bias() for t in (0.2, 1.0, 5.0)]
    assert biases == sorted(biases) and biases[0] < 0.25


def test_integral_agrees_with_draws() -> None:
    noise = -torch.empty(200_000, 3).exponential_(generator=torch.manual_seed(0)).log().double()
    drawn, exact = problem.moments(problem.gdas(1.0, noise)), problem.gdas_moments(1.0, NOISE)
    torch.testing.assert_close(drawn.mean, exact.mean, atol=2e-3, rtol=0)
    assert drawn.variance == pytest.approx(exact.variance, rel=0.02)


def test_mixture_is_best_undecided_and_samples_are_not() -> None:
    q = torch.linspace(0, 1, 1001)
    assert float(q[pictures.mixture_loss(q).argmin()]) == pytest.approx(0.625, abs=1e-3)
    assert float(q[pictures.sampled_loss(q).argmin()]) == 1


def test_pictures_are_the_same_each_time_and_have_the_colours_of_the_page() -> None:
    first, again = (pictures.picture(pictures.gumbel_max_figure) for _ in range(2))
    assert first == again
    assert "prefers-color-scheme:dark" in first and "var(--c0)" in first
    assert not [color for color in pictures.COLORS if color in first]


def test_page_has_all_pictures() -> None:
    page = (ROOT / "docs" / "gumbel.md").read_text(encoding="utf-8")
    for name in pictures.PICTURES:
        assert f"(pictures/{name}.svg)" in page
        assert (ROOT / "docs" / "pictures" / f"{name}.svg").exists()
