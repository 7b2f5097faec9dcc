"""What the benchmarks count and compare, against closed forms; times are not asserted."""

import json
import re
from pathlib import Path

import pytest
import torch
from torch import nn

from benchmarks.measure import MIB, Stopwatch, peak_mib, print_table, save, tensors_mib
from benchmarks.roofline import Machine, cost_of
from benchmarks.step import SPACES
from benchmarks.subjects import ChildSteps, Setting, SupernetSteps, plain_network, random_batch
from nas.spaces import DARTS, NASBench201

CPU = torch.device("cpu")
SMALL = {
    "nasbench201": NASBench201(in_channels=3, num_classes=10, channels=4, cells_per_stage=1),
    "darts": DARTS(in_channels=3, num_classes=10, channels=4, cells=3, nodes=2),
}


def test_the_fastest_repetition_counts_and_rounds_are_averaged() -> None:
    watch = Stopwatch(CPU)
    watch._times_ms = {"a": {0: [5.0, 2.0], 1: [6.0]}, "b": {0: [1.0, 9.0], 1: [3.0], 2: [7.0]}}
    assert watch.mean_ms("a") == 4.0
    assert watch.ratio("a", "b") == (2 + 6) / (1 + 3), "only rounds that both have"
    watch.time("c", 0, lambda: None)
    assert watch.names == ["a", "b", "c"] and watch.mean_ms("c") >= 0


def test_peak_memory_of_a_step() -> None:
    def step() -> None:
        first = torch.empty(MIB)  # 4 MiB
        second = torch.empty(2 * MIB)  # 8 MiB
        del first, second
        torch.empty(MIB)

    assert peak_mib(step, CPU) == pytest.approx(12, abs=0.1)
    assert tensors_mib([torch.empty(MIB), torch.empty(MIB, dtype=torch.int8)]) == 5


def test_operations_and_bytes_of_a_convolution() -> None:
    x, conv = torch.randn(2, 3, 8, 8), nn.Conv2d(3, 5, 3, padding=1, bias=False)
    flops, num_bytes = 2 * 2 * 5 * 8 * 8 * 3 * 9, 4 * (2 * 3 * 64 + 5 * 3 * 9 + 2 * 5 * 64)
    with torch.no_grad():
        for machine in (Machine(1.0, 1e30), Machine(1e30, 1.0)):
            cost = cost_of(lambda: conv(x), machine)
            assert (cost.flops, cost.num_bytes) == (flops, num_bytes)
            bound = flops if machine.flops_per_s == 1 else num_bytes
            assert cost.roofline_s == pytest.approx(bound)


def test_views_cost_nothing() -> None:
    x = torch.randn(4, 6)
    assert cost_of(lambda: x.t()[1:].reshape(-1, 2, 2).detach(), Machine(1, 1)).num_bytes == 0


@pytest.mark.parametrize("name", SMALL)
def test_all_subjects_run_the_same_architecture(name: str) -> None:
    setting = Setting(SMALL[name], random_batch(4, CPU))
    subjects = [SupernetSteps(setting, "gdas", kernels) for kernels in ("plain", "fused")]
    for number in range(3):
        genotypes = [subject.genotype(number) for subject in subjects]
        assert genotypes[0].choices == genotypes[1].choices
        for subject in subjects:
            logits = subject.learner.supernet.logits.clone()
            for step in subject.steps(number).values():
                step()
            assert torch.equal(logits, subject.learner.supernet.logits), "the next draw is equal"
    assert len({str(subjects[0].genotype(number).choices) for number in range(5)}) > 1


def test_the_child_of_a_sample_computes_what_the_supernet_does() -> None:
    """Same weights, same architecture: same outputs."""
    setting = Setting(SMALL["darts"], random_batch(4, CPU))
    subject = SupernetSteps(setting, "gdas", "plain")
    genotype, supernet = subject.genotype(1), subject.learner.supernet
    child = plain_network(setting.space, genotype)
    weights = supernet.model.state_dict()

    def key_in_supernet(key: str) -> str:
        edge = re.fullmatch(r"cells\.(\d)\.edges\.(\d)_(\d)\.(.*)", key)
        if edge is None:
            return key
        cell, source, target, rest = edge.groups()
        kind = "reduce" if cell in "12" else "normal"
        index = setting.space.operations.index(genotype.choices[f"{kind}/{source}->{target}"])
        return f"cells.{cell}.edges.{source}_{target}.candidates.{index}.{rest}"

    own = child.state_dict()
    child.load_state_dict({key: weights.get(key_in_supernet(key), own[key]) for key in own})
    sample = supernet.fixed(genotype.choices)
    torch.testing.assert_close(child(setting.batch[0]), supernet.forward(setting.batch[0], sample))


def test_a_child_trains() -> None:
    setting = Setting(SMALL["nasbench201"], random_batch(4, CPU))
    genotype = SupernetSteps(setting, "gdas", "plain").genotype(0)
    child = ChildSteps(setting, genotype, channels_last=True)
    before = child.network.classifier.weight.detach().clone()
    child.step()
    assert not torch.equal(before, child.network.classifier.weight)


def test_results_say_where_they_come_from(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"step": "a", "ms": 1.234}, {"step": "b", "ms": 1234.5, "more": None}]
    print_table(rows)
    assert capsys.readouterr().out.splitlines()[2:] == [
        "| a    | 1.23  |      |",
        "| b    | 1,234 |      |",
    ]
    save(tmp_path / "new" / "r.json", CPU, {"rounds": 3}, rows)
    found = json.loads((tmp_path / "new" / "r.json").read_text())
    assert found["rows"] == rows and found["settings"] == {"rounds": 3}
    assert {"device", "threads", "torch", "commit", "date"} <= found.keys()


def test_the_sizes_are_those_of_the_papers() -> None:
    sizes = {name: (space.channels, len(space.operations)) for name, space in SPACES.items()}
    assert sizes == {"nasbench201": (16, 5), "darts_8_cells": (16, 8), "darts_6_cells": (16, 8)}
