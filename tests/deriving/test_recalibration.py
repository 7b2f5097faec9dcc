"""Running statistics of one architecture: against PyTorch's cumulative mean, and put back."""

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from search_helpers import make_config, make_search
from supernet_helpers import SPACES, batch, build, generator
from torch import Tensor, nn

from nas.deriving.recalibration import buffers_restored, recalibrate
from nas.kernels.fused import accelerate
from nas.ops import Norm
from nas.sampling.samplers import SAMPLERS, SampleSource
from nas.spaces import SearchSpace
from nas.supernet import Supernet
from nas.training.search import Search
from search import derive

TRACKED = ("space.track_running_stats=true", "recalibration_batches=3", "epochs=2")


@pytest.fixture(autouse=True)
def _double() -> Iterator[None]:
    yield
    torch.set_default_dtype(torch.float32)


def tracked(space: SearchSpace) -> Supernet:
    """A supernet with running statistics that many architectures have moved."""
    supernet = build(replace(space, norm=Norm(affine=False, track_running_stats=True)))  # type: ignore[type-var]
    source = SampleSource(supernet, SAMPLERS.get("uniform"), generator(1))
    for seed in range(5):
        supernet.forward(batch(seed)[0], source())
    return supernet


def statistics(model: nn.Module) -> dict[str, Tensor]:
    return {name: buffer.clone() for name, buffer in model.named_buffers()}


@pytest.mark.parametrize("kernels", ["plain", "fused"])
@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES.keys())
def test_statistics_are_the_cumulative_mean_that_momentum_none_stands_for(
    space: SearchSpace, kernels: str
) -> None:
    torch.set_default_dtype(torch.float64)
    supernet, expected = tracked(space), tracked(space)
    accelerate(supernet.model, kernels, torch.device("cpu"))
    sample = SampleSource(supernet, SAMPLERS.get("uniform"), generator(2))()
    for module in expected.model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None
    for seed in (7, 8, 9):
        expected.forward(batch(seed)[0], sample)
    recalibrate(
        supernet.model,
        lambda images: supernet.forward(images, sample),
        (batch(seed)[0] for seed in (7, 8, 9)),
    )
    torch.testing.assert_close(statistics(supernet.model), statistics(expected.model))
    norms = [m for m in supernet.model.modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms and all(norm.momentum == 0.1 for norm in norms)
    assert supernet.model.training


def test_no_graph_is_made_and_no_weight_moves() -> None:
    supernet = tracked(SPACES["nasbench201"])
    sample = SampleSource(supernet, SAMPLERS.get("uniform"), generator(2))()
    before = [p.detach().clone() for p in supernet.model.parameters()]
    outputs: list[Tensor] = []
    recalibrate(supernet.model, lambda i: outputs.append(supernet.forward(i, sample)), [batch()[0]])
    assert not outputs[0].requires_grad
    for p, value in zip(supernet.model.parameters(), before, strict=True):
        assert torch.equal(p, value) and p.grad is None


def test_buffers_come_back_after_an_error_too() -> None:
    supernet = tracked(SPACES["darts"])
    before = statistics(supernet.model)
    with pytest.raises(KeyboardInterrupt), buffers_restored(supernet.model):
        for buffer in supernet.model.buffers():
            buffer.zero_()
        raise KeyboardInterrupt
    after = statistics(supernet.model)
    assert all(torch.equal(after[name], value) for name, value in before.items())


# In a search


def score_by_hand(search: Search, num_batches: int) -> float:
    """Accuracy of the plain mean of batch statistics, by hooks that know no momentum."""
    sample = search.supernet.fixed(search.space.derive(search.supernet.probabilities()).choices)
    norms = [m for m in search.supernet.model.modules() if isinstance(m, nn.BatchNorm2d)]
    found: dict[nn.Module, list[Tensor]] = {norm: [] for norm in norms}

    def note(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        found[norm].append(inputs[0].detach())

    hooks = [norm.register_forward_pre_hook(note) for norm in norms]
    for _, train in zip(range(num_batches), search.data.train.epoch(0)):  # noqa: B905
        search.supernet.forward(train[0], sample)
    for hook in hooks:
        hook.remove()
    for norm, inputs in found.items():
        if inputs:
            flat = [x.transpose(0, 1).flatten(1) for x in inputs]
            norm.running_mean = torch.stack([x.mean(1) for x in flat]).mean(0)
            norm.running_var = torch.stack([x.var(1) for x in flat]).mean(0)
    search.supernet.model.eval()
    correct = total = 0
    with torch.no_grad():
        for images, labels in search.data.validation_eval.epoch(0):
            outputs = search.supernet.forward(images, sample)
            correct, total = correct + int((outputs.argmax(1) == labels).sum()), total + len(labels)
    return 100 * correct / total


@pytest.mark.parametrize("num_batches", [1, 3])
def test_a_score_is_that_of_the_architectures_own_statistics(
    tmp_path: Path, num_batches: int
) -> None:
    overrides = (*TRACKED, f"recalibration_batches={num_batches}", "kernels=plain")
    search = make_search(tmp_path, *overrides)
    search.run()
    genotype = search.space.derive(search.supernet.probabilities())
    found = search.evaluate(genotype)
    with torch.no_grad():  # what the training left does not matter
        for buffer in search.supernet.model.buffers():
            buffer.fill_(7)
    assert search.evaluate(genotype) == found
    assert found == pytest.approx(score_by_hand(search, num_batches), abs=0.5)


@pytest.mark.parametrize(("kernels", "dropout"), [("plain", 0.0), ("fused", 0.0), ("plain", 0.5)])
def test_training_goes_on_to_the_bit_as_if_nothing_had_been_scored(
    tmp_path: Path, kernels: str, dropout: float
) -> None:
    states = []
    for name, every in (("often", 1), ("never", 9)):
        overrides = (*TRACKED, f"kernels={kernels}", f"evaluate_every_epochs={every}")
        search = make_search(tmp_path / name, *overrides)
        search.supernet.model.stem.append(nn.Dropout(dropout))  # type: ignore[operator, union-attr]
        search.run()
        states.append(search._state())
    first, second = states
    assert first["model"].keys() == second["model"].keys()
    assert all(torch.equal(value, second["model"][k]) for k, value in first["model"].items())
    assert torch.equal(first["logits"], second["logits"])
    assert all(torch.equal(first["rng"][k], second["rng"][k]) for k in first["rng"])


@pytest.mark.parametrize(
    "overrides",
    [("recalibration_batches=3",), ("space.track_running_stats=true", "recalibration_batches=0")],
)
def test_nothing_is_recalibrated_where_nothing_is_to_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overrides: tuple[str, ...]
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("recalibrated")

    monkeypatch.setattr("nas.training.search.recalibrate", refuse)
    search = make_search(tmp_path, *overrides)
    search.evaluate(search.space.derive(search.supernet.probabilities()))


def test_a_finished_search_is_evaluated_anew_with_another_recalibration(tmp_path: Path) -> None:
    search = make_search(tmp_path, *TRACKED)
    search.run()
    for num_batches in (3, 1):
        overrides = (*TRACKED, f"recalibration_batches={num_batches}")
        again = make_search(tmp_path, *overrides)
        again.load()
        assert math.isnan(again.validation_accuracy) == (num_batches != 3)
        genotype, accuracy = derive(make_config(*overrides), again)
        assert accuracy == again.evaluate(genotype)
        assert (accuracy == search.validation_accuracy) == (num_batches == 3)
