"""Who is updated by which batch, in which order, and what a step leaves alone."""

import copy
import math
from itertools import product

import pytest
import torch
from learner_helpers import batch, batches, logits_of, make_learner, nothing, same, weights_of
from torch import Tensor, nn

from nas.optimisation.bilevel import (
    Alternating,
    Batch,
    BatchResult,
    Learner,
    SingleLevel,
    score_function_gradient,
)
from nas.optimisation.optimizers import OptimizerSettings
from nas.sampling.samplers import SAMPLERS, SampleSource
from nas.supernet import Sample


def reference_loss(learner: Learner, model: nn.Module, sample: Sample, data: Batch) -> Tensor:
    """The loss by plain autograd, with the weights of the sample where they belong."""
    x = model.stem(data[0]).tanh()
    for row, choice in enumerate((model.first, model.second)):
        outputs = [candidate(x) for candidate in choice.candidates]
        weights = sample.weights[row]
        if sample.indices is not None:
            index = sample.indices[row]
            x = (weights[index] * outputs[index]).tanh()
        else:
            x = sum(w * o for w, o in zip(weights, outputs, strict=False)).tanh()
    return nn.functional.cross_entropy(model.head(x), data[1])


class Reference:
    """The same search written with autograd alone: SGD without momentum on both."""

    def __init__(self, learner: Learner) -> None:
        self.learner = learner
        self.model = copy.deepcopy(learner.supernet.model)
        self.logits = logits_of(learner).requires_grad_()
        source = learner.draw
        assert isinstance(source, SampleSource)
        self.generator = torch.Generator()
        self.generator.set_state(source.generator.get_state())
        self.sampler = source.sampler
        self.padding = learner.supernet.masked_logits().isneginf()

    def loss(self, data: Batch) -> Tensor:
        masked = self.logits.masked_fill(self.padding, -math.inf)
        sample = self.sampler.draw(masked, 1.0, self.generator)
        return reference_loss(self.learner, self.model, sample, data)

    def update(self, loss: Tensor, parameters: list[Tensor]) -> None:
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
        with torch.no_grad():
            for parameter, gradient in zip(parameters, gradients, strict=True):
                if gradient is not None:
                    parameter -= 0.1 * gradient

    def update_weights(self, data: Batch) -> None:
        self.update(self.loss(data), list(self.model.parameters()))

    def update_logits(self, data: Batch) -> None:
        self.update(self.loss(data), [self.logits])

    def assert_agrees(self) -> None:
        torch.testing.assert_close(logits_of(self.learner), self.logits.detach())
        expected = {name: p.detach() for name, p in self.model.named_parameters()}
        torch.testing.assert_close(weights_of(self.learner), expected)


# Against plain autograd


@pytest.mark.parametrize("order", ["weights_first", "logits_first"])
@pytest.mark.parametrize("sampler", ["gdas", "gumbel_softmax", "softmax"])
def test_weights_learn_from_training_and_logits_from_validation_data(
    sampler: str, order: str
) -> None:
    learner = make_learner(sampler)
    reference, alternating = Reference(learner), Alternating(learner, order=order)
    validation = batches()
    for step in range(4):
        alternating.step(step, batch(step), validation)
        if order == "weights_first":
            reference.update_weights(batch(step))
            reference.update_logits(batch(100 + step))
        else:
            reference.update_logits(batch(100 + step))
            reference.update_weights(batch(step))
        reference.assert_agrees()


@pytest.mark.parametrize("sampler", ["gdas", "gumbel_softmax", "softmax"])
def test_single_level_updates_both_from_one_pass_over_one_batch(sampler: str) -> None:
    learner = make_learner(sampler)
    reference, single = Reference(learner), SingleLevel(learner)
    for step in range(4):
        before = logits_of(learner)
        result = single.step(step, batch(step), nothing())
        loss, parameters = reference.loss(batch(step)), list(reference.model.parameters())
        reference.update(loss, [*parameters, reference.logits])
        reference.assert_agrees()
        torch.testing.assert_close(result.weights[0].loss, loss.detach())
        assert len(result.samples) == len(result.logits) == 1
        assert not torch.equal(before, logits_of(learner))


