"""From a space to a latency table: by a clock that is known, and by the real one."""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import nn

from nas.choice import Choice
from nas.cost.latency import Conditions
from nas.cost.tracing import trace
from nas.errors import UserError
from nas.genotype import Genotype
from nas.spaces import NASBench201
from nas.spaces.model import ModelSpace
from nas.training.profiling import Profiler, errors_of, time_ms

CPU = torch.device("cpu")
SPACE = NASBench201(in_channels=3, num_classes=4, channels=2, cells_per_stage=1)
CONDITIONS = Conditions(
    space="nasbench201",
    device="a clock",
    torch=torch.__version__,
    precision="float32",
    threads=1,
    channels_last=True,
    batch_size=2,
    in_channels=3,
    image_size=8,
)


def profiler(**changes: object) -> Profiler:
    settings = {"space": SPACE, "conditions": CONDITIONS, "device": CPU, "repetitions": 2}
    return Profiler(**(settings | changes))  # type: ignore[arg-type]


def cost(target: object) -> float:
    """What an operation takes by the clock of these tests, in ms."""
    if isinstance(target, nn.Module):
        return 0.5 + 0.01 * sum(p.numel() for p in target.parameters())
    return 0.1


def clock(call: Callable[[], object], device: torch.device, num_calls: int) -> float:
    """Operations take their `cost`, a network 1.5 times their sum and 0.2 ms for each."""
    assert isinstance(call, partial)
    if not isinstance(call.func, nn.Module) or not list(call.func.children()):
        return cost(call.func)
    operations = trace(call.func, *call.args)
    return 1.5 * sum(cost(o.target) for o in operations) + 0.2 * len(operations)


@pytest.fixture
def _less_patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer random networks are looked through for further operations."""
    monkeypatch.setattr("nas.cost.coverage.PATIENCE", 5)


@pytest.mark.usefixtures("_less_patient")
def test_a_clock_that_the_model_fits_is_predicted_exactly() -> None:
    table = profiler(timer=clock).table(num_calibration=6, num_checked=8)
    assert table.calibration.slope == pytest.approx(1.5)
    assert table.calibration.per_operation_ms == pytest.approx(0.2)
    assert table.errors is not None and table.errors.num_networks == 8
    assert table.errors.max_percent == pytest.approx(0, abs=1e-6)
    assert table.errors.spearman == pytest.approx(1)


@pytest.mark.usefixtures("_less_patient")
def test_another_network_is_predicted_by_hand() -> None:
    table = profiler(timer=clock).table(num_calibration=6, num_checked=4)
    names = [f"cell/{s}->{t}" for t in range(1, 4) for s in range(t)]
    genotype = Genotype("nasbench201", (), dict.fromkeys(names, "nor_conv_1x1"))
    network = SPACE.build_network(genotype)
    operations = trace(network.eval(), torch.rand(2, 3, 8, 8))
    by_hand = 1.5 * sum(cost(o.target) for o in operations) + 0.2 * len(operations)
    assert table.predict(network) == pytest.approx(by_hand)


def test_the_table_has_the_same_entries_whatever_the_seed() -> None:
    tables = [profiler(timer=clock, seed=seed).table(2, 1) for seed in (0, 1)]
    assert tables[0].operations_ms.keys() == tables[1].operations_ms.keys()


@pytest.mark.usefixtures("_less_patient")
def test_all_take_turns_and_what_is_slow_by_chance_is_passed_over() -> None:
    order: list[int] = []

    def slow_at_first(call: Callable[[], object], device: torch.device, num_calls: int) -> float:
        order.append(id(getattr(call, "func", None)))
        return 1000.0 if len(order) <= num_timed else 1.0

    num_timed = len(profiler(timer=clock).table(2, 2).operations_ms) + 4
    table = profiler(timer=slow_at_first, repetitions=12).table(2, 2)
    assert len(order) == 12 * num_timed
    assert set(table.operations_ms.values()) == {1.0}
    modules = Counter(order)
    assert all(order.count(target) % 12 == 0 for target in modules)


class Model(nn.Module):
    """A model with one choice, or with none that matters."""

    def __init__(self, num_options: int) -> None:
        super().__init__()
        layers = {str(i): nn.Conv2d(3, 4, 1 + 2 * i, padding=i) for i in range(num_options)}
        self.choice = Choice(layers, "layer")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.choice(x).mean((2, 3))
        return out


@dataclass(frozen=True)
class Few(ModelSpace):
    num_options: int

    name: ClassVar[str] = "few"

    def build_supernet(self) -> nn.Module:
        return Model(self.num_options)


def test_a_small_space_has_fewer_networks() -> None:
    table = profiler(space=Few(3), timer=clock).table(12, 50)
    assert table.errors is not None and table.errors.num_networks == 2
    assert len(table.operations_ms) == 4


def test_a_space_of_one_network_is_refused() -> None:
    with pytest.raises(UserError, match=r"^space=few has one network"):
        profiler(space=Few(1), timer=clock).table(12, 50)


def test_images_that_a_network_cannot_take_are_one_line() -> None:
    class Wide(Few):
        def build_supernet(self) -> nn.Module:
            return nn.Sequential(super().build_supernet(), nn.Linear(7, 2))

    with pytest.raises(UserError, match="cannot run on images of 3 channels and 8x8") as caught:
        profiler(space=Wide(3), timer=clock).table(2, 1)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.usefixtures("_less_patient")
def test_the_real_clock(precision: str, channels_last: bool) -> None:
    conditions = replace(CONDITIONS, precision=precision, channels_last=channels_last)
    table = profiler(conditions=conditions).table(3, 2)
    assert all(0 < ms < 1000 for ms in table.operations_ms.values())
    assert table.errors is not None and 0 <= table.errors.median_percent < float("inf")


def test_milliseconds() -> None:
    assert 9 < time_ms(lambda: time.sleep(0.01), CPU) < 500
    calls: list[int] = []
    time_ms(lambda: calls.append(1), CPU, num_calls=7)
    assert len(calls) == 7


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_milliseconds_on_a_gpu() -> None:
    device = torch.device("cuda")
    a = torch.rand(4096, 4096, device=device)
    small, large = (time_ms(lambda x=x: x @ x, device, 5) for x in (a[:512, :512], a))
    assert 0 < small < large


def test_errors_by_hand() -> None:
    errors = errors_of([1.0, 2.2, 2.7], [1.0, 2.0, 3.0])
    assert errors.median_percent == pytest.approx(10)
    assert errors.mean_percent == pytest.approx(20 / 3)
    assert errors.max_percent == pytest.approx(10)
    assert errors.spearman == pytest.approx(1)
    assert errors_of([2.0], [1.0]).spearman is None
    assert errors_of([2.0, 2.0], [1.0, 3.0]).spearman is None
    falling = errors_of([3.0, 2.0, 1.0], [1.0, 2.0, 3.0]).spearman
    assert falling is not None and np.isclose(falling, -1)
