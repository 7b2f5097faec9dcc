"""Stops a run whose numbers have left the finite, and says where they did."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from nas.errors import UserError, unknown_name

if TYPE_CHECKING:
    from nas.supernet import Sample

ACTIONS = ("stop", "roll_back")

_REMEDY = (
    "lower the learning rate (weights.learning_rate, logits.learning_rate) or set a clip_norm; "
    "the last checkpoint is from before it"
)


@dataclass
class NonFiniteSettings:
    """What happens when a loss, a gradient or the weights become NaN or infinite.

    Attributes:
        action: `stop` ends the run, with the last good state in its checkpoint; `roll_back` goes
            back there and on with lower learning rates.
        factor: Of all learning rates, once more each time.
        max_times: How often before the run ends after all.
    """

    action: str = "stop"
    factor: float = 0.5
    max_times: int = 3

    def check(self, key: str) -> None:
        """Raises a ValueError that names the dotted key under `key`, the value and the remedy."""
        if self.action not in ACTIONS:
            raise ValueError(str(unknown_name("action", self.action, ACTIONS, f"{key}.action")))
        if not 0 < self.factor < 1:
            raise ValueError(f"{key}.factor is {self.factor}: must lie between 0 and 1")
        if self.max_times < 1:
            raise ValueError(f"{key}.max_times is {self.max_times}: must be at least 1")


class NonFiniteLossError(UserError):
    """A loss or gradient is NaN or infinite; it has updated nothing.

    Attributes:
        found: What is what, such as "the training loss is nan".
        sample: That ran, where it is known.
    """

    def __init__(self, found: str, sample: "Sample | None" = None) -> None:
        super().__init__(f"{found}: {_REMEDY}")
        self.found, self.sample = found, sample

    def located(self, when: str, origin: str | None) -> "NonFiniteLossError":
        """The same with the step, and with what was not finite first if that is known."""
        first = "" if origin is None else f", first {origin}"
        return NonFiniteLossError(f"{when}: {self.found}{first}", self.sample)


def check_finite(value: float, what: str, sample: "Sample | None" = None) -> None:
    """Raises `NonFiniteLossError` if `value` is NaN or infinite."""
    if not math.isfinite(value):
        raise NonFiniteLossError(f"the {what} is {value}", sample)


def all_finite(tensors: Iterable[Tensor]) -> bool:
    """Whether no element is NaN or infinite. Waits for the device once."""
    checks = [tensor.detach().isfinite().all() for tensor in tensors]
    return not checks or bool(torch.stack(checks).all())


def first_non_finite(model: nn.Module, run: Callable[[], object]) -> str | None:
    """What is not finite first while `run` runs `model`: weights, or the output of a module.

    Returns:
        "the output of cells.2.layers.0"; None where all is finite.
    """
    found: list[str] = []

    def before(name: str, module: nn.Module) -> None:
        if not all_finite(module.parameters(recurse=False)):
            found.append(f"the weights of {name}")

    def after(name: str, out: object) -> None:
        if isinstance(out, Tensor) and not all_finite([out]):
            found.append(f"the output of {name}")

    hooks = []
    for name, module in model.named_modules():
        shown = name or type(model).__name__
        hooks += [
            module.register_forward_pre_hook(lambda m, _, n=shown: before(n, m)),
            module.register_forward_hook(lambda m, _, out, n=shown: after(n, out)),
        ]
    try:
        with torch.no_grad():
            run()
    finally:
        for hook in hooks:
            hook.remove()
    return found[0] if found else None
