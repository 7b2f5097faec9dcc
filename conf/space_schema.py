"""Schemas of the search spaces: the group `space`."""

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from conf.ranges import at_least
from nas.errors import unknown_name
from nas.spaces.nasbench201 import REDUCTIONS


@dataclass(kw_only=True, slots=True)
class NASBench201Config:
    """Sizes of the space `nasbench201`; see `nas.spaces.nasbench201`."""

    name: str = "nasbench201"
    channels: int = 16  # of the first stage; doubled in each of the two others
    cells_per_stage: int = 5  # searched cells in each of the three stages
    nodes: int = 4  # of a cell, input and output included
    reduction: str = "residual"  # between the stages; pooling leaves more to the cells
    partial_channels: int = 1  # the supernet searches one part of so many of them; 1: all
    operations: list[str] = MISSING  # candidates of every edge
    affine: bool = False  # scale and shift of batch norm in the supernet's cells
    track_running_stats: bool = False  # of the same batch norms; off: statistics of the batch

    def __post_init__(self) -> None:
        at_least("space", self, channels=1, cells_per_stage=1, nodes=2, partial_channels=1)
        if self.reduction not in REDUCTIONS:
            known = list(REDUCTIONS)
            raise ValueError(unknown_name("reduction", self.reduction, known, "space.reduction"))


@dataclass(kw_only=True, slots=True)
class DARTSConfig:
    """Sizes of the spaces `darts` and `gdas_frc`; see `nas.spaces.darts`."""

    name: str = "darts"
    channels: int = 16  # of the first cells; doubled at each reduction cell
    cells: int = 8  # reduction cells included
    nodes: int = 4  # intermediate nodes of a cell
    stem: str = "cifar"  # keeps the resolution (cifar) or divides it by 8 (imagenet)
    stem_multiplier: int = 3  # channels of the CIFAR stem, in multiples of channels
    operations: list[str] = MISSING  # candidates of every edge
    affine: bool = False  # scale and shift of batch norm in the supernet's cells
    track_running_stats: bool = False  # of the same batch norms; off: statistics of the batch
    pool_norm: bool = False  # batch norm after candidate pools, as in the code of DARTS
    partial_channels: int = 1  # the supernet searches one part of so many of them; 1: all
    edge_normalization: bool = False  # weights for the inputs of a node, learnt like the logits

    def __post_init__(self) -> None:
        at_least("space", self, channels=1, cells=3, nodes=1, stem_multiplier=1)
        at_least("space", self, partial_channels=1)


@dataclass(kw_only=True, slots=True)
class CustomConfig:
    """The space `custom`, a model of the user's; see `nas.spaces.custom`."""

    name: str = "custom"
    model: str = MISSING  # my_package.MyNet: a class or function that makes a model with choices
    arguments: dict[str, Any] = field(default_factory=dict)  # for it: space.arguments.depth=3


@dataclass(kw_only=True, slots=True)
class MobileNetConfig:
    """Sizes of the space `mobilenet`; see `nas.spaces.mobilenet`."""

    name: str = "mobilenet"
    width: float = 1.0  # factor of all numbers of channels
    stem_channels: int = 32  # of the first convolution
    channels: list[int] = MISSING  # of each stage
    layers: list[int] = MISSING  # of each stage: inverted residual blocks
    strides: list[int] = MISSING  # of the first layer of each stage
    stem_stride: int = 2  # of the first convolution
    head_channels: int = 1280  # of the last convolution
    kernels: list[int] = MISSING  # kernel sizes to choose from
    expansions: list[int] = MISSING  # factors of the hidden channels to choose from

    def __post_init__(self) -> None:
        at_least("space", self, stem_channels=2, stem_stride=1, head_channels=1)
        if not self.width > 0:
            raise ValueError(f"space.width is {self.width}: must be positive")
        _all_positive("space", self, "channels", "layers", "strides", "kernels", "expansions")


@dataclass(kw_only=True, slots=True)
class ViTConfig:
    """Sizes of the space `vit`; see `nas.spaces.vit`."""

    name: str = "vit"
    patch_size: int = 4  # pixels a side of a token
    head_dim: int = 32  # features of an attention head
    embeddings: list[int] = MISSING  # numbers of features to choose from, one for all layers
    depths: list[int] = MISSING  # numbers of layers to choose from
    heads: list[int] = MISSING  # numbers of attention heads to choose from, in each layer
    mlp_ratios: list[float] = MISSING  # hidden features by features, to choose from in each layer

    def __post_init__(self) -> None:
        at_least("space", self, patch_size=1, head_dim=1)
        _all_positive("space", self, "embeddings", "depths", "heads", "mlp_ratios")


def _all_positive(section: str, config: object, *names: str) -> None:
    for name in names:
        values = list(getattr(config, name))
        if not values or min(values) <= 0:
            raise ValueError(f"{section}.{name} is {values}: must be positive numbers")
