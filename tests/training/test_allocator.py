"""Freed memory stays with the process: the next step finds its pages there."""

import ctypes
import platform

import pytest
from template_process import run_python

from nas.training.allocator import keep_freed_memory

GIVEN_BACK = """
import ctypes, sys
import torch
from nas.training.allocator import keep_freed_memory

class HeapStatistics(ctypes.Structure):  # glibc's struct mallinfo
    _fields_ = [(name, ctypes.c_int) for name in (
        "arena", "ordblks", "smblks", "hblks", "hblkhd",
        "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost",
    )]

mallinfo = ctypes.CDLL(None).mallinfo
mallinfo.restype = HeapStatistics

def held():
    statistics = mallinfo()
    return statistics.arena + statistics.hblkhd

if sys.argv[1] == "keep":
    assert keep_freed_memory()
maps = [torch.ones(24 * 2**18) for _ in range(8)]  # 24 MiB each, all freed together
within_step = held()
del maps
print(within_step - held())
"""


def given_back(mode: str) -> int:
    """Bytes that the process gives back to the system at the end of a step."""
    return int(run_python("-c", GIVEN_BACK, mode))


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's allocator")
def test_steps_find_their_memory() -> None:
    # By the allocator's own books: page faults also count what a busy system takes back.
    assert given_back("leave") > 24 * 2**20
    assert given_back("keep") == 0


def test_other_c_libraries_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    assert not keep_freed_memory()
