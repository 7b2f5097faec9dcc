"""What a network runs: its operations, each by a key that says all that its time depends on.

An operation is a layer of `torch.nn`, or a call of a PyTorch function from anywhere else: sums,
concatenations and attention between the layers, and all that is in modules of the user's own,
whose printed form need not say what they do. A layer at another position or in another network has
the same key if its settings and its input are the same.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_any, tree_map_only


@dataclass(frozen=True)
class TensorSpec:
    """What is known of a tensor but its values.

    Attributes:
        shape: Its sizes.
        strides: Its memory layout.
        dtype: Its type.
    """

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: torch.dtype

    @classmethod
    def of(cls, tensor: Tensor) -> "TensorSpec":
        """That of `tensor`."""
        return cls(tuple(tensor.shape), tensor.stride(), tensor.dtype)

    def tensor(self, device: torch.device) -> Tensor:
        """A tensor like it: uniform in [0, 1), which all functions take; whole numbers are 0."""
        steps = zip(self.shape, self.strides, strict=True)
        size = 1 + sum((length - 1) * stride for length, stride in steps) if all(self.shape) else 0
        memory = torch.zeros(size, dtype=self.dtype, device=device)
        if self.dtype.is_floating_point:
            memory.uniform_()
        return memory.as_strided(self.shape, self.strides)


@dataclass(frozen=True)
class Operation:
    """A layer or function with what it was called with.

    Attributes:
        key: All that its time depends on, readable.
        target: The layer or function.
        arguments: Its arguments; a `TensorSpec` for each tensor.
        named: Likewise, by name.
    """

    key: str
    target: Callable[..., object]
    arguments: tuple[Any, ...]
    named: Mapping[str, Any]

    def detached(self) -> "Operation":
        """The same with a layer of its own, so that nothing else of the network is kept."""
        target = copy.deepcopy(self.target) if isinstance(self.target, nn.Module) else self.target
        return Operation(self.key, target, self.arguments, self.named)

    def prepared(self, device: torch.device) -> Callable[[], object]:
        """The call with new inputs; a layer must be on `device`."""
        arguments, named = tree_map_only(
            TensorSpec, lambda spec: spec.tensor(device), (self.arguments, dict(self.named))
        )
        return partial(self.target, *arguments, **named)


def trace(network: nn.Module, images: Tensor) -> list[Operation]:
    """Runs `network` once, without gradients, and returns its operations in their order.

    The keys are the same on every device, the meta device included.

    Args:
        network: In evaluation mode.
        images: `[B, C, H, W]`, on its device.
    """
    tracer = _Tracer()
    with ExitStack() as stack:
        for module in network.modules():
            if _is_layer(module):
                enter = module.register_forward_pre_hook(tracer.enter, with_kwargs=True)
                leave = module.register_forward_hook(tracer.leave)
                stack.enter_context(enter)
                stack.enter_context(leave)
        stack.enter_context(torch.no_grad())
        stack.enter_context(tracer)
        network(images)
    return tracer.operations


class _Tracer(TorchFunctionMode):
    """Notes layers by their hooks, and the functions that are called outside of them."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[Operation] = []
        self._in_layer = False

    def enter(self, layer: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        self._in_layer = True
        self._note(str(layer), layer, arguments, named)

    def leave(self, layer: nn.Module, arguments: tuple[Any, ...], out: object) -> None:
        self._in_layer = False

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        named = kwargs or {}
        # Before the call, which may change the shape of its input.
        specs = None if self._in_layer else _specs_of(args, named)
        out = function(*args, **named)
        # Questions such as `x.shape` cost nothing; an assignment to a part returns None.
        if specs is not None and (out is None or tree_any(_is_tensor, out)):
            self._note(_name(function), function, *specs)
        return out

    def _note(
        self,
        name: str,
        target: Callable[..., object],
        arguments: tuple[Any, ...],
        named: dict[str, Any],
    ) -> None:
        arguments, named = _specs_of(arguments, named)
        texts = [*map(_text, arguments), *(f"{k}={_text(v)}" for k, v in named.items())]
        self.operations.append(Operation(f"{name} on {', '.join(texts)}", target, arguments, named))


def _is_layer(module: nn.Module) -> bool:
    """Whether the printed form of `module` says all about it."""
    is_of_torch = type(module).__module__.startswith("torch.nn.modules.")
    return is_of_torch and next(module.children(), None) is None


def _is_tensor(value: object) -> bool:
    return isinstance(value, Tensor)


def _specs_of(
    arguments: tuple[Any, ...], named: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    with torch._C.DisableTorchFunction():
        specs: tuple[tuple[Any, ...], dict[str, Any]]
        specs = tree_map_only(Tensor, TensorSpec.of, (arguments, named))
    return specs


def _name(function: Callable[..., object]) -> str:
    name = getattr(function, "__name__", type(function).__name__)
    # A property such as `x.T` is called through the `__get__` of its descriptor.
    owner = getattr(function, "__self__", None)
    return getattr(owner, "__name__", name) if name == "__get__" else name


def _text(value: object) -> str:
    if isinstance(value, TensorSpec):
        shape = "x".join(map(str, value.shape)) or "scalar"
        # Floating-point numbers all have the precision of the run.
        kind = "" if value.dtype.is_floating_point else f" {value.dtype}"
        return f"{shape}{kind}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_text, value))}]"
    if isinstance(value, torch.device):
        return "device"
    return repr(value)
