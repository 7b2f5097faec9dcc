"""Operations and bytes of a step, counted as it runs, and the least time they can take."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from benchmarks.measure import Step


@dataclass(frozen=True)
class Machine:
    """What a device reached in two measurements.

    Attributes:
        flops_per_s: Of a large float32 matrix product.
        bytes_per_s: Read and written by a large copy.
    """

    flops_per_s: float
    bytes_per_s: float

    @classmethod
    def measured(cls, device: torch.device) -> "Machine":
        """The best of several tries of each."""
        a, b = torch.randn(2, 2048, 2048, device=device)
        source = torch.randn(2**25, device=device)  # 128 MiB, larger than caches
        target = torch.empty_like(source)
        flops = 2 * 2048**3 / _best_time(lambda: a @ b, device)
        moved = 2 * source.numel() * 4 / _best_time(lambda: target.copy_(source), device)
        return cls(flops, moved)


class CostCounter(TorchDispatchMode):
    """Adds up what the operations of a step do, as PyTorch runs them.

    Attributes:
        flops: Floating-point operations of convolutions and matrix products.
        num_bytes: Sizes of all inputs and outputs of all operations that touch memory.
        roofline_s: The sum over the operations of the longer of the two times that a machine needs
            for its FLOPs and for its bytes (Williams et al., 2009).
    """

    def __init__(self, machine: Machine) -> None:
        super().__init__()
        self.machine = machine
        self.flops = self.num_bytes = 0
        self.roofline_s = 0.0

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        out = function(*args, **(kwargs or {}))
        if _is_view(function):
            return out
        count = flop_registry.get(function._overloadpacket)
        flops = int(count(*args, **(kwargs or {}), out_val=out)) if count else 0
        tensors = [t for t in tree_leaves((args, kwargs, out)) if isinstance(t, Tensor)]
        # What is written in place is read, too; it stands among the inputs and the outputs.
        num_bytes = sum(t.numel() * t.element_size() for t in tensors)
        self.flops += flops
        self.num_bytes += num_bytes
        self.roofline_s += max(
            flops / self.machine.flops_per_s, num_bytes / self.machine.bytes_per_s
        )
        return out


def _is_view(function: Any) -> bool:
    returns = function._schema.returns
    is_alias = any(r.alias_info is not None and not r.alias_info.is_write for r in returns)
    return is_alias or function.name() in {"aten::empty.memory_format", "aten::detach"}


def cost_of(step: Step, machine: Machine) -> CostCounter:
    """Runs `step` once and counts."""
    counter = CostCounter(machine)
    with counter:
        step()
    return counter


def _best_time(work: Callable[[], object], device: torch.device, tries: int = 7) -> float:
    times = []
    for _ in range(tries):
        _wait(device)
        start = time.perf_counter()
        work()
        _wait(device)
        times.append(time.perf_counter() - start)
    return min(times)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
