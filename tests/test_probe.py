"""Every option of a model is tried before a search."""

import copy

import pytest
import torch
from torch import nn
from toy_models import Shared, SmallNet, WrongShape, WrongWidth

import nas
from nas.choice import decisions
from nas.errors import UserError
from nas.probe import probe

IMAGES = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("model", [SmallNet(5), Shared(5)], ids=["small", "shared"])
@pytest.mark.parametrize("training", [True, False])
def test_a_sound_model_passes_and_is_left_as_it_was(model: nn.Module, training: bool) -> None:
    model.train(training)
    before = copy.deepcopy(model.state_dict())
    probe(model, IMAGES, 5)
    assert model.training == training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(m.index == 0 for modules in decisions(model).values() for m in modules)
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_an_option_that_changes_the_shape_is_named_with_both_shapes() -> None:
    message = r"choice 'conv': the output of option 'smaller' is \[2, 4, 6, 6\], .* 'same' is "
    with pytest.raises(UserError, match=message + r"\[2, 4, 8, 8\]"):
        probe(WrongShape(5, 1), IMAGES, 5)


def test_a_size_that_does_not_fit_what_follows_is_named() -> None:
    with pytest.raises(
        UserError, match=r"option '8' of choice 'width' cannot run: .*mat1 and mat2"
    ):
        probe(WrongWidth(5, 1), IMAGES, 5)


def test_a_candidate_that_cannot_run_is_named() -> None:
    choice = nas.Choice({"a": nn.Identity(), "b": nn.Conv2d(3, 3, 1)}, "c")
    with pytest.raises(UserError, match="option 'b' of choice 'c' cannot run"):
        probe(nn.Sequential(choice, nn.Flatten(), nn.Linear(64, 5)), IMAGES, 5)


def test_the_output_must_have_a_number_for_each_class() -> None:
    with pytest.raises(UserError, match=r"the model: the output is \[2, 5\], it must be \[2, 9\]"):
        probe(SmallNet(5), IMAGES, 9)


def test_blocks_and_inputs_must_keep_the_shape() -> None:
    repeat = nas.Repeat([nn.Identity(), nn.MaxPool2d(2)], [1, 2], "depth")
    with pytest.raises(UserError, match="choice 'depth': the output of option '2'"):
        probe(nn.Sequential(repeat, nn.Flatten(), nn.LazyLinear(5)), IMAGES, 5)

    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.take = nas.InputChoice(2, "take")

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.take(x, x[..., :4])
            return out

    with pytest.raises(UserError, match="choice 'take': the output of option '1'"):
        probe(Two(), IMAGES, 5)
