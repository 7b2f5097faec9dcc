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

from benchmarks.measure import Step, wait_for
from nas.training.run import use_precision


@dataclass(frozen=True)
class Machine:
    """What a device reached in two measurements.

    Attributes:
        flops_per_s: Of a large matrix product, in float32, tf32 or bf16.
        bytes_per_s: Read and written by a large copy.
    """

    flops_per_s: float
    bytes_per_s: float

    @classmethod
    def measured(cls, device: torch.device, precision: str = "float32") -> "Machine":
        """The best of several tries of each; large enough that launching them counts for nothing.

        Leaves the process at `precision`, as a run with that setting is.
        """
        use_precision(precision)
        on_gpu = device.type == "cuda"
        size, count = (8192, 2**28) if on_gpu else (2048, 2**25)  # 1 GiB, 128 MiB: beyond caches
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        a, b = torch.randn(2, size, size, device=device).to(dtype)
        source = torch.randn(count, device=device)
        target = torch.empty_like(source)
        flops = 2 * size**3 / _best_time(lambda: a @ b, device)
        moved = 2 * count * 4 / _best_time(lambda: target.copy_(source), device)
        return cls(flops, moved)


class CostCounter(TorchDispatchMode):
    """Adds up what the operations of a step do, as PyTorch runs them.

    Attributes:
        flops: Floating-point operations of convolutions and matrix products.
        num_bytes: Sizes of all inputs and outputs of all operations that touch memory.
        num_operations: Operations that touch memory: about as many kernels are launched.
        roofline_s: The sum over the operations of the longer of the two times that a machine needs
            for its FLOPs and for its bytes (Williams et al., 2009).
    """

    def __init__(self, machine: Machine) -> None:
        super().__init__()
        self.machine = machine
        self.flops = self.num_bytes = self.num_operations = 0
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
        self.num_operations += 1
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
    work()  # sets libraries up
    for _ in range(tries):
        wait_for(device)
        start = time.perf_counter()
        work()
        wait_for(device)
        times.append(time.perf_counter() - start)
    return min(times)
