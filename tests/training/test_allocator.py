"""Freed memory stays with the process: the next step finds its pages there."""

import ctypes
import platform

import pytest
from template_process import run_python

from nas.training.allocator import keep_freed_memory

COUNT_FAULTS = """
import resource, sys
import torch
from nas.training.allocator import keep_freed_memory

if sys.argv[1] == "keep":
    assert keep_freed_memory()

def step():
    maps = [torch.ones(2**20) for _ in range(8)]  # 4 MiB each, all freed together

step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(mode: str) -> int:
    return int(run_python("-c", COUNT_FAULTS, mode))


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's allocator")
def test_steps_find_their_memory() -> None:
    by_default, kept = faults("leave"), faults("keep")
    pages_of_a_step = 8 * 4 * 2**20 // 4096
    # Not 0: a system that is short of memory may take pages back meanwhile.
    assert pages_of_a_step < by_default and kept < by_default / 3


def test_other_c_libraries_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    assert not keep_freed_memory()
