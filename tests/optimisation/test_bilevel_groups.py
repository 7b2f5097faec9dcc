"""Groups: parts of one batch that run different architectures in one update."""

import copy
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, product, repeat

import pytest
import torch
from supernet_helpers import SPACES, batch, build, generator, loss_of
from torch import Tensor, nn

from nas.choice import Choice
from nas.optimisation.bilevel import (
    Alternating,
    Batch,
    Learner,
    LogitsGradient,
    first_order_gradient,
    score_function_gradient,
    split,
)
from nas.optimisation.optimizers import OptimizerSettings, Updater
from nas.optimisation.unrolled import SecondOrder
from nas.sampling.samplers import SAMPLERS, SampleSource
from nas.supernet import Sample, Supernet


def make_learner(supernet: Supernet, sampler: str = "gdas") -> Learner:
    return Learner(
        supernet,
        SampleSource(supernet, SAMPLERS.get(sampler), generator(1)),
        Updater(supernet.model.parameters(), OptimizerSettings(learning_rate=0.1)),
        Updater([supernet.logits], OptimizerSettings(learning_rate=0.1)),
    )


def source_of(learner: Learner) -> SampleSource:
    assert isinstance(learner.draw, SampleSource)
    return learner.draw


def large_batch(seed: int = 0) -> Batch:
    """8 images: what the helpers' batches of 4 hold, twice."""
    (first, labels), (second, others) = batch(seed), batch(seed + 50)
    return torch.cat([first, second]), torch.cat([labels, others])


def gradients_of(updater: Updater, act: Callable[[], object]) -> list[Tensor | None]:
    """The gradients with which `act` lets `updater` step; nothing moves."""
    found: list[Tensor | None] = []

    def take(*_: object) -> None:
        for parameter in updater.parameters:
            found.append(parameter.grad)
            parameter.grad = None

    handle = updater.optimizer.register_step_pre_hook(take)
    act()
    handle.remove()
    return found


def step_gradients(
    learner: Learner,
    train: Batch,
    validation: Batch,
    gradient: LogitsGradient = first_order_gradient,
    **options: int,
) -> tuple[list[Tensor | None], Tensor]:
    """Gradients of the weights and of the logits in one step."""
    alternating = Alternating(learner, gradient, **options)  # type: ignore[arg-type]
    logits: list[Tensor | None] = []

    def step() -> None:
        logits.extend(
            gradients_of(learner.logits, lambda: alternating.step(0, train, iter([validation])))
        )

    weights = gradients_of(learner.weights, step)
    assert logits[0] is not None
    return weights, logits[0]


def assert_same(found: Sequence[Tensor | None], expected: Sequence[Tensor | None]) -> None:
    for one, other in zip(found, expected, strict=True):
        assert (one is None) == (other is None)
        if one is not None and other is not None:
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def reference_gradients(
    learner: Learner, parts: Sequence[Batch], samples: Sequence[Sample]
) -> tuple[list[Tensor | None], Tensor]:
    """Of the mean of the losses of each part under its sample, by plain autograd."""
    supernet = learner.supernet
    losses = []
    for (images, labels), sample in zip(parts, samples, strict=True):
        # What has weight 0 is not run: on one path autograd gives the paper's inner products.
        losses.append(loss_of(supernet.mixture(images, sample.weights), labels))
    inputs = [*learner.weights.parameters, supernet.logits]
    found = torch.autograd.grad(torch.stack(losses).mean(), inputs, allow_unused=True)
    assert found[-1] is not None
    return list(found[:-1]), found[-1]


# One group


@pytest.mark.parametrize("space", sorted(SPACES))
@pytest.mark.parametrize("fair", [False, True])
def test_one_group_is_the_whole_batch_to_the_bit(space: str, fair: bool) -> None:
    """Against the updates written without groups."""
    learner = make_learner(build(SPACES[space]))
    source = source_of(learner)
    learner.draw_for_weights = source.fair if fair else None
    state = source.generator.get_state()
    weights, logits = step_gradients(learner, batch(0), batch(1), groups=1)

    source.generator.set_state(state)
    for sample in source.fair() if fair else [source()]:
        learner.weights_loss(batch(0), sample)[0].backward()
    expected = [p.grad for p in learner.weights.parameters]
    for found, gradient in zip(weights, expected, strict=True):
        assert (found is None) == (gradient is None)
        assert found is None or gradient is None or torch.equal(found, gradient)
    sample = source()
    decisions, _ = learner.decision_gradient(batch(1), sample)
    assert torch.equal(
        logits, torch.autograd.grad(sample.weights, learner.supernet.logits, decisions)[0]
    )


# Several groups


@pytest.mark.parametrize("sampler", ["gdas", "gumbel_softmax"])
@pytest.mark.parametrize("space", sorted(SPACES))
@pytest.mark.parametrize("groups", [2, 4])
def test_gradients_are_the_means_over_the_groups(space: str, sampler: str, groups: int) -> None:
    """Against autograd through the supernet, batch norm over each group."""
    learner = make_learner(build(SPACES[space]), sampler)
    source = source_of(learner)
    state = source.generator.get_state()
    train, validation = large_batch(0), large_batch(1)
    weights, logits = step_gradients(learner, train, validation, groups=groups)

    source.generator.set_state(state)
    drawn = [source() for _ in range(2 * groups)]
    if sampler == "gdas":
        assert len({sample.indices for sample in drawn}) > groups, "there are different ones"
    assert_same(weights, reference_gradients(learner, split(train, groups), drawn[:groups])[0])
    expected = reference_gradients(learner, split(validation, groups), drawn[groups:])[1]
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-6)


