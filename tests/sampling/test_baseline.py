"""The running mean as a control variate: the same expectation, less variance with a mean."""

import pytest
import torch
from learner_helpers import batch, batches, logits_of, make_learner
from torch import Tensor

from nas.optimisation.bilevel import Alternating, Learner
from nas.sampling import samplers
from nas.sampling.baseline import DECAY, NUM_DRAWS, RunningMean
from nas.sampling.samplers import SampleSource
from nas.supernet import Sample


def learner_at(sampler: str, temperature: float) -> Learner:
    """The learner of `test_bilevel` with uneven logits: choices of three and of two options."""
    learner = make_learner(sampler)
    assert isinstance(learner.draw, SampleSource)
    learner.draw.temperature = temperature
    with torch.no_grad():
        learner.supernet.logits.copy_(torch.tensor([[0.5, -0.4, 0.1], [0.8, 0.0, 0.0]]))
    return learner


def with_mean(learner: Learner, means: list[float]) -> RunningMean:
    assert isinstance(learner.draw, SampleSource)
    baseline = RunningMean(learner.draw)
    baseline.load_state_dict({"sums": torch.tensor(means), "num_updates": 10**9})
    return baseline


def products_of(sample: Sample, products: Tensor) -> Tensor:
    """`dL/dweights` of a sample where each option of each choice has a known inner product."""
    return sample.weights.detach() * products


def gradients(learner: Learner, products: Tensor, means: list[float] | None, count: int) -> Tensor:
    """Estimates `[count, N, K]` of the logits' gradient, with a baseline or without."""
    found, logits = [], learner.supernet.logits
    baseline = None if means is None else with_mean(learner, means)
    for _ in range(count):
        sample = learner.draw()
        gradient = products_of(sample, products)
        if baseline is None:
            objective = (sample.weights * gradient).sum()
        else:
            centred = baseline.centred(sample, gradient)
            objective = (sample.weights * centred).sum() + baseline.expectation()
        found.append(torch.autograd.grad(objective, logits)[0])
    return torch.stack(found)


PRODUCTS = torch.tensor([[3.1, 2.8, 3.0], [-1.9, -2.2, 0.0]])
MEANS = [3.0, -2.0]


@pytest.mark.parametrize(
    ("sampler", "temperature"),
    [("gdas", 0.3), ("gdas", 2.0), ("gdas_authors", 1.0), ("gumbel_rao", 0.5), ("reinmax", 1.0)],
)
def test_the_expectation_stays_and_the_variance_falls(
    sampler: str, temperature: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(samplers, "GUMBEL_RAO_SAMPLES", 5)  # for the time that it takes
    learner, count = learner_at(sampler, temperature), 500
    plain, centred = (gradients(learner, PRODUCTS, m, count) for m in (None, MEANS))
    error = ((plain.var(0) + centred.var(0)) / count).sqrt()
    difference = (plain.mean(0) - centred.mean(0)).abs()
    assert (difference <= 4.5 * error + 1e-7).all()
    own = (centred.var(0) / count).sqrt()
    assert float(centred.mean(0).abs().max()) > 5 * float(own.max()), "there was something to find"
    # All but the deviation of the products, a tenth, and 1 / NUM_DRAWS is gone.
    assert float(centred.var(0).sum()) < 0.2 * float(plain.var(0).sum())


def test_any_number_leaves_the_expectation() -> None:
    """By enumeration: at a temperature so high that the noise does not matter, J is known."""
    learner, temperature = learner_at("gdas", 1e4), 1e4
    # y -> 1/K: J_j = (delta_jk - 1/K) / (K t), here of the choice with two options.
    options = torch.eye(2)
    jacobians = (options - 0.5) / (2 * temperature)
    p = torch.tensor([0.8, 0.0]).softmax(0)
    expected = (p[:, None] * jacobians).sum(0)
    means = [0.0, 7.0]
    found = torch.zeros(2)
    for _ in range(200):
        scalar = with_mean(learner, means).expectation()
        found += torch.autograd.grad(scalar, learner.supernet.logits)[0][1, :2] / 200
    torch.testing.assert_close(found, 7.0 * expected, rtol=0.05, atol=0)


def test_centring_takes_the_mean_off_the_sampled_option() -> None:
    learner = learner_at("gdas", 1.0)
    sample = learner.draw()
    assert sample.indices is not None
    found = with_mean(learner, MEANS).centred(sample, products_of(sample, PRODUCTS))
    expected = torch.zeros(2, 3)
    for row, index in enumerate(sample.indices):
        expected[row, index] = PRODUCTS[row, index] - MEANS[row]
    torch.testing.assert_close(found, expected)


def test_the_mean_is_exponential_from_the_first_update_on() -> None:
    learner = learner_at("gdas", 1.0)
    assert isinstance(learner.draw, SampleSource)
    baseline = RunningMean(learner.draw)
    assert baseline.means.eq(0).all()
    updates = []
    for update in range(5):
        samples = [learner.draw() for _ in range(3)]
        gradients = [products_of(sample, PRODUCTS + update) for sample in samples]
        baseline.add(samples, gradients)
        updates.append(torch.stack([g.sum(1) for g in gradients]).mean(0))
    weights = torch.tensor([DECAY ** (4 - n) for n in range(5)])
    expected = (weights[:, None] * torch.stack(updates)).sum(0) / weights.sum()
    torch.testing.assert_close(baseline.means, expected)


def test_an_update_uses_the_mean_of_those_before_it() -> None:
    learner = make_learner("gdas")
    assert isinstance(learner.draw, SampleSource)
    plain = make_learner("gdas")
    learner.baseline = RunningMean(learner.draw)
    for each in (learner, plain):
        Alternating(each).step(0, batch(0), batches())
    assert torch.equal(logits_of(learner), logits_of(plain)), "the first update knows no mean"
    assert learner.baseline.means.any()
    Alternating(learner).step(1, batch(1), batches())
    Alternating(plain).step(1, batch(1), batches())
    assert not torch.equal(logits_of(learner), logits_of(plain))


def test_its_state_can_be_put_back() -> None:
    learner = learner_at("gdas", 1.0)
    first, second = with_mean(learner, MEANS), with_mean(learner, [0.0, 0.0])
    second.load_state_dict(first.state_dict())
    torch.testing.assert_close(second.means, torch.tensor(MEANS))
    assert NUM_DRAWS > 1
