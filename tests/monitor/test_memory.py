"""Memory of the process and of the accelerator."""

import mmap

import torch

from nas.monitor.memory import memory_metrics, peak_device_mib, resident_mib


def test_resident_memory_is_that_of_a_process_with_torch() -> None:
    assert 50 < resident_mib() < 100_000


def test_resident_memory_grows_with_what_is_held() -> None:
    before = resident_mib()
    # Pages of its own: a tensor may get memory that the process has kept from before.
    held = mmap.mmap(-1, 64 * 2**20)
    held.write(b"1" * len(held))
    assert resident_mib() - before > 32
    held.close()


def test_cpu_has_no_device_memory() -> None:
    assert peak_device_mib(torch.device("cpu")) is None
    assert list(memory_metrics(torch.device("cpu"))) == ["memory/resident_mib"]