def test_every_image_is_run_once_in_groups_of_one_size() -> None:
    learner = make_learner(build(SPACES["nasbench201"]))
    seen: list[Tensor] = []
    learner.supernet.model.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    train, validation = large_batch(0), large_batch(1)
    result = Alternating(learner, groups=4).step(0, train, iter([validation]))
    assert [len(images) for images in seen] == [2] * 8
    assert torch.equal(torch.cat(seen), torch.cat([train[0], validation[0]]))
    assert [part.num_images for part in (*result.weights, *result.logits)] == [2] * 8
    assert len({id(sample) for sample in result.samples}) == 8
    assert len(result.logits_gradient_norms) == 1


def test_each_group_has_as_many_samples_as_an_update_without_groups() -> None:
    learner = make_learner(build(SPACES["nasbench201"]))
    source = source_of(learner)
    state = source.generator.get_state()
    data = large_batch()
    options = {"groups": 2, "logits_samples": 3, "order": "logits_first"}
    _, logits = step_gradients(learner, data, data, **options)  # type: ignore[arg-type]
    source.generator.set_state(state)
    first, second = split(data, 2)
    drawn = [source() for _ in range(6)]
    expected = reference_gradients(learner, [first] * 3 + [second] * 3, drawn)[1]
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-6)


def test_with_fair_samples_every_group_sees_every_option_once() -> None:
    learner = make_learner(build(SPACES["nasbench201"]))
    source = source_of(learner)
    learner.draw_for_weights = source.fair
    _, samples = learner.update_weights(large_batch(), groups=2)
    assert len(samples) == 10
    for part in (samples[:5], samples[5:]):
        assert torch.stack([sample.weights for sample in part]).sum(0).eq(1).all()


def test_the_unrolled_gradient_of_a_group_is_that_of_its_own_images() -> None:
    learner = make_learner(build(SPACES["nasbench201"]))
    source = source_of(learner)
    state = source.generator.get_state()
    train, validation, rule = large_batch(0), large_batch(1), SecondOrder()
    options = {"groups": 2, "order": "logits_first"}
    _, logits = step_gradients(learner, train, validation, rule, **options)  # type: ignore[arg-type]
    source.generator.set_state(state)
    expected = torch.zeros_like(logits)
    for part, other in zip(split(validation, 2), split(train, 2), strict=True):
        sample = source()
        decisions, _ = rule.gradient(learner, sample, part, other)
        (found,) = torch.autograd.grad(sample.weights, learner.supernet.logits, decisions)
        expected += found / 2
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-7)


def test_batches_that_do_not_split_are_refused() -> None:
    with pytest.raises(ValueError, match="4 images cannot be split into 3 equal groups"):
        split(batch(), 3)


# Against the sum over all draws


class OneChoice(nn.Module):
    """One searched layer and a fixed one; no batch norm, so images do not meet."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = Choice({str(k): nn.Linear(4, 5) for k in range(3)}, "layer")
        self.head = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.layer(x).tanh())
        return out


def scripted(supernet: Supernet, options: Sequence[int]) -> Iterator[Sample]:
    """Samples of the given options, the gradient of log p behind them."""
    for option in options:
        log_p = supernet.logits.log_softmax(-1)
        hard = nn.functional.one_hot(torch.tensor([option]), 3)
        yield Sample(hard + log_p - log_p.detach(), (option,))


def test_the_expectation_of_both_gradients_is_exact() -> None:
    """One choice of 3 options, 2 groups: all 9 draws of the weights times all 81 of the logits."""
    supernet = Supernet(OneChoice(), generator(3), init_scale=1.0)
    learner = make_learner(supernet, "score_function")
    data = torch.randn(4, 4, generator=generator(1)), torch.tensor([0, 2, 1, 1])
    probabilities = supernet.logits.detach().softmax(-1)[0].tolist()

    leaf = supernet.logits.detach().clone().requires_grad_()
    model = copy.deepcopy(supernet.model)
    hidden = [candidate(data[0]).tanh() for candidate in model.layer.candidates]
    losses = torch.stack([nn.functional.cross_entropy(model.head(h), data[1]) for h in hidden])
    inputs = [*model.parameters(), leaf]
    *expected, exact = torch.autograd.grad(leaf.softmax(-1)[0] @ losses, inputs)

    def chance(options: Sequence[int]) -> float:
        return float(torch.tensor([probabilities[k] for k in options], dtype=torch.float64).prod())

    logits = torch.zeros_like(exact)
    for options in product(range(3), repeat=4):
        draws = chain(scripted(supernet, (0, 0)), scripted(supernet, options))
        learner.draw = lambda draws=draws: next(draws)  # type: ignore[misc]
        settings = {"groups": 2, "logits_samples": 2}
        _, found = step_gradients(learner, data, data, score_function_gradient, **settings)
        logits += chance(options) * found
    torch.testing.assert_close(logits, exact, rtol=1e-4, atol=1e-6)

    weights = [torch.zeros_like(gradient) for gradient in expected]
    for options in product(range(3), repeat=2):
        draws = chain(scripted(supernet, options), repeat(None))  # type: ignore[arg-type]
        learner.draw = lambda draws=draws: next(draws)  # type: ignore[misc]
        update = lambda: learner.update_weights(data, groups=2)  # noqa: E731
        for total, gradient in zip(weights, gradients_of(learner.weights, update), strict=True):
            if gradient is not None:
                total += chance(options) * gradient
    assert_same(weights, expected)
