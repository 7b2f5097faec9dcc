"""Memory of the process and of the accelerator."""

import torch

from nas.monitor.memory import memory_metrics, peak_device_mib, resident_mib


def test_resident_memory_is_that_of_a_process_with_torch() -> None:
    assert 50 < resident_mib() < 100_000


def test_resident_memory_grows_with_what_is_held() -> None:
    before = resident_mib()
    held = torch.ones(64 * 2**20 // 4)
    assert resident_mib() - before > 32
    assert held.sum() > 0


def test_cpu_has_no_device_memory() -> None:
    assert peak_device_mib(torch.device("cpu")) is None
    assert list(memory_metrics(torch.device("cpu"))) == ["memory/resident_mib"]
