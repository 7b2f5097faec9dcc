"""One run on several processes that `torchrun` has started: a rank each, a device each.

Every rank holds all weights and logits and works on its share of every batch. Before an update the
ranks average their gradients, so all make the same update. A rank alone is `Ranks()`, whose methods
hand back what they are given, so that no other module asks how many there are.

`torch.nn.parallel.DistributedDataParallel` is made for a network whose parameters all get a
gradient; for others it walks the graph of every step to find out which will not. In a one-path
supernet most do not. Here the ranks tell each other after the backward pass, by one number a
parameter, which there are, and those travel in one message.
"""

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

Item = TypeVar("Item")


class Ranks:
    """The processes of a run, seen from one of them.

    Every rank must call the same methods in the same order: each call waits for all.

    Attributes:
        rank: Number of this process, from 0.
        size: How many there are.
        local_rank: Number of this process among those on its machine; None alone.
    """

    def __init__(self, rank: int = 0, size: int = 1, local_rank: int | None = None) -> None:
        self.rank, self.size, self.local_rank = rank, size, local_rank

    @classmethod
    def join(cls) -> "Ranks":
        """Meets the processes that torchrun has started with this one, if it was torchrun."""
        if not dist.is_torchelastic_launched() or int(os.environ["WORLD_SIZE"]) == 1:
            return cls()
        # What is on the host (decisions, logits, flags) is exchanged on the host.
        has_gpus = torch.cuda.is_available() and dist.is_nccl_available()
        backend = "cpu:gloo,cuda:nccl" if has_gpus else "gloo"
        store, rank, size = next(dist.rendezvous("env://"))  # type: ignore[attr-defined]
        # torchrun keeps one store for all its starts: addresses of dead ranks are still in it.
        store = dist.PrefixStore(f"start {os.environ['TORCHELASTIC_RESTART_COUNT']}", store)  # type: ignore[attr-defined]
        dist.init_process_group(backend, store=store, rank=rank, world_size=size)
        return cls(dist.get_rank(), dist.get_world_size(), int(os.environ["LOCAL_RANK"]))

    @property
    def is_first(self) -> bool:
        """Whether this rank is the one that writes."""
        return self.rank == 0

    def leave(self) -> bool:
        """Ends the work together; from here on every rank is alone. Says whether it goes on."""
        is_first = self.is_first
        if self.size > 1:
            self.wait()
            dist.destroy_process_group()
            self.rank, self.size = 0, 1
        return is_first

    def average_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Puts the mean of the ranks' gradients into `.grad`.

        Where some ranks have no gradient of a parameter theirs counts as 0; where none has one it
        stays None, so that the optimiser leaves the parameter alone.
        """
        if self.size == 1:
            return
        candidates = [p for p in parameters if p.requires_grad]
        has_gradient = torch.tensor([p.grad is not None for p in candidates], dtype=torch.uint8)
        dist.all_reduce(has_gradient, dist.ReduceOp.MAX)
        gradients = []
        for parameter, used in zip(candidates, has_gradient.tolist(), strict=True):
            if used:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                gradients.append(parameter.grad)
        self.average(gradients)

    def average(self, tensors: Iterable[Tensor]) -> None:
        """Puts the mean over the ranks into `tensors`; one message for each device and type."""
        if self.size == 1:
            return
        alike: defaultdict[tuple[torch.device, torch.dtype], list[Tensor]] = defaultdict(list)
        for tensor in tensors:
            alike[tensor.device, tensor.dtype].append(tensor.detach())
        for members in alike.values():
            flat = torch.cat([tensor.reshape(-1) for tensor in members])
            dist.all_reduce(flat)
            flat /= self.size
            for tensor, part in zip(members, flat.split([t.numel() for t in members]), strict=True):
                tensor.copy_(part.view(tensor.shape))

    def average_buffers(self, modules: Iterable[nn.Module]) -> None:
        """Averages the running statistics, each rank's being those of its share of the images.

        They are moving means, linear in what goes in, so but for rounding it does not matter when.
        """
        buffers = [b for module in modules for b in module.buffers() if b.is_floating_point()]
        self.average(buffers)

    def copy_first(self, tensors: Iterable[Tensor]) -> None:
        """Puts the values of rank 0 into `tensors`."""
        if self.size == 1:
            return
        for tensor in tensors:
            dist.broadcast(tensor.detach(), src=0)

    def own(self, groups: Sequence[Item]) -> Sequence[Item]:
        """Of what there is for each group of images, the groups that this rank works on.

        A single group is shared by all. The batch is cut in the order of the ranks, so that several
        groups are cut the same way.
        """
        if len(groups) == 1:
            return groups
        count = len(groups) // self.size
        return groups[self.rank * count : (self.rank + 1) * count]

    def combined(self, tensors: list[Tensor], *, shared: bool) -> list[Tensor]:
        """What all ranks found, on the host: the same bits on every rank.

        Args:
            tensors: What this rank found, of one shape.
            shared: Each is of a sample that all ranks ran, so the mean is returned; else the
                samples were each rank's own, and all are returned, in the order of the ranks.
        """
        if self.size == 1:
            return tensors
        found = self._all(torch.stack(tensors))
        return list(torch.stack(found).mean(0) if shared else torch.cat(found))

    def mean(self, value: float) -> float:
        """The mean of a number."""
        return self.sums(value)[0] / self.size

    def sums(self, *values: float) -> list[float]:
        """The sums of numbers, in double precision."""
        if self.size == 1:
            return list(values)
        found = self._all(torch.tensor(values, dtype=torch.float64))
        return [float(total) for total in torch.stack(found).sum(0)]

    def largest(self, value: int) -> int:
        """The largest of whole numbers."""
        if self.size == 1:
            return value
        return int(torch.stack(self._all(torch.tensor(value))).max())

    def gathered(self, item: Item) -> list[Item]:
        """The item of each rank: anything that can be pickled."""
        if self.size == 1:
            return [item]
        items: list[Item] = [item] * self.size
        dist.all_gather_object(items, item)
        return items

    @contextmanager
    def one_before_the_others(self) -> Iterator[None]:
        """On each machine one rank goes first: what it has downloaded is there for the others."""
        if self.local_rank:
            self.wait()
        try:
            yield
        finally:
            if self.local_rank == 0:
                self.wait()

    def wait(self) -> None:
        """Returns when all ranks are here."""
        if self.size > 1:
            dist.all_reduce(torch.zeros(()))  # on the host: a barrier could wait for a GPU

    def _all(self, tensor: Tensor) -> list[Tensor]:
        found = [torch.empty_like(tensor) for _ in range(self.size)]
        dist.all_gather(found, tensor)
        return found


ALONE = Ranks()
