"""Peak memory of inference: the most that the activations of a network take at once."""

import copy
import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def activation_memory(
    network: nn.Module, in_channels: int, image_size: int, batch_size: int = 1
) -> int:
    """The largest sum of what is alive at one time of a forward pass in evaluation, in bytes.

    What counts are the images and all that is made from them, for as long as something refers to
    it; memory that tensors share counts once. Parameters, buffers and what a kernel allocates
    inside itself do not. So a module keeps its input until it is done, as in PyTorch.

    Runs a copy on fake tensors, as on a CPU: no arithmetic is done and no memory taken.

    Args:
        network: Any network of images.
        in_channels: Channels of the images.
        image_size: Pixels a side.
        batch_size: Images at a time.
    """
    model = copy.deepcopy(network).to("meta")
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        model = model.to_empty(device="cpu").eval()
        images = torch.empty(batch_size, in_channels, image_size, image_size)
        live = _LiveTensors(ignored=(*model.parameters(), *model.buffers()))
        live.add(images)
        with live:
            model(images)
    return live.peak


class _LiveTensors(TorchDispatchMode):
    """Follows the memory of all tensors that operations make, from their making to their end.

    Attributes:
        peak: The most bytes that were alive at once.
    """

    def __init__(self, ignored: Iterable[Tensor]) -> None:
        super().__init__()
        self.peak = 0
        self._present = 0
        # By the address of the storage, which several tensors may share.
        self._known: dict[int, weakref.ref[torch.UntypedStorage] | None] = {
            tensor.untyped_storage()._cdata: None for tensor in ignored
        }

    def __torch_dispatch__(
        self,
        function: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        out = function(*args, **(kwargs or {}))
        for value in tree_leaves(out):
            if isinstance(value, Tensor):
                self.add(value)
        return out

    def add(self, tensor: Tensor) -> None:
        """Counts the memory of `tensor` until it is freed."""
        storage = tensor.untyped_storage()
        address, num_bytes = storage._cdata, storage.nbytes()
        if address in self._known:
            return

        def forget(_: object) -> None:
            del self._known[address]
            self._present -= num_bytes

        self._known[address] = weakref.ref(storage, forget)
        self._present += num_bytes
        self.peak = max(self.peak, self._present)