@pytest.mark.parametrize("sampler", list(SAMPLERS))
def test_a_weight_update_moves_no_logits_and_a_logits_update_no_weights(sampler: str) -> None:
    learner = make_learner(sampler, weight_decay=0.1)
    weights, logits = weights_of(learner), logits_of(learner)
    learner.update_weights(batch(0))
    assert torch.equal(logits, logits_of(learner)) and not same(weights, weights_of(learner))
    assert learner.supernet.logits.grad is None
    weights, sample = weights_of(learner), learner.draw()
    gradient, _ = learner.decision_gradient(batch(1), sample)
    norm = learner.update_logits([sample], [gradient])
    assert same(weights, weights_of(learner))
    assert all(p.grad is None for p in learner.supernet.model.parameters())
    learns = SAMPLERS.get(sampler).learns
    assert torch.equal(logits, logits_of(learner)) != learns
    assert (norm > 0) == learns


def test_the_norm_of_a_logits_update_is_from_before_clipping() -> None:
    chosen = OptimizerSettings(learning_rate=1.0, momentum=0.0, clip_norm=1e-3)
    learner = make_learner("softmax", logits=chosen)
    before, sample = logits_of(learner), learner.draw()
    decisions, _ = learner.decision_gradient(batch(1), sample)
    expected = torch.autograd.grad(sample.weights, learner.supernet.logits, decisions)[0].norm()
    sample = learner.draw()
    norm = learner.update_logits([sample], [decisions])
    assert norm == pytest.approx(float(expected), rel=1e-5) and norm > 2e-3
    moved = (before - logits_of(learner)).norm()
    torch.testing.assert_close(moved, torch.tensor(1e-3), rtol=1e-2, atol=0)


# Order


def record(learner: Learner) -> list[str]:
    """Notes forward passes by the batch's seed ("t0", "v100") and updates ("W", "A")."""
    events: list[str] = []
    known = {float(batch(seed)[0].sum()): seed for seed in [*range(20), *range(100, 120)]}

    def note_batch(module: nn.Module, inputs: tuple[Tensor]) -> None:
        seed = known[float(inputs[0].sum())]
        events.append(f"{'t' if seed < 100 else 'v'}{seed % 100}")

    learner.supernet.model.register_forward_pre_hook(note_batch)
    for updater, letter in ((learner.weights, "W"), (learner.logits, "A")):
        hook = lambda *_, letter=letter: events.append(letter)  # noqa: E731
        updater.optimizer.register_step_post_hook(hook)
    return events


SEQUENCES = {
    ("weights_first", 1, 1): "t0 W v0 A t1 W v1 A t2 W v2 A t3 W v3 A",
    ("logits_first", 1, 1): "v0 A t0 W v1 A t1 W v2 A t2 W v3 A t3 W",
    ("weights_first", 2, 1): "t0 W t1 W v0 A t2 W t3 W v1 A",
    ("logits_first", 2, 1): "v0 A t0 W t1 W v1 A t2 W t3 W",
    ("weights_first", 1, 2): "t0 W v0 A v1 A t1 W v2 A v3 A t2 W v4 A v5 A t3 W v6 A v7 A",
    ("logits_first", 3, 2): "v0 A v1 A t0 W t1 W t2 W v2 A v3 A t3 W",
    ("weights_first", 3, 2): "t0 W t1 W t2 W v0 A v1 A t3 W",
}


