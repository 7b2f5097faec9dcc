"""Optimisers, learning-rate schedules and clipping, for weights and logits alike."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from nas.errors import unknown_name
from nas.optimisation.finite import check_finite

OPTIMIZERS = ("sgd", "adam", "adamw")
SCHEDULES = ("constant", "cosine", "exponential")


@dataclass(kw_only=True, slots=True)
class OptimizerSettings:
    """Settings of one optimiser with its schedule and clipping.

    Attributes:
        name: `sgd`, `adam` or `adamw`.
        learning_rate: Learning rate of the first epoch (after the warm-up).
        weight_decay: L2 penalty (decoupled for adamw).
        momentum: Of sgd.
        nesterov: Of sgd.
        beta1: Of adam and adamw.
        beta2: Of adam and adamw.
        schedule: `constant`, `cosine` (to `final_learning_rate`, per epoch) or `exponential`.
        final_learning_rate: Where the cosine ends, one epoch after the last.
        decay_per_epoch: Factor of the exponential schedule.
        warmup_epochs: Epochs of linear warm-up before the schedule starts.
        clip_norm: Largest norm of the gradient of all parameters together; 0 is off.
    """

    name: str = "sgd"
    learning_rate: float = 0.025
    weight_decay: float = 0.0
    momentum: float = 0.9
    nesterov: bool = False
    beta1: float = 0.9
    beta2: float = 0.999
    schedule: str = "constant"
    final_learning_rate: float = 0.0
    decay_per_epoch: float = 0.97
    warmup_epochs: int = 0
    clip_norm: float = 0.0

    def check(self, key: str) -> None:
        """Raises a ValueError that names the dotted key under `key`, the value and the remedy."""
        for field, allowed in (("name", OPTIMIZERS), ("schedule", SCHEDULES)):
            value = getattr(self, field)
            if value not in allowed:
                raise ValueError(str(unknown_name(field, value, allowed, f"{key}.{field}")))
        if not 0 < self.learning_rate < math.inf:
            raise ValueError(f"{key}.learning_rate is {self.learning_rate}: must be positive")
        for field in (
            "weight_decay",
            "final_learning_rate",
            "clip_norm",
            "warmup_epochs",
        ):
            value = getattr(self, field)
            if not 0 <= value < math.inf:
                raise ValueError(f"{key}.{field} is {value}: must not be negative")
        for field in ("momentum", "beta1", "beta2"):
            value = getattr(self, field)
            if not 0 <= value < 1:
                raise ValueError(f"{key}.{field} is {value}: must lie in [0, 1)")
        if not 0 < self.decay_per_epoch <= 1:
            raise ValueError(f"{key}.decay_per_epoch is {self.decay_per_epoch}: must lie in (0, 1]")
        if self.name == "sgd" and self.nesterov and self.momentum == 0:
            raise ValueError(f"{key}.nesterov needs a momentum: set {key}.momentum above 0")


def learning_rate(settings: OptimizerSettings, epoch: int, epochs: int) -> float:
    """The learning rate of `epoch` (from 0) of `epochs`: a pure function, so a resume needs none.

    The cosine is that of SGDR (arXiv:1608.03983) without restarts, stepped per epoch.
    """
    warmup, base = settings.warmup_epochs, settings.learning_rate
    if epoch < warmup:
        return base * (epoch + 1) / (warmup + 1)
    done, total = epoch - warmup, max(epochs - warmup, 1)
    if settings.schedule == "cosine":
        final = settings.final_learning_rate
        return final + (base - final) * (1 + math.cos(math.pi * done / total)) / 2
    if settings.schedule == "exponential":
        return base * settings.decay_per_epoch**done
    return base


class Updater:
    """An optimiser with its clipping: `step` updates the parameters that have a gradient.

    Parameters without one (operations that were not sampled) are left alone altogether: no
    momentum moves them and no weight decay shrinks them. With `update_unsampled` they are updated
    as if their gradient were zero, as by code for PyTorch before 2.0, whose `zero_grad` left zeros
    (there not before the first time that an operation was sampled).

    Attributes:
        factor: Of the learning rate of every epoch.
    """

    def __init__(
        self,
        parameters: Iterable[Tensor],
        settings: OptimizerSettings,
        *,
        update_unsampled: bool = False,
        fused: bool = False,
    ) -> None:
        """Args:
        parameters: What is updated.
        settings: How.
        update_unsampled: Also what has no gradient.
        fused: With one kernel. The same parameters must have gradients each time, in their own
            memory layout: of others PyTorch's kernels for a CPU make nonsense without a word.
        """
        self.parameters = list(parameters)
        self.settings, self.factor = settings, 1.0
        self._update_unsampled = update_unsampled
        self.optimizer = _build(self.parameters, settings, fused)

    def restarted(self, learning_rate: float) -> "Updater":
        """A new one of the same parameters, without momentum, whose rate stays as it is given.

        Times `factor`: what had to be lowered before the run went on stays so.
        """
        rate = self.factor * learning_rate
        settings = replace(self.settings, learning_rate=rate, schedule="constant", warmup_epochs=0)
        return Updater(self.parameters, settings, update_unsampled=self._update_unsampled)

    def set_epoch(self, epoch: int, epochs: int) -> float:
        """Sets and returns the learning rate of `epoch`."""
        rate = self.factor * learning_rate(self.settings, epoch, epochs)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        return rate

    @property
    def learning_rate(self) -> float:
        """The present learning rate."""
        return float(self.optimizer.param_groups[0]["lr"])

    def zero_grad(self) -> None:
        """Sets all gradients to None."""
        self.optimizer.zero_grad(set_to_none=True)

    def step(self) -> None:
        """Clips the gradients, updates, and sets the gradients to None.

        Raises:
            NonFiniteLossError: on the host, the norm that is clipped is NaN or infinite; nothing
                was updated.
        """
        if self.settings.clip_norm > 0:
            norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.settings.clip_norm)
            if norm.device.type == "cpu":  # elsewhere reading it would wait for the device
                check_finite(norm.item(), "gradient norm")
        if self._update_unsampled:
            for parameter in self.parameters:
                if parameter.grad is None and parameter.requires_grad:  # not what a user has frozen
                    parameter.grad = torch.zeros_like(parameter)
        self.optimizer.step()
        self.zero_grad()


def _build(
    parameters: list[Tensor], settings: OptimizerSettings, fused: bool
) -> torch.optim.Optimizer:
    rate, decay = settings.learning_rate, settings.weight_decay
    if settings.name == "sgd":
        return torch.optim.SGD(
            parameters,
            lr=rate,
            momentum=settings.momentum,
            nesterov=settings.nesterov,
            weight_decay=decay,
            fused=fused or None,  # None: as PyTorch sees fit
        )
    kind = torch.optim.Adam if settings.name == "adam" else torch.optim.AdamW
    betas = (settings.beta1, settings.beta2)
    return kind(parameters, lr=rate, betas=betas, weight_decay=decay, fused=fused or None)
