"""Short trainings side by side, on a tiny search over digits."""

import math
import threading
import time
import weakref
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TINY_SEARCH
from template_process import run_python
from torch import nn

from benchmarks.ranking import load_search
from nas.genotype import Genotype
from nas.genotype.text import genotype_text, parse_nasbench201
from nas.kernels.graphs import GraphedStep
from nas.network import build_network
from nas.optimisation.bilevel import Batch
from nas.optimisation.optimizers import OptimizerSettings
from nas.training.search import Search
from nas.training.trainings import RECORD, Trainings, TrainingSettings, _Entrant

TRAINING = TrainingSettings(
    sizes={"channels": 4, "cells_per_stage": 1},
    weights=OptimizerSettings(learning_rate=0.05),
    seed=5,
    channels_last=True,
)
CONVS = parse_nasbench201(
    "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|none~0|nor_conv_3x3~1|nor_conv_3x3~2|"
)
SKIPS = parse_nasbench201("|skip_connect~0|+|none~0|skip_connect~1|+|none~0|none~1|skip_connect~2|")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished search."""
    run = tmp_path_factory.mktemp("finals") / "run"
    run_python("search.py", *TINY_SEARCH, "sampler=gdas", f"run_dir={run}")
    return run


@pytest.fixture
def search(folder: Path, tmp_path: Path) -> Search:
    """It, in a folder of its own from here on."""
    found = load_search(folder)
    found.folder = replace(found.folder, path=tmp_path)
    return found


def train(
    settings: TrainingSettings, search: Search, genotypes: Sequence[Genotype], steps: int
) -> list[float]:
    """Their losses, whatever is on record."""
    (search.folder.path / RECORD).unlink(missing_ok=True)
    return Trainings(settings, search).losses(genotypes, steps)


def test_the_loss_is_that_of_the_second_half_of_the_steps(search: Search) -> None:
    torch.manual_seed(TRAINING.seed)
    network = build_network(CONVS, TRAINING.sizes, in_channels=1, num_classes=10)
    network = network.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9)
    losses = []
    for images, labels in list(search.data.train.epoch(0))[:3]:
        loss = nn.functional.cross_entropy(network(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    state = torch.get_rng_state()
    (found,) = train(TRAINING, search, [CONVS], 3)
    assert found == pytest.approx((losses[1] + losses[2]) / 2, rel=1e-4)
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("rate", [0.0, 0.5])
def test_networks_that_draw_are_trained_in_order(
    search: Search, monkeypatch: pytest.MonkeyPatch, rate: float
) -> None:
    """Dropout draws from one generator, so that threads would make the losses differ each time."""
    workers: list[str] = []

    def build(*arguments: Any, **sizes: Any) -> nn.Module:
        network = nn.Sequential(nn.Dropout(rate), build_network(*arguments, **sizes))
        network.register_forward_pre_hook(
            lambda *_: workers.append(threading.current_thread().name)
        )
        return network

    monkeypatch.setattr("nas.training.trainings.build_network", build)
    found = []
    for _ in range(2):
        torch.manual_seed(0)
        found.append(train(TRAINING, search, [CONVS, SKIPS], 3))
    assert found[0] == found[1]
    assert ({"MainThread"} == set(workers)) is (rate > 0)


def test_a_network_that_was_trained_as_graphs_leaves_no_memory(search: Search) -> None:
    entrant = _Entrant(TRAINING, search, CONVS)
    entrant._graphed = GraphedStep(entrant._train, torch.device("cpu"))
    network = weakref.ref(entrant._network)
    entrant.step(next(iter(search.data.train.epoch(0))))
    entrant.rest()
    assert math.isfinite(entrant.loss(1))
    del entrant
    assert network() is None, "waits for the garbage collector, and its graph with it"


def test_a_training_may_take_more_than_an_epoch(search: Search) -> None:
    epoch = search.data.train.num_batches
    steps: list[int] = []
    (longer,) = Trainings(TRAINING, search, steps.append).losses([CONVS], 4 * epoch)
    assert len(steps) == 4 * epoch
    assert longer < train(TRAINING, search, [CONVS], epoch)[0]


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_networks_side_by_side_are_trained_as_alone(search: Search, threads: int) -> None:
    before = torch.get_num_threads()
    steps: list[int] = []
    torch.set_num_threads(threads)
    try:
        together = Trainings(TRAINING, search, steps.append).losses([CONVS, SKIPS, CONVS], 3)
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    alone = [*train(TRAINING, search, [CONVS], 3), *train(TRAINING, search, [SKIPS], 3)]
    assert together == pytest.approx([*alone, alone[0]], rel=1e-4)
    assert together[0] == together[2] and sum(steps) == 2 * 3


def test_no_network_waits_for_a_slow_one(search: Search, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three networks on two cores, one of them slow: the others share what time it leaves."""
    monkeypatch.setattr("nas.training.trainings.num_cores", lambda: 2)
    step, order = _Entrant.step, list[_Entrant]()

    def slow_step(entrant: _Entrant, batch: Batch) -> None:
        step(entrant, batch)
        order.append(entrant)
        if entrant is order[0]:
            time.sleep(0.05)

    monkeypatch.setattr(_Entrant, "step", slow_step)
    others = [SKIPS, replace(SKIPS, choices={**SKIPS.choices, "cell/0->3": "skip_connect"})]
    found = Trainings(TRAINING, search).losses([CONVS, *others], 8)
    monkeypatch.undo()
    assert found == train(TRAINING, search, [CONVS, *others], 8)
    spread = []
    for number in range(3, len(order)):
        counts = [order[:number].count(entrant) for entrant in set(order)]
        spread.append(max(counts) - min(counts))
    assert len(order) == 3 * 8 and max(spread) > 1, "fast ones go ahead"
    assert order[-1] is order[0], "only the slow one is left at the end"


