"""Schemas of the group `budget`."""

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from conf.network_schema import NetworkConfig
from conf.ranges import at_least
from nas.cost.costs import COSTS
from nas.errors import unknown_name


@dataclass(kw_only=True, slots=True)
class NoBudgetConfig:
    """A search without one."""

    name: str = "none"


@dataclass(kw_only=True, slots=True)
class BudgetConfig:
    """What all limits have."""

    name: str = MISSING
    fraction: float | None = None  # share of the way from the cheapest architecture to the dearest
    rate: float = 0.05  # of the multiplier that weighs the cost in the loss of the logits
    front_limits: int = 10  # limits for which the front has architectures; 0: no front
    max_images: int | None = 2000  # validation images for each point of the front; null: all
    network: NetworkConfig = field(default_factory=NetworkConfig)  # of which the cost is

    def __post_init__(self) -> None:
        if self.fraction is not None and not 0 <= self.fraction <= 1:
            raise ValueError(f"budget.fraction is {self.fraction}: must lie in [0, 1]")
        at_least("budget", self, rate=0, front_limits=0)
        if self.max_images is not None:
            at_least("budget", self, max_images=1)

    def check_target(self, key: str) -> None:
        """Checks that there is either a target, called `key`, or a fraction."""
        target = getattr(self, key)
        if (target is None) == (self.fraction is None):
            raise ValueError(
                f"budget={self.name} needs budget.{key} or budget.fraction: set one of the two"
            )
        if target is not None and not target > 0:
            raise ValueError(f"budget.{key} is {target}: must be positive")


@dataclass(kw_only=True, slots=True)
class CountedBudgetConfig(BudgetConfig):
    """A limit on what is counted, see `nas.cost.costs`."""

    target: float | None = None  # limit, in the unit of the cost

    def __post_init__(self) -> None:
        BudgetConfig.__post_init__(self)
        if self.name not in COSTS:
            raise ValueError(unknown_name("cost", self.name, COSTS, "budget.name"))
        self.check_target("target")


@dataclass(kw_only=True, slots=True)
class LatencyBudgetConfig(BudgetConfig):
    """A limit on the latency, predicted from a table that `profile_space.py` has measured."""

    target_ms: float | None = None  # limit, in milliseconds a batch
    table: str = MISSING  # latency.json that profile_space.py has written

    def __post_init__(self) -> None:
        BudgetConfig.__post_init__(self)
        self.check_target("target_ms")


def check_budget(budget: Any, derive: Any) -> None:
    """Checks what depends on how is derived."""
    if budget.name != "none" and derive.name == "perturbation":
        raise ValueError(
            f"derive=perturbation decides one choice after the other and knows no budget="
            f"{budget.name}: set derive to argmax, sampled or local_search"
        )
