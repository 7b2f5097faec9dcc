"""Edges that cannot matter are not computed, whatever is sampled."""

from collections import Counter
from dataclasses import replace

import pytest
import torch
from supernet_helpers import (
    SPACES,
    batch,
    build,
    decision_gradient,
    generator,
    logits_gradient,
    loss_of,
)
from torch import Tensor, nn

from nas.choice import Choice
from nas.optimisation.bilevel import Alternating, Learner, LogitsGradient, first_order_gradient
from nas.optimisation.optimizers import OptimizerSettings, Updater
from nas.optimisation.unrolled import SecondOrder
from nas.sampling.samplers import SAMPLERS
from nas.spaces import SearchSpace, darts, nasbench201
from nas.supernet import Sample, Supernet

# What is not computed


def count_calls(model: nn.Module) -> Counter[tuple[str, str]]:
    """Counts the forward passes of the candidates, by choice name and option, from now on."""
    calls: Counter[tuple[str, str]] = Counter()
    for choice in model.modules():
        if isinstance(choice, Choice):
            for option, candidate in zip(choice.options, choice.candidates, strict=True):
                key = choice.name, option
                candidate.register_forward_hook(lambda *_, key=key: calls.update([key]))
    return calls


def record_cells(model: nn.Module, kind: type[nn.Module]) -> list[Tensor]:
    """Collects the outputs of all cells of `kind` from now on."""
    maps: list[Tensor] = []
    for module in model.modules():
        if isinstance(module, kind):
            module.register_forward_hook(lambda _module, _inputs, out: maps.append(out))
    return maps


def check_a_dead_step(supernet: Supernet, sample: Sample) -> None:
    """A weight step and a logits step where no choice reaches the loss."""
    images, labels = batch()
    loss = loss_of(supernet.forward(images, sample), labels)
    loss.backward()
    assert loss.isfinite()
    gradients = [p.grad for p in supernet.model.parameters() if p.grad is not None]
    assert gradients and all(g.isfinite().all() for g in gradients)
    assert decision_gradient(supernet, sample).eq(0).all()


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES.keys())
def test_a_sample_of_none_everywhere_gives_zero_maps_and_no_gradient(space: SearchSpace) -> None:
    supernet = build(space)
    kind = nasbench201.Cell if space.name == "nasbench201" else darts.Cell
    maps, calls = record_cells(supernet.model, kind), count_calls(supernet.model)
    sample = supernet.fixed(dict.fromkeys(supernet.names, "none"))
    check_a_dead_step(supernet, sample)
    assert maps and all(m.eq(0).all() for m in maps)
    assert not calls


def test_the_zero_maps_have_the_shape_of_the_real_ones() -> None:
    for space in SPACES.values():
        supernet, shapes = build(space), []
        kind = nasbench201.Cell if space.name == "nasbench201" else darts.Cell
        for option in ("none", "skip_connect"):
            maps = record_cells(supernet.model, kind)
            for size in (8, 11):
                sample = supernet.fixed(dict.fromkeys(supernet.names, option))
                supernet.forward(torch.randn(2, 3, size, size), sample)
            shapes.append([m.shape for m in maps])
        assert shapes[0] == shapes[1][: len(shapes[0])]


def test_a_straight_through_sample_of_none_has_zero_gradient_at_the_logits() -> None:
    supernet = build(SPACES["nasbench201"])
    with torch.no_grad():
        supernet.logits[:, 0] = 100.0
    sample = SAMPLERS.get("gdas").draw(supernet.masked_logits(), 1.0, generator())
    assert set(sample.indices or ()) == {0}
    assert logits_gradient(supernet, sample).eq(0).all()


def test_cutting_only_the_paths_into_the_output_runs_nothing() -> None:
    supernet = build(SPACES["nasbench201"])
    maps, calls = record_cells(supernet.model, nasbench201.Cell), count_calls(supernet.model)
    into_output = {f"cell/{source}->3" for source in range(3)}
    options = {n: "none" if n in into_output else "nor_conv_3x3" for n in supernet.names}
    check_a_dead_step(supernet, supernet.fixed(options))
    assert maps and all(m.eq(0).all() for m in maps)
    assert not calls


def test_an_edge_from_a_node_without_input_runs_nothing() -> None:
    supernet = build(SPACES["nasbench201"])
    calls = count_calls(supernet.model)
    options = dict.fromkeys(supernet.names, "nor_conv_1x1") | {"cell/0->1": "none"}
    gradient = decision_gradient(supernet, supernet.fixed(options))
    ran = {name for name, _ in calls}
    assert ran == {"cell/0->2", "cell/0->3", "cell/2->3"}
    with_gradient = {n for n, row in supernet.split(gradient).items() if row.any()}
    assert with_gradient <= ran


def test_a_darts_node_without_inputs_feeds_nothing() -> None:
    supernet = build(SPACES["darts"])
    calls = count_calls(supernet.model)
    dead = {f"{cell}/{source}->2" for cell in ("normal", "reduce") for source in range(2)}
    options = {n: "none" if n in dead else "sep_conv_3x3" for n in supernet.names}
    supernet.forward(batch()[0], supernet.fixed(options))
    ran = {name for name, _ in calls}
    assert ran == {n for n in supernet.names if n not in dead and "/2->" not in n}


def test_a_node_that_nothing_reads_is_not_computed() -> None:
    supernet = build(SPACES["nasbench201"])
    calls = count_calls(supernet.model)
    cut = {"cell/1->2": "none", "cell/1->3": "none"}
    options = dict.fromkeys(supernet.names, "nor_conv_1x1") | cut
    supernet.forward(batch()[0], supernet.fixed(options))
    assert {name for name, _ in calls} == {"cell/0->2", "cell/0->3", "cell/2->3"}


@pytest.mark.parametrize("sampler", list(SAMPLERS))
@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES.keys())
def test_none_is_never_computed(space: SearchSpace, sampler: str) -> None:
    supernet = build(space)
    calls = count_calls(supernet.model)
    for seed in range(2):
        sample = SAMPLERS.get(sampler).draw(supernet.masked_logits(), 1.0, generator(seed))
        supernet.forward(batch()[0], sample)
    assert calls and all(option != "none" for _, option in calls)


class Bare(nn.Module):
    """A model whose weights are all on one of two paths."""

    def __init__(self) -> None:
        super().__init__()
        self.path = Choice({"linear": nn.Linear(4, 4), "same": nn.Identity()}, "path")

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.path(x)
        return out


@pytest.mark.parametrize("gradient", [first_order_gradient, SecondOrder()])
def test_a_path_without_weights_trains_the_logits_alone(gradient: LogitsGradient) -> None:
    supernet = Supernet(Bare(), generator())
    sample = supernet.fixed({"path": "same"})
    learner = Learner(
        supernet,
        lambda: replace(
            sample, weights=sample.weights + supernet.logits - supernet.logits.detach()
        ),
        Updater(supernet.model.parameters(), OptimizerSettings(weight_decay=0.1, clip_norm=1.0)),
        Updater([supernet.logits], OptimizerSettings()),
    )
    before = [p.detach().clone() for p in (*supernet.model.parameters(), supernet.logits)]
    batch = torch.randn(6, 4), torch.arange(6) % 4
    Alternating(learner, gradient).step(0, batch, iter([batch]))
    *weights, logits = (*supernet.model.parameters(), supernet.logits)
    assert all(map(torch.equal, weights, before[:-1]))
    assert not torch.equal(logits, before[-1])