@pytest.mark.parametrize(("setting", "sequence"), SEQUENCES.items(), ids=map(str, SEQUENCES))
def test_updates_come_in_the_order_and_ratio_that_was_set(
    setting: tuple[str, int, int], sequence: str
) -> None:
    order, weight_steps, logits_steps = setting
    learner = make_learner()
    events, validation = record(learner), batches()
    alternating = Alternating(
        learner, order=order, weight_steps=weight_steps, logits_steps=logits_steps
    )
    results = [alternating.step(step, batch(step), validation) for step in range(4)]
    assert " ".join(events) == sequence
    num_updates = sum(len(result.logits) for result in results)
    assert num_updates == sequence.count("A")
    assert sum(len(result.samples) for result in results) == num_updates + 4


def test_a_resumed_round_goes_on_where_it_was() -> None:
    learner = make_learner()
    events, alternating = record(learner), Alternating(learner, weight_steps=3)
    for step in (5, 6, 7, 8):
        alternating.step(step, batch(step), batches())
    assert " ".join(events) == "t5 W v0 A t6 W t7 W t8 W v0 A"


@pytest.mark.parametrize("order", ["weights_first", "logits_first"])
def test_the_warm_up_trains_the_weights_alone(order: str) -> None:
    learner = make_learner()
    events, logits = record(learner), logits_of(learner)
    for kind in (Alternating(learner, order=order), SingleLevel(learner)):
        weights = weights_of(learner)
        result = kind.step(0, batch(0), nothing(), learn_logits=False)
        assert not same(weights, weights_of(learner))
        assert result.logits == [] and len(result.samples) == 1
        assert result.logits_gradient_norms == []
    assert torch.equal(logits, logits_of(learner)) and events == ["t0", "W"] * 2


def test_every_forward_pass_draws_a_fresh_sample() -> None:
    learner = make_learner()
    drawn: list[Sample] = []
    source = learner.draw
    learner.draw = lambda: drawn.append(source()) or drawn[-1]
    result = Alternating(learner, logits_steps=2).step(0, batch(0), batches())
    assert len(drawn) == 3 and [id(s) for s in drawn] == [id(s) for s in result.samples]


# Several samples


def test_an_update_of_the_weights_adds_the_gradients_of_all_its_samples() -> None:
    learner = make_learner()
    samples = [learner.draw() for _ in range(3)]
    learner.draw_for_weights = lambda: samples
    model = copy.deepcopy(learner.supernet.model)
    losses = [reference_loss(learner, model, sample, batch(0)) for sample in samples]
    gradients = torch.autograd.grad(sum(losses), list(model.parameters()), allow_unused=True)
    before = weights_of(learner)
    results, drawn = learner.update_weights(batch(0))
    assert drawn == samples
    torch.testing.assert_close([r.loss for r in results], [loss.detach() for loss in losses])
    for gradient, (name, old) in zip(gradients, before.items(), strict=True):
        expected = old if gradient is None else old - 0.1 * gradient
        torch.testing.assert_close(weights_of(learner)[name], expected)


def test_an_update_of_the_logits_averages_the_gradients_of_its_samples() -> None:
    learner = make_learner()
    reference, before = Reference(learner), logits_of(learner)
    Alternating(learner, logits_samples=3, order="logits_first").step(0, batch(0), batches())
    loss = torch.stack([reference.loss(batch(100)) for _ in range(3)]).mean()
    (gradient,) = torch.autograd.grad(loss, reference.logits)
    torch.testing.assert_close(logits_of(learner), before - 0.1 * gradient)


