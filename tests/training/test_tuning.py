"""A few steps from the supernet's weights on, against the steps by hand."""

import copy
import math
from dataclasses import replace

import pytest
import torch
from test_trainings import CONVS, SKIPS, folder, search  # noqa: F401
from torch import nn

from nas.training.search import Search
from nas.training.tuning import LEARNING_RATE_FACTOR, TUNING_STEPS, tuning_loss


def test_it_is_the_loss_of_the_second_half_of_the_steps(search: Search) -> None:  # noqa: F811
    found = tuning_loss(search, CONVS)
    settings = search.learner.weights.settings
    model, sample = search.supernet.model, search.supernet.fixed(CONVS.choices)
    optimizer = torch.optim.SGD(
        model.parameters(),
        LEARNING_RATE_FACTOR * settings.learning_rate,
        momentum=settings.momentum,
        nesterov=settings.nesterov,
        weight_decay=settings.weight_decay,
    )
    losses = []
    for images, labels in list(search.data.train.epoch(0))[:TUNING_STEPS]:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(search.supernet.forward(images, sample), labels)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), settings.clip_norm)
        optimizer.step()
        losses.append(loss.item())
    expected = sum(losses[len(losses) // 2 :]) / (len(losses) - len(losses) // 2)
    assert found == pytest.approx(expected, rel=1e-4)


def test_nobody_can_tell_that_it_was_asked(search: Search) -> None:  # noqa: F811
    state = copy.deepcopy(search.supernet.model.state_dict())
    random = torch.get_rng_state()
    before = search.evaluate(CONVS)
    first = [tuning_loss(search, genotype) for genotype in (CONVS, SKIPS)]
    again = [tuning_loss(search, genotype) for genotype in (CONVS, SKIPS)]
    assert first == again and first[0] != first[1]
    after = search.supernet.model.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in state.items())
    assert search.evaluate(CONVS) == before
    assert torch.equal(random, torch.get_rng_state())
    assert search.supernet.logits.grad is None


@pytest.mark.parametrize("clip_norm", [0.0, 5.0])
def test_what_diverges_is_the_worst(
    search: Search,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    clip_norm: float,
) -> None:
    updater, model = search.learner.weights, search.supernet.model
    state = copy.deepcopy(model.state_dict())
    wild = replace(updater.settings, learning_rate=1e30, clip_norm=clip_norm)
    monkeypatch.setattr(updater, "settings", wild)
    assert tuning_loss(search, CONVS) == math.inf
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in state.items())
    assert all(parameter.grad is None for parameter in model.parameters())
