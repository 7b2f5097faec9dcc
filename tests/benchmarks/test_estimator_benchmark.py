"""What `benchmarks.estimators` computes, against closed forms; its figures are not asserted."""

from itertools import cycle
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from benchmarks.estimators import MIXTURES, OneChoice, estimators, plot
from benchmarks.groups import compare, gradients, time_steps
from benchmarks.one_choice import (
    Case,
    Draws,
    Moments,
    averaged,
    enumerate_choice,
    running_means,
    summary,
)
from benchmarks.subjects import WEIGHTS, Setting, SupernetSteps, random_batch
from benchmarks.whole_update import Updates, figures, is_resolved, product_of_means, square_of_mean
from nas.choice import Choice
from nas.ops import Zero
from nas.optimisation.bilevel import Alternating, Learner
from nas.optimisation.optimizers import Updater
from nas.sampling.samplers import SAMPLERS, SampleSource
from nas.spaces import NASBench201
from nas.spaces.nasbench201 import OPERATIONS
from nas.supernet import Sample, Supernet

LOGITS = torch.tensor([0.4, -0.3, 0.0])
LOSSES = torch.tensor([1.0, 3.0, 2.5], dtype=torch.float64)
PRODUCTS = torch.tensor([0.0, 2.0, -1.0], dtype=torch.float64)
CASE = Case(LOSSES, PRODUCTS, torch.zeros(3), torch.zeros(1, 3))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def draws(sampler: str, temperature: float, count: int) -> Draws:
    return Draws.of(SAMPLERS.get(sampler), LOGITS, temperature, count, generator(), chunk=1000)


def learner() -> Learner:
    space = NASBench201(in_channels=3, num_classes=10, channels=4, cells_per_stage=1)
    batch = random_batch(8, torch.device("cpu"))
    images = batch[0][:, :, ::4, ::4].contiguous(memory_format=torch.channels_last)
    return SupernetSteps(Setting(space, (images, batch[1])), "gdas", "fused").learner


def batch_of_8() -> tuple[Tensor, Tensor]:
    images, labels = random_batch(8, torch.device("cpu"))
    return images[:, :, ::4, ::4].contiguous(memory_format=torch.channels_last), labels


# One choice


def test_the_exact_gradient_is_that_of_the_expected_loss() -> None:
    leaf = LOGITS.double().requires_grad_()
    (expected,) = torch.autograd.grad(leaf.softmax(-1) @ LOSSES, leaf)
    torch.testing.assert_close(CASE.exact(LOGITS), expected)


def test_draws_have_the_jacobian_of_the_drawn_weight() -> None:
    found = draws("gdas", 1e4, 4500)
    assert found.jacobians.shape == (4500, 3)
    # The relaxed sample tends to 1/K: J_j -> (delta_jk - 1/K) / (K t).
    expected = (torch.eye(3, dtype=torch.float64)[found.indices] - 1 / 3) / (3 * 1e4)
    torch.testing.assert_close(found.jacobians, expected, rtol=1e-2, atol=0)
    shares = torch.bincount(found.indices) / 4500
    torch.testing.assert_close(shares, LOGITS.softmax(0), atol=0.03, rtol=0)


def test_the_jacobian_of_the_score_function_is_that_of_log_p() -> None:
    found = draws("score_function", 1.0, 2000)
    expected = torch.eye(3)[found.indices] - LOGITS.softmax(0)
    torch.testing.assert_close(found.jacobians, expected.double(), atol=1e-6, rtol=1e-5)


def test_estimates_are_inner_products_times_jacobians() -> None:
    found = draws("gdas", 0.7, 2000)
    estimates = found.gradients(PRODUCTS)
    torch.testing.assert_close(estimates, PRODUCTS[found.indices][:, None] * found.jacobians)
    assert estimates[found.indices == 0].eq(0).all(), "its product is 0, as that of none is"


@pytest.mark.parametrize("baseline", [1.0, -3.0])
def test_a_baseline_moves_no_mean(baseline: float) -> None:
    found = draws("gdas", 0.7, 2000)
    plain, centred = found.gradients(PRODUCTS), found.gradients(PRODUCTS, baseline)
    torch.testing.assert_close(centred.mean(0), plain.mean(0))


