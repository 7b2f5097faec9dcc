"""Numbers that leave the finite: noticed before they do harm, and traced to their origin."""

import math

import pytest
import torch
from torch import Tensor, nn

from nas.errors import UserError
from nas.optimisation.finite import (
    NonFiniteLossError,
    NonFiniteSettings,
    all_finite,
    check_finite,
    first_non_finite,
)
from nas.optimisation.optimizers import OptimizerSettings, Updater

pytestmark = pytest.mark.faults


class Logarithm(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.log()


def model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 3), nn.Sequential(nn.ReLU(), Logarithm()), nn.Linear(3, 2))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_is_a_users_error_of_one_line(value: float) -> None:
    with pytest.raises(NonFiniteLossError, match=f"the loss is {value}: lower the lear") as caught:
        check_finite(value, "loss")
    assert isinstance(caught.value, UserError) and "\n" not in str(caught.value)
    located = caught.value.located("step 7 (epoch 2)", "the output of x")
    assert str(located).startswith(f"step 7 (epoch 2): the loss is {value}, first the output of x:")
    check_finite(1e30, "loss")


def test_one_element_among_many_is_found() -> None:
    tensors = [torch.zeros(3, 4), torch.zeros(5)]
    assert all_finite(tensors) and all_finite([])
    tensors[1][4] = -math.inf
    assert not all_finite(tensors)


def test_the_first_module_is_named_in_the_order_they_run() -> None:
    network, x = model(), torch.randn(4, 3)
    assert first_non_finite(network, lambda: network(x)) == "the output of 1.1"  # log of 0
    assert first_non_finite(network, lambda: network[0](x)) is None
    with torch.no_grad():
        network[2].weight[0, 0] = math.nan
        network[0].bias[1] = math.inf
    assert first_non_finite(network, lambda: network(x)) == "the weights of 0"
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())


def test_weights_that_do_not_run_are_not_blamed() -> None:
    network = model()
    with torch.no_grad():
        network[2].weight[0, 0] = math.nan
    network[1] = nn.ReLU()
    assert first_non_finite(network, lambda: network[1](network[0](torch.ones(1, 3)))) is None


def test_a_gradient_that_cannot_be_clipped_updates_nothing() -> None:
    network = nn.Linear(2, 2)
    before = [p.detach().clone() for p in network.parameters()]
    updater = Updater(network.parameters(), OptimizerSettings(clip_norm=1.0))
    network(torch.tensor([[math.inf, 1.0]])).sum().backward()
    with pytest.raises(NonFiniteLossError, match=r"gradient norm is (nan|inf)"):
        updater.step()
    pairs = zip(before, network.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs) and not updater.optimizer.state


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (NonFiniteSettings(action="rollback"), "x.action.*did you mean 'roll_back'"),
        (NonFiniteSettings(factor=1.0), r"x\.factor is 1\.0: must lie between 0 and 1"),
        (NonFiniteSettings(max_times=0), r"x\.max_times is 0: must be at least 1"),
    ],
)
def test_settings_out_of_range_are_named(settings: NonFiniteSettings, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        settings.check("x")
