"""Schedules in closed form, clipping against torch's, messages that name key and remedy."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from nas.optimisation.optimizers import OptimizerSettings, Updater, learning_rate

SETTINGS = settings(deadline=None, derandomize=True, max_examples=50)

epochs_and_warmup = st.integers(1, 60).flatmap(
    lambda n: st.tuples(st.just(n), st.integers(0, n - 1))
)


def parameters(seed: int = 0) -> list[Tensor]:
    source = torch.Generator().manual_seed(seed)
    return [torch.randn(n, generator=source).requires_grad_() for n in (3, 5, 2)]


def set_gradients(tensors: list[Tensor], scale: float = 1.0) -> None:
    for position, tensor in enumerate(tensors):
        tensor.grad = scale * torch.arange(1.0 + position, 1.0 + position + len(tensor))


# Schedules


@SETTINGS
@given(epochs_and_warmup, st.floats(1e-4, 1.0), st.floats(0.0, 1e-2))
def test_the_cosine_follows_its_formula_after_the_warm_up(
    sizes: tuple[int, int], base: float, final: float
) -> None:
    epochs, warmup = sizes
    chosen = OptimizerSettings(
        learning_rate=base, final_learning_rate=final, schedule="cosine", warmup_epochs=warmup
    )
    for epoch in range(warmup, epochs):
        angle = math.pi * (epoch - warmup) / (epochs - warmup)
        expected = (base + final) / 2 + (base - final) / 2 * math.cos(angle)
        assert learning_rate(chosen, epoch, epochs) == pytest.approx(expected)
    assert learning_rate(chosen, warmup, epochs) == pytest.approx(base)
    assert learning_rate(chosen, epochs, epochs) == pytest.approx(final)


def test_the_cosine_is_that_of_torch() -> None:
    chosen = OptimizerSettings(
        learning_rate=0.025, final_learning_rate=0.001, schedule="cosine", momentum=0.0
    )
    optimizer = torch.optim.SGD(parameters(), lr=0.025)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 50, eta_min=0.001)
    for epoch in range(50):
        assert learning_rate(chosen, epoch, 50) == pytest.approx(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()


@SETTINGS
@given(epochs_and_warmup, st.floats(0.5, 1.0))
def test_the_exponential_shrinks_by_its_factor_each_epoch(
    sizes: tuple[int, int], factor: float
) -> None:
    epochs, warmup = sizes
    chosen = OptimizerSettings(
        learning_rate=0.1, schedule="exponential", decay_per_epoch=factor, warmup_epochs=warmup
    )
    found = [learning_rate(chosen, epoch, epochs) for epoch in range(warmup, epochs)]
    assert found == pytest.approx([0.1 * factor**n for n in range(epochs - warmup)])


@pytest.mark.parametrize("schedule", ["constant", "cosine", "exponential"])
@pytest.mark.parametrize("warmup", [1, 2, 5])
def test_the_warm_up_is_a_straight_line_that_reaches_the_base_when_it_ends(
    warmup: int, schedule: str
) -> None:
    chosen = OptimizerSettings(learning_rate=0.3, warmup_epochs=warmup, schedule=schedule)
    line = [learning_rate(chosen, epoch, 20) for epoch in range(warmup + 1)]
    assert line == pytest.approx([0.3 * k / (warmup + 1) for k in range(1, warmup + 2)])


def test_a_warm_up_longer_than_the_run_never_ends() -> None:
    chosen = OptimizerSettings(learning_rate=0.3, warmup_epochs=9, schedule="cosine")
    assert learning_rate(chosen, 2, 3) == pytest.approx(0.09)


def test_the_constant_schedule_is_constant() -> None:
    chosen = OptimizerSettings(learning_rate=0.3)
    assert {learning_rate(chosen, epoch, 7) for epoch in range(7)} == {0.3}


def test_set_epoch_sets_the_rate_of_the_optimiser() -> None:
    chosen = OptimizerSettings(learning_rate=0.1, schedule="cosine")
    updater = Updater(parameters(), chosen)
    rate = updater.set_epoch(3, 10)
    assert rate == learning_rate(chosen, 3, 10) < 0.1
    assert [group["lr"] for group in updater.optimizer.param_groups] == [rate]


# Updates


def torch_optimizer(name: str, tensors: list[Tensor]) -> torch.optim.Optimizer:
    if name == "sgd":
        return torch.optim.SGD(tensors, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01)
    kind = torch.optim.Adam if name == "adam" else torch.optim.AdamW
    return kind(tensors, lr=0.1, betas=(0.5, 0.999), weight_decay=0.01)


@pytest.mark.parametrize("limit", [0.0, 0.5, 3.0, 1e6])
@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_an_update_is_that_of_torch_with_its_clipping(name: str, limit: float) -> None:
    found, expected = parameters(), parameters()
    chosen = OptimizerSettings(
        name=name, learning_rate=0.1, weight_decay=0.01, clip_norm=limit, beta1=0.5, nesterov=True
    )
    updater = Updater(found, chosen)
    other = torch_optimizer(name, expected)
    for scale in (1.0, 0.1, 5.0):
        set_gradients(found, scale)
        set_gradients(expected, scale)
        if limit > 0:
            torch.nn.utils.clip_grad_norm_(expected, limit)
        updater.step()
        other.step()
    for a, b in zip(found, expected, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("scale", [0.01, 1.0, 100.0])
def test_clipping_limits_the_norm_of_all_gradients_together(scale: float) -> None:
    found = parameters()
    before = [p.detach().clone() for p in found]
    updater = Updater(found, OptimizerSettings(learning_rate=1.0, momentum=0.0, clip_norm=2.0))
    set_gradients(found, scale)
    gradients = torch.cat([p.grad for p in found if p.grad is not None])
    updater.step()
    moved = torch.cat([b - p.detach() for p, b in zip(found, before, strict=True)])
    expected = gradients * min(1.0, 2.0 / float(gradients.norm()))
    torch.testing.assert_close(moved, expected, atol=1e-5, rtol=1e-4)


def test_a_step_sets_the_gradients_to_none() -> None:
    found = parameters()
    updater = Updater(iter(found), OptimizerSettings())
    set_gradients(found)
    updater.step()
    assert all(p.grad is None for p in found)
    set_gradients(found)
    updater.zero_grad()
    assert all(p.grad is None for p in found)


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_parameters_without_a_gradient_are_left_alone(name: str) -> None:
    found = parameters()
    chosen = OptimizerSettings(name=name, weight_decay=0.1, clip_norm=1.0)
    updater = Updater(found, chosen)
    set_gradients(found)
    updater.step()
    before = found[1].detach().clone()
    state = {k: torch.as_tensor(v).clone() for k, v in updater.optimizer.state[found[1]].items()}
    set_gradients([found[0]])
    updater.step()
    assert torch.equal(found[1], before) and state
    for key, value in state.items():
        assert torch.equal(torch.as_tensor(updater.optimizer.state[found[1]][key]), value)


@pytest.mark.parametrize("limit", [0.0, 0.5])
@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_unsampled_parameters_can_be_updated_as_by_zero_gradients(name: str, limit: float) -> None:
    found, expected = parameters(), parameters()
    chosen = OptimizerSettings(
        name=name, learning_rate=0.1, weight_decay=0.01, clip_norm=limit, beta1=0.5, nesterov=True
    )
    updater = Updater(found, chosen, update_unsampled=True)
    other = torch_optimizer(name, expected)
    # The second is sampled once, so momentum goes on; the third never is: decay alone.
    for sampled in ([0, 1], [0], [0], []):
        for tensor in expected:
            tensor.grad = torch.zeros_like(tensor)
        set_gradients([found[i] for i in sampled])
        set_gradients([expected[i] for i in sampled])
        if limit > 0:
            torch.nn.utils.clip_grad_norm_(expected, limit)
        before = [p.detach().clone() for p in found]
        updater.step()
        other.step()
        for a, b, was in zip(found, expected, before, strict=True):
            assert torch.equal(a, b) and not torch.equal(a, was)
            assert a.grad is None


def test_parameters_that_are_frozen_stay_whatever_is_set() -> None:
    trained, frozen = torch.ones(2, requires_grad=True), torch.ones(2)
    chosen = OptimizerSettings(weight_decay=0.1)
    updater = Updater([trained, frozen], chosen, update_unsampled=True)
    updater.step()
    assert torch.equal(frozen, torch.ones(2)) and not torch.equal(trained, torch.ones(2))


def test_without_decay_or_momentum_unsampled_parameters_stay() -> None:
    found = parameters()
    chosen = OptimizerSettings(weight_decay=0.0, momentum=0.0)
    before = found[1].detach().clone()
    updater = Updater(found, chosen, update_unsampled=True)
    set_gradients([found[0]])
    updater.step()
    assert torch.equal(found[1], before)


# Checks


def test_the_defaults_are_valid() -> None:
    chosen = OptimizerSettings()
    chosen.check("weights")
    assert chosen.name == "sgd"


@pytest.mark.parametrize(
    ("field", "value", "remedy"),
    [
        ("learning_rate", 0.0, "must be positive"),
        ("learning_rate", -0.1, "must be positive"),
        ("learning_rate", math.nan, "must be positive"),
        ("learning_rate", math.inf, "must be positive"),
        ("weight_decay", -1e-4, "must not be negative"),
        ("weight_decay", math.nan, "must not be negative"),
        ("final_learning_rate", -1.0, "must not be negative"),
        ("clip_norm", -5.0, "must not be negative"),
        ("warmup_epochs", -1, "must not be negative"),
        ("momentum", 1.0, r"must lie in \[0, 1\)"),
        ("momentum", -0.1, r"must lie in \[0, 1\)"),
        ("beta1", 1.5, r"must lie in \[0, 1\)"),
        ("beta2", 1.0, r"must lie in \[0, 1\)"),
        ("decay_per_epoch", 0.0, r"must lie in \(0, 1\]"),
        ("decay_per_epoch", 1.1, r"must lie in \(0, 1\]"),
    ],
)
def test_values_out_of_range_are_refused_by_key_value_and_remedy(
    field: str, value: float, remedy: str
) -> None:
    chosen = OptimizerSettings(**{field: value})
    with pytest.raises(ValueError, match=rf"^weights\.{field} is {value}: {remedy}"):
        chosen.check("weights")


@pytest.mark.parametrize(
    ("field", "value", "nearest"), [("name", "sdg", "sgd"), ("schedule", "cosin", "cosine")]
)
def test_unknown_names_are_answered_with_the_nearest(field: str, value: str, nearest: str) -> None:
    chosen = OptimizerSettings(**{field: value})
    with pytest.raises(ValueError, match=rf"'{value}' \(logits\.{field}\).*mean '{nearest}'"):
        chosen.check("logits")


def test_nesterov_without_momentum_is_refused_only_for_sgd() -> None:
    with pytest.raises(ValueError, match=r"weights\.nesterov.*set weights\.momentum above 0"):
        OptimizerSettings(nesterov=True, momentum=0.0).check("weights")
    adam = OptimizerSettings(name="adam", nesterov=True, momentum=0.0)
    adam.check("weights")
    assert isinstance(Updater(parameters(), adam).optimizer, torch.optim.Adam)


# One kernel for all


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_one_kernel_updates_as_many_do(name: str) -> None:
    """A network with convolutions in channels-last memory and one that no gradient reaches."""
    chosen = OptimizerSettings(name=name, nesterov=name == "sgd", weight_decay=0.1, clip_norm=1.0)
    networks = []
    for fused in (False, True):
        torch.manual_seed(0)
        # Without a bias before the norm: its gradient is rounding, which Adam makes large.
        convs = torch.nn.Conv2d(3, 4, 3, bias=False), torch.nn.Conv2d(4, 2, 1)
        network = torch.nn.Sequential(convs[0], torch.nn.BatchNorm2d(4), convs[1])
        network = network.to(memory_format=torch.channels_last)
        updater = Updater([*network.parameters(), *parameters()], chosen, fused=fused)
        for step in range(4):
            source = torch.Generator().manual_seed(step)
            images = torch.randn(2, 3, 6, 6, generator=source)
            network(images.to(memory_format=torch.channels_last)).square().sum().backward()
            updater.step()
        networks.append(network)
    for plain, fused_one in zip(*(n.parameters() for n in networks), strict=True):
        torch.testing.assert_close(fused_one, plain)


# Starting anew


@pytest.mark.parametrize("update_unsampled", [False, True])
def test_a_restarted_one_has_no_momentum_and_keeps_its_rate(update_unsampled: bool) -> None:
    settings = OptimizerSettings(
        learning_rate=0.5, momentum=0.9, weight_decay=0.1, schedule="cosine", warmup_epochs=2
    )
    tensors = parameters()
    old = Updater(tensors, settings, update_unsampled=update_unsampled)
    set_gradients(tensors)
    old.step()
    new = old.restarted(0.01)
    for epoch in (0, 5):
        assert new.set_epoch(epoch, 10) == new.learning_rate == pytest.approx(0.01)
    before = [tensor.detach().clone() for tensor in tensors]
    tensors[0].grad = torch.ones(3)
    new.step()
    expected = before[0] - 0.01 * (1 + 0.1 * before[0])
    torch.testing.assert_close(tensors[0].detach(), expected)
    assert torch.equal(tensors[1].detach(), before[1]) != update_unsampled


def test_a_rate_that_was_lowered_stays_so_in_a_restarted_one() -> None:
    """A search has gone back from numbers that were not finite."""
    old = Updater(parameters(), OptimizerSettings(learning_rate=0.5))
    old.factor = 0.25
    new = old.restarted(0.04)
    assert new.learning_rate == new.set_epoch(3, 10) == pytest.approx(0.01)
    assert new.restarted(0.04).learning_rate == pytest.approx(0.04)