def test_a_baseline_takes_the_mean_out_of_the_variance() -> None:
    found = draws("gdas", 0.7, 2000)
    centred = found.gradients(torch.full((3,), 5.0, dtype=torch.float64), 5.0)
    torch.testing.assert_close(centred.var(0), torch.zeros(3, dtype=torch.float64))


def test_the_baseline_of_a_case_knows_nothing_of_it() -> None:
    cases = [Case(LOSSES, PRODUCTS * n, PRODUCTS, LOSSES[None]) for n in range(4)]
    mean = float(LOGITS.double().softmax(0) @ PRODUCTS)
    expected = [mean * (6 - n) / 3 for n in range(4)]
    assert running_means(cases, LOGITS) == pytest.approx(expected)


@pytest.mark.parametrize("passes", [2, 4])
def test_the_score_function_is_unbiased(passes: int) -> None:
    estimates = draws("score_function", 1.0, 40_000).score_function(LOSSES, passes)
    assert estimates.shape == (40_000 // passes, 3)
    error = estimates.std(0) / len(estimates) ** 0.5
    assert ((estimates.mean(0) - CASE.exact(LOGITS)).abs() < 4 * error).all()


def test_estimates_are_averaged_in_groups() -> None:
    estimates = torch.arange(10.0).view(5, 2)
    assert averaged(estimates, 2).tolist() == [[1.0, 2.0], [5.0, 6.0]]
    assert torch.equal(averaged(estimates[:1], 4), estimates[:1])


def moments(estimates: Tensor, truth: Tensor) -> list[list[Moments]]:
    return [[Moments.of(estimates.double(), truth.double())]]


def test_the_figures_of_the_truth_and_of_what_is_wrong_in_known_ways() -> None:
    truth = torch.tensor([3.0, -4.0, 1.0])
    exact = summary(moments(truth[None], truth), 0)
    assert exact["bias"] == exact["deviation"] == exact["noise"] == 0
    assert exact["cosine"] == pytest.approx(1) and exact["positive"] == exact["none_sign"] == 1
    assert exact["none_push"] == pytest.approx(3 / 26**0.5)
    double = summary(moments(2 * truth[None], truth), 0)
    assert double["bias"] == pytest.approx(1) and double["cosine"] == pytest.approx(1)
    reverse = summary(moments(-truth[None], truth), 0)
    assert reverse["cosine"] == pytest.approx(-1) and reverse["bias"] == pytest.approx(2)
    assert reverse["positive"] == reverse["none_sign"] == 0
    pair = torch.stack([truth + 2, truth - 2])
    noisy = summary(moments(pair, truth), 0)
    assert noisy["deviation"] == pytest.approx((3 * 8 / 26) ** 0.5)


def test_the_cosine_of_the_means_is_taken_after_the_mean_over_cases() -> None:
    first, second = torch.tensor([1.0, 2.0]).double(), torch.tensor([1.0, -2.0]).double()
    wrong = torch.tensor([[1.0, 0.0]]).double()
    found = summary([[Moments.of(wrong, first), Moments.of(wrong, second)]], 0)
    assert found["cosine_of_means"] == pytest.approx(1)
    assert found["cosine"] == pytest.approx(1 / 5**0.5)


def test_the_noise_of_a_mean_is_no_bias() -> None:
    truth = torch.tensor([0.5, -0.5])
    estimates = truth + 10 * torch.randn(4000, 2, generator=generator())
    raw = float((estimates.mean(0) - truth).norm() / truth.norm())
    assert summary(moments(estimates, truth), 0)["bias"] < max(raw, 0.3)


def test_enumeration_is_the_supernet_itself() -> None:
    found, batch, others = learner(), batch_of_8(), [3, 1, 2, 4, 3, 1]
    mixtures = torch.tensor([[0.0, 0.0, 1.0, 0.0, 0.0], [0.1, 0.2, 0.3, 0.2, 0.2]])
    case = enumerate_choice(found, batch, others, 2, mixtures)
    for option, name in enumerate(OPERATIONS):
        indices = [option if row == 2 else k for row, k in enumerate(others)]
        names = [OPERATIONS[k] for k in indices]
        sample = found.supernet.fixed(dict(zip(found.supernet.names, names, strict=True)))
        loss = found.weights_loss(batch, sample)[1].loss
        assert float(case.losses[option]) == pytest.approx(float(loss), rel=1e-5), name
        gradient = found.decision_gradient(batch, sample)[0][2, option]
        assert float(case.products[option]) == pytest.approx(float(gradient), rel=1e-4, abs=1e-6)
    assert case.products[0] == 0 and case.sums[0] != 0
    # Where one option has all of the weight, its own entry is its inner product.
    torch.testing.assert_close(case.mixed[0, 2], case.products[2], rtol=1e-3, atol=1e-5)
    assert case.mixed[1, 0] == 0 and case.mixed[1, 1:].all()


def test_before_a_batch_norm_no_operation_has_an_inner_product() -> None:
    """However much the loss needs it: larger outputs change nothing (docs/estimators.md)."""
    torch.manual_seed(0)
    images = torch.randn(16, 2, 4, 4)
    labels = (images.mean((1, 2, 3)) > 0).long()
    choice = Choice({"none": Zero(1), "skip": nn.Identity()}, "edge")
    head = nn.Sequential(nn.BatchNorm2d(2, eps=1e-9), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    classifier = nn.Linear(2, 2)
    with torch.no_grad():
        classifier.weight.copy_(4 * torch.tensor([[-1.0, -1.0], [1.0, 1.0]]))
    supernet = Supernet(nn.Sequential(choice, head, classifier), generator())
    updaters = [Updater(p, WEIGHTS) for p in (supernet.model.parameters(), [supernet.logits])]
    source = SampleSource(supernet, SAMPLERS.get("gdas"), generator())
    found = Learner(supernet, source, *updaters)
    case = enumerate_choice(found, (images, labels), [0], 0, torch.tensor([[0.5, 0.5]]))
    assert float(case.losses[1]) < 0.5 * float(case.losses[0])
    assert abs(float(case.products[1])) < 1e-5


def test_all_estimators_run_on_a_case() -> None:
    mixtures = torch.full((1 + MIXTURES, 3), 1 / 3)
    mixed = torch.ones(1 + MIXTURES, 3, dtype=torch.float64) * LOSSES
    case = Case(LOSSES, PRODUCTS, PRODUCTS, mixed)
    choice = OneChoice(torch.zeros(3), [case, case], mixtures)
    for name, (estimate, _) in estimators(4).items():
        found = list(estimate(choice, 40, generator()))
        assert len(found) == 2 and all(f.shape[1] == 3 for f in found), name
    # The gradient of softmax(a) @ losses, the losses being linear in the weights here.
    (softmax, _) = estimators(4)["softmax (all run)"]
    expected = case.exact(torch.zeros(3))
    torch.testing.assert_close(next(iter(softmax(choice, 1, generator())))[0], expected)


# Whole updates


def test_norms_and_products_of_means_are_free_of_the_noise() -> None:
    first = torch.tensor([[[3.0]], [[5.0]]])
    second = torch.tensor([[[1.0]], [[2.0]]])
    assert square_of_mean(first) == 15
    assert product_of_means(first, second) == (3 * 2 + 5 * 1) / 2
    noise = torch.randn(4000, 6, 5, generator=generator())
    assert abs(square_of_mean(noise)) < 0.01
    assert abs(square_of_mean(noise + 1) - 30) < 0.3


def test_the_figures_of_whole_updates() -> None:
    truth = torch.zeros(2, 3)
    truth[0, 0] = 2.0
    noise = torch.randn(20_000, 2, 3, generator=generator())
    found = figures(truth + noise, truth - noise, 0)
    assert found["cosine"] == pytest.approx(1, abs=0.05)
    assert found["noise"] == pytest.approx(6**0.5 / 2, rel=0.05)
    assert found["deviation"] == pytest.approx(6**0.5 / 2, rel=0.05)
    assert found["updates"] == pytest.approx(6 / 4, rel=0.1)
    # One of two rows has 2, the root mean square norm of a row is 2 / sqrt(2).
    assert found["none_push"] == pytest.approx(1 / 2**0.5, rel=0.05)


def test_what_is_lost_in_noise_is_not_told() -> None:
    noise = torch.randn(100, 2, 3, generator=generator())
    assert not is_resolved(noise) and is_resolved(noise + 1)
    found = figures(noise, noise + 1, 0)
    assert found["cosine"] is None and found["noise"] is None and found["deviation"] is not None
    assert figures(noise + 1, noise, 0)["noise"] is not None


def test_updates_take_the_jacobians_of_the_options_that_were_drawn() -> None:
    indices = torch.randint(3, (50, 4, 2), generator=generator())
    losses = torch.randn(50, 4, dtype=torch.float64, generator=generator())
    products = torch.randn(50, 4, 2, dtype=torch.float64, generator=generator(1))
    updates = Updates(indices, losses, products, products - 1)
    drawn = [draws("score_function", 1.0, 900)] * 2
    jacobians = updates.jacobians(drawn, generator())
    expected = torch.eye(3)[indices] - LOGITS.softmax(0)
    torch.testing.assert_close(jacobians, expected.double(), atol=1e-6, rtol=1e-5)
    found = updates.inner_products(products, jacobians)
    torch.testing.assert_close(found, (products[..., None] * jacobians).mean(1))
    advantages = torch.stack([4 / 3 * (row - row.mean()) for row in losses])
    expected = (advantages[..., None, None] * jacobians).mean(1)
    torch.testing.assert_close(updates.score_function(jacobians), expected)


def test_updates_are_those_of_the_search() -> None:
    found, batch = learner(), batch_of_8()
    updates = Updates.of(found, cycle([batch]), 2, 3)
    assert updates.losses.shape == (2, 3) and updates.products.shape == (2, 3, 6)
    indices = tuple(updates.indices[1, 2].tolist())
    weights = torch.eye(5)[list(indices)]
    for minus_sum, table in ((False, updates.products), (True, updates.centred)):
        gradient, result = found.decision_gradient(batch, Sample(weights, indices, minus_sum))
        torch.testing.assert_close(table[1, 2].float(), gradient.sum(1), rtol=1e-4, atol=1e-6)
        assert float(updates.losses[1, 2]) == pytest.approx(float(result.loss), rel=1e-5)


def test_the_picture_is_drawn(tmp_path: Path) -> None:
    row = {"cosine": 0.4, "noise": 2.0, "none_push": -0.1}
    names = ("exact gradient", "gdas, t=10", "score_function")
    rows = [{"steps": s, "estimator": n, **row} for s in (0, 100) for n in names]
    rows[0]["noise"], rows[1]["noise"] = 0.0, None
    plot(rows, rows[1:], tmp_path / "new" / "picture.png")
    assert (tmp_path / "new" / "picture.png").read_bytes().startswith(b"\x89PNG")


# Groups


def test_the_gradients_of_groups_are_those_of_the_step() -> None:
    found, batch = learner(), batch_of_8()
    source = found.draw
    assert isinstance(source, SampleSource)
    state = source.generator.get_state()
    table, loss = gradients(found, cycle([batch]), 1, groups=2, samples=3)
    taken: list[Tensor] = []

    def note(*_: object) -> None:
        assert found.supernet.logits.grad is not None
        taken.append(found.supernet.logits.grad.clone())

    found.logits.optimizer.register_step_pre_hook(note)
    source.generator.set_state(state)
    alternating = Alternating(found, groups=2, logits_samples=3)
    results, samples, _ = alternating.update_logits(batch, batch)
    torch.testing.assert_close(table[0].float(), taken[0], rtol=1e-4, atol=1e-6)
    assert len(samples) == 6
    assert loss == pytest.approx(sum(float(r.loss) for r in results) / 6, rel=1e-5)


def test_settings_are_compared_with_one_architecture_a_batch() -> None:
    single = torch.randn(4000, 2, 3, generator=generator()).double() + 1
    double = 2 * torch.randn(4000, 2, 3, generator=generator(1)).double() + 1
    rows = compare({(1, 1): (single, 0.5), (4, 1): (double, 0.7)}, batch_size=8)
    assert [(row["groups"], row["images a group"]) for row in rows] == [(1, 8), (4, 2)]
    assert rows[0]["variance / one group"] == 1
    assert rows[1]["variance / one group"] == pytest.approx(4, rel=0.1)
    assert rows[1]["cosine"] == pytest.approx(1, abs=0.02) and rows[1]["loss"] == 0.7


def test_steps_of_all_settings_are_timed() -> None:
    found, batch = learner(), batch_of_8()
    watch = time_steps(found, cycle([batch]), cycle([batch]), [(1, 1), (4, 1)], rounds=2)
    assert len(watch.names) == 4 and watch.ratio("logits step (4, 1)", "weight step (1, 1)") > 0