def test_the_score_function_has_the_gradient_of_the_expected_loss() -> None:
    """Against the sum over all architectures."""
    learner = make_learner("score_function")
    supernet, data = learner.supernet, batch(3)
    with torch.no_grad():
        supernet.logits.normal_(generator=torch.Generator().manual_seed(5))
    leaf = logits_of(learner).requires_grad_()
    masked = leaf.masked_fill(supernet.masked_logits().isneginf(), -math.inf)
    probabilities = masked.softmax(-1)
    expectation = torch.zeros(())
    for options in product(*supernet.options.values()):
        sample = supernet.fixed(dict(zip(supernet.names, options, strict=True)))
        with torch.no_grad():
            loss = learner.weights_loss(data, sample)[0]
        assert sample.indices is not None
        rows = torch.arange(len(sample.indices))
        expectation = expectation + loss * probabilities[rows, list(sample.indices)].prod()
    (expected,) = torch.autograd.grad(expectation, leaf)
    found = []
    for _ in range(300):
        samples = [learner.draw() for _ in range(4)]
        gradients, results = score_function_gradient(learner, samples, data, data)
        assert len(results) == 4
        per_sample = [
            torch.autograd.grad(sample.weights, supernet.logits, gradient)[0]
            for sample, gradient in zip(samples, gradients, strict=True)
        ]
        found.append(torch.stack(per_sample).mean(0))
    table = torch.stack(found)
    error = table.std(0) / len(table) ** 0.5
    real = ~supernet.masked_logits().isneginf()
    deviations = ((table.mean(0) - expected) / error)[real]
    assert deviations.abs().max() < 4
    assert expected[real].abs().max() > 5 * error[real].min(), "there was something to find"


def test_the_score_function_needs_a_second_sample() -> None:
    learner = make_learner("score_function")
    with pytest.raises(ValueError, match="at least two"):
        score_function_gradient(learner, [learner.draw()], batch(0), batch(0))


# What one path leaves alone


def operation_of(name: str) -> tuple[str, int] | None:
    """Choice and option that own the parameter called `name`."""
    parts = name.split(".")
    return (parts[0], int(parts[2])) if parts[1] == "candidates" else None


@pytest.mark.parametrize("kind", [Alternating, SingleLevel])
@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_operations_that_were_not_sampled_stay_bit_identical(
    name: str, kind: type[Alternating] | type[SingleLevel]
) -> None:
    learner = make_learner(name=name, momentum=0.9, weight_decay=0.1, clip_norm=1.0)
    optimizer, step = learner.weights.optimizer, kind(learner)
    named = dict(learner.supernet.model.named_parameters())
    num_kept_with_state = 0
    for number in range(12):
        before = copy.deepcopy({n: (p.detach(), optimizer.state[p]) for n, p in named.items()})
        result = step.step(number, batch(number), batches())
        indices = result.samples[0].indices
        assert indices is not None
        sampled = dict(zip(learner.supernet.names, indices, strict=True)).items()
        for parameter_name, parameter in named.items():
            value, state = before[parameter_name]
            operation = operation_of(parameter_name)
            if operation is None or operation in sampled:
                assert not torch.equal(parameter, value)
                continue
            assert torch.equal(parameter, value)
            assert optimizer.state[parameter].keys() == state.keys()
            for key, kept in state.items():
                assert kept is None or torch.equal(optimizer.state[parameter][key], kept)
            num_kept_with_state += bool(state)
    assert num_kept_with_state > 10


# Results


def test_a_result_counts_what_was_right() -> None:
    learner = make_learner()
    images, _ = batch(0)
    sample = learner.draw()
    outputs = learner.supernet.forward(images, sample).detach()
    labels = outputs.argmax(1)
    labels[:2] = (labels[:2] + 1) % 3
    _, result = learner.weights_loss((images, labels), sample)
    expected = BatchResult(nn.functional.cross_entropy(outputs, labels), torch.tensor(4), 6)
    torch.testing.assert_close(result.loss, expected.loss)
    assert int(result.num_correct) == 4 and result.num_images == 6
    assert not result.loss.requires_grad


def test_the_result_of_a_step_has_the_norms_of_its_logits_updates() -> None:
    learner = make_learner("softmax")
    norms: list[float] = []
    update = learner.update_logits

    def noted(samples: list[Sample], gradients: list[Tensor]) -> float:
        norms.append(update(samples, gradients))
        return norms[-1]

    learner.update_logits = noted  # type: ignore[method-assign]
    result = Alternating(learner, logits_steps=3).step(0, batch(0), batches())
    assert len(norms) == 3 and result.logits_gradient_norms == norms
