"""How much memory the process and the accelerator use, in MiB."""

import os
import resource
import sys
from pathlib import Path

import torch

_MIB = 2**20
_STATM = Path("/proc/self/statm")


def resident_mib() -> float:
    """Returns the resident memory of this process in MiB.

    Where there is no `/proc` (macOS) it is the peak, not the present amount.
    """
    if _STATM.exists():
        num_pages = int(_STATM.read_text().split()[1])
        return num_pages * os.sysconf("SC_PAGE_SIZE") / _MIB
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # macOS counts bytes, all others KiB.
    return peak / (_MIB if sys.platform == "darwin" else 1024)


def peak_device_mib(device: torch.device) -> float | None:
    """Returns the peak of the memory that PyTorch allocated on `device`, in MiB.

    The peak counts from the start of the process or the last
    `torch.cuda.reset_peak_memory_stats`. None where the device keeps no such count (CPU, MPS).
    """
    if device.type != "cuda":
        return None
    return torch.cuda.max_memory_allocated(device) / _MIB


def memory_metrics(device: torch.device) -> dict[str, float]:
    """Returns `memory/resident_mib` and, on CUDA, `memory/device_mib`."""
    metrics = {"memory/resident_mib": resident_mib()}
    peak = peak_device_mib(device)
    if peak is not None:
        metrics["memory/device_mib"] = peak
    return metrics
