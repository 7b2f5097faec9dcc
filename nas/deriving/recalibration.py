"""Running statistics of batch norm for one architecture.

With running statistics in a supernet every architecture that was sampled has moved them, so they
are those of a mixture and fit none. What is scored needs its own, estimated anew by forward passes
alone, as for stochastic weight averaging (Izmailov et al., 2018, arXiv:1803.05407, section 3.2) and
single-path one-shot search (arXiv:1904.00420, section 3.4).
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

Batch = TypeVar("Batch")


@contextmanager
def buffers_restored(model: nn.Module) -> Iterator[None]:
    """Puts the buffers (running statistics) back: only real steps may move them."""
    saved = [buffer.clone() for buffer in model.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in zip(model.buffers(), saved, strict=True):
                buffer.copy_(value)


@contextmanager
def generators_restored(device: torch.device) -> Iterator[None]:
    """Puts PyTorch's global generators back: whoever only looks moves no dropout of real steps."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        yield


def recalibrate(model: nn.Module, run: Callable[[Batch], object], batches: Iterable[Batch]) -> None:
    """Replaces the running statistics by their mean over `batches`; leaves `model` in training.

    Args:
        model: Its batch norms are reset; one that `run` does not reach is left at mean 0 and
            variance 1.
        run: A forward pass of `model` on one batch.
        batches: What the statistics are taken from.
    """
    norms = [
        module
        for module in model.modules()
        if isinstance(module, _BatchNorm) and module.running_mean is not None
    ]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
    model.train()
    try:
        with torch.no_grad():
            for number, batch in enumerate(batches, 1):
                for norm in norms:
                    # The cumulative mean, which `momentum=None` stands for. Said by number, since
                    # a fused norm knows no other way and a step counter would be on the device.
                    norm.momentum = 1 / number
                run(batch)
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
