"""The command that counts what kills cost: it sees every kind of loss."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from benchmarks import faults, memory
from nas.monitor.run_log import RunLog
from nas.samplers import SAMPLERS
from nas.training.checkpoint import last_checkpoint, save_checkpoint
from nas.training.retrain import Retrain
from nas.training.search import Search


def finished_run(folder: Path, weight: float = 1.0, loss: float = 0.5, text: str = "x") -> Path:
    with RunLog(folder) as log:
        for step in (1, 2):
            log.scalars(step, {"loss/train": loss, "speed/step_ms": id(folder) % 97}, epoch=step)
    state = {"weights": [torch.tensor(weight)], "seconds": float(id(folder) % 89)}
    save_checkpoint(
        last_checkpoint(folder), "search", {**state, "settings": {"run_dir": folder.name}}
    )
    (folder / "genotype.json").write_text(text)
    return folder


def test_times_and_folders_are_no_loss(tmp_path: Path) -> None:
    whole, other = finished_run(tmp_path / "a"), finished_run(tmp_path / "b")
    assert faults.compare(whole, other, "genotype.json") == []


def another_line(run: Path) -> None:
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": 2, "loss/train": 0.5}) + "\n")


def another_event(run: Path) -> None:
    with RunLog(run, resume_step=2) as log:
        log._writer.add_scalar("loss/train", 0.5, 3)


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda run: (run / "genotype.json").write_text("y"), ["genotype.json differs"]),
        (another_line, ["metrics.jsonl differs"]),
        (another_event, ["the scalars in TensorBoard differ"]),
        (lambda run: (run / ".a.1.tmp.json").touch(), [".a.1.tmp.json was left over"]),
    ],
)
def test_every_loss_is_named(
    tmp_path: Path, harm: Callable[[Path], object], said: list[str]
) -> None:
    whole, other = finished_run(tmp_path / "a"), finished_run(tmp_path / "b")
    harm(other)
    assert faults.compare(whole, other, "genotype.json") == said


def test_a_bit_of_the_weights_is_a_loss(tmp_path: Path) -> None:
    whole = finished_run(tmp_path / "a")
    other = finished_run(tmp_path / "b", weight=1.0 + 2**-23)
    assert faults.compare(whole, other, "genotype.json") == ["the final states differ"]
    nan = {"a": [float("nan"), torch.tensor([1.0])], "b": "x"}
    assert faults.same(nan, {"a": [float("nan"), torch.tensor([1.0])], "b": "x"})
    assert not faults.same(nan, {"a": [0.0, torch.tensor([1.0])], "b": "x"})
    assert not faults.same(torch.tensor(1.0), torch.tensor(1.0, dtype=torch.float64))


@pytest.mark.parametrize("subject", [*SAMPLERS, memory.RETRAIN])
def test_what_memory_is_measured_of_can_be_built(tmp_path: Path, subject: str) -> None:
    run = memory.build(subject, 2000, tmp_path)
    assert isinstance(run, Retrain if subject == memory.RETRAIN else Search)
    assert run.epochs * run._loader.num_batches == 2000


def test_memory_is_looked_at_ten_times() -> None:
    found = memory.looks("gdas", 100)
    assert [look["step"] for look in found] == list(range(0, 100, 10))
    tensors = [look["tensors"] for look in found]
    assert max(tensors[-3:]) <= max(tensors[memory.SETTLED : 6]), tensors
