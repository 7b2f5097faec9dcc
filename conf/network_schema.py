"""Schema of the sizes of a plain network."""

from dataclasses import dataclass, field
from typing import Any

from conf.ranges import at_least


@dataclass(kw_only=True, slots=True)
class NetworkConfig:
    """Sizes of the network that is trained; null is the default of the genotype's space."""

    channels: int | None = None  # of the first cells
    cells: int | None = None  # darts, gdas_frc: all cells
    cells_per_stage: int | None = None  # nasbench201: cells in each of the three stages
    stem: str | None = None  # darts, gdas_frc: cifar or imagenet
    stem_multiplier: int | None = None  # darts, gdas_frc: of the stem's channels
    model: str | None = None  # custom: that of the search
    arguments: dict[str, Any] = field(default_factory=dict)  # custom: arguments of the model

    def __post_init__(self) -> None:
        for name in ("channels", "cells", "cells_per_stage", "stem_multiplier"):
            if getattr(self, name) is not None:
                at_least("network", self, **{name: 1})
