"""The command that looks at memory in long runs."""

from pathlib import Path

import pytest

from benchmarks import memory
from nas.sampling.samplers import SAMPLERS
from nas.training.retrain import Retrain
from nas.training.search import Search


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