def test_who_is_asked_for_again_goes_on_as_if_never_stopped(search: Search) -> None:
    steps: list[int] = []
    trainings = Trainings(TRAINING, search, steps.append)
    first = trainings.losses([CONVS], 3)
    assert sum(steps) == 3
    both = trainings.losses([CONVS, SKIPS], 7)
    assert first == train(TRAINING, search, [CONVS], 3)
    assert both == train(TRAINING, search, [CONVS, SKIPS], 7)
    assert sum(steps) == 2 * 7
    assert trainings.losses([SKIPS], 4) == train(TRAINING, search, [SKIPS], 4), "has more already"
    assert sum(steps) == 2 * 7


@pytest.mark.parametrize("clip_norm", [0.0, 5.0])
def test_a_network_that_diverges_is_the_worst(search: Search, clip_norm: float) -> None:
    wild = replace(TRAINING, weights=OptimizerSettings(learning_rate=1e30, clip_norm=clip_norm))
    assert train(wild, search, [CONVS], 8) == [math.inf]


# What is on record


def test_a_search_that_goes_on_does_not_train_again(search: Search) -> None:
    first = Trainings(TRAINING, search).losses([CONVS, SKIPS], 3)
    steps: list[int] = []
    trainings = Trainings(TRAINING, search, steps.append)
    assert trainings.losses([SKIPS, CONVS], 3) == first[::-1]
    assert steps == [6], "the steps of before, at once"
    # Nothing but losses is kept: for more steps they begin again, and end as if never stopped.
    longer = trainings.losses([CONVS], 5)
    assert steps == [6, 1, 1], "only the last two were not told of"
    assert longer == train(TRAINING, search, [CONVS], 5)


def test_networks_of_other_sizes_have_records_of_their_own(search: Search) -> None:
    wider = replace(TRAINING, sizes={**TRAINING.sizes, "channels": 8})
    narrow = Trainings(TRAINING, search).losses([CONVS], 2)
    wide = Trainings(wider, search).losses([CONVS], 2)
    assert narrow != wide
    steps: list[int] = []
    assert Trainings(TRAINING, search, steps.append).losses([CONVS], 2) == narrow
    assert Trainings(wider, search, steps.append).losses([CONVS], 2) == wide
    assert steps == [2, 2]
    lines = (search.folder.path / RECORD).read_text().splitlines()
    assert lines[0] == "architecture,network,steps,loss" and len(lines) == 3
    assert lines[1] == f"{genotype_text(CONVS)},cells_per_stage=1 channels=4,2,{narrow[0]!r}"


def test_one_that_diverges_stays_so_on_record(search: Search) -> None:
    wild = replace(TRAINING, weights=OptimizerSettings(learning_rate=1e30))
    for _ in range(2):
        assert Trainings(wild, search).losses([CONVS], 8) == [math.inf]


_HEAD = "architecture,network,steps,loss\n"


@pytest.mark.parametrize(
    "damage",
    ["", "\0\0", "é", "a,b\n", f"{_HEAD}1,2,3\n", f"{_HEAD}x,cells_per_stage=1 channels=4,two,2\n"],
)
def test_a_damaged_record_costs_no_more_than_the_trainings(
    search: Search, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    (found,) = train(TRAINING, search, [CONVS], 2)
    path = search.folder.path / RECORD
    whole = path.read_text()
    path.write_text(damage, encoding="latin-1")
    assert Trainings(TRAINING, search).losses([CONVS], 2) == [found]
    assert path.read_text() == whole
    assert any(RECORD in message for message in caplog.messages)
