"""The macro space of ProxylessNAS and FBNet: a kernel and an expansion for every layer, or none.

ProxylessNAS (Cai et al., 2019, arXiv:1812.00332) and FBNet (Wu et al., 2019, arXiv:1812.03443):
a MobileNetV2 (arXiv:1801.04381) whose inverted residual blocks are chosen one by one.
"""

from dataclasses import dataclass
from itertools import product
from typing import ClassVar

from torch import Tensor, nn

from nas.choice import Choice
from nas.errors import UserError
from nas.spaces.model import ModelSpace
from nas.spaces.space import SPACES

SKIP = "skip"


class MBConv(nn.Module):
    """An inverted residual block, `[B, C, H, W]` to `[B, C', H / stride, W / stride]`."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, expansion: int, stride: int
    ) -> None:
        super().__init__()
        hidden = expansion * in_channels
        expand = [_conv_norm(in_channels, hidden, 1), nn.ReLU6()] if expansion > 1 else []
        self.layers = nn.Sequential(
            *expand,
            _conv_norm(hidden, hidden, kernel_size, stride, groups=hidden),
            nn.ReLU6(),
            _conv_norm(hidden, out_channels, 1),
        )
        self._is_residual = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layers(x)
        return x + out if self._is_residual else out

    def droppable_paths(self) -> list[nn.Module]:
        """What drop-path may cut: the layers, where there is a way past them."""
        return [self.layers] if self._is_residual else []


@SPACES.register("mobilenet")
@dataclass(frozen=True, kw_only=True)
class MobileNet(ModelSpace):
    """The space and its sizes; a layer is the choice `stage<i>/layer<j>`.

    Attributes:
        in_channels: Channels of the images.
        num_classes: Number of classes.
        width: Factor of all numbers of channels, which are rounded to multiples of 8.
        stem_channels: Of the first convolution; half of it after the first block.
        channels: Of each stage.
        layers: Of each stage.
        strides: Of the first layer of each stage.
        stem_stride: Of the first convolution: 2 for images of ImageNet's size, 1 for small ones.
        head_channels: Before the classifier.
        kernels: Sizes to choose from.
        expansions: Likewise.
    """

    in_channels: int
    num_classes: int
    width: float = 1.0
    stem_channels: int = 32
    channels: tuple[int, ...] = (24, 32, 64, 96, 160, 320)
    layers: tuple[int, ...] = (4, 4, 4, 4, 4, 1)
    strides: tuple[int, ...] = (2, 2, 2, 1, 2, 1)
    stem_stride: int = 2
    head_channels: int = 1280
    kernels: tuple[int, ...] = (3, 5, 7)
    expansions: tuple[int, ...] = (3, 6)

    name: ClassVar[str] = "mobilenet"

    def __post_init__(self) -> None:
        """Raises a `UserError` for stages that do not fit together."""
        if not len(self.channels) == len(self.layers) == len(self.strides) > 0:
            raise UserError(
                f"space.channels, space.layers and space.strides must have one number a stage, got "
                f"{len(self.channels)}, {len(self.layers)} and {len(self.strides)}"
            )
        if any(kernel % 2 == 0 for kernel in self.kernels):
            raise UserError(f"space.kernels is {list(self.kernels)}: must be odd")

    def build_supernet(self) -> nn.Module:
        """The network with a `Choice` for every layer."""
        stem, before = self._scaled(self.stem_channels), self._scaled(self.stem_channels // 2)
        modules: list[nn.Module] = [
            _conv_norm(self.in_channels, stem, 3, self.stem_stride),
            nn.ReLU6(),
            MBConv(stem, before, 3, 1, 1),
        ]
        stages = zip(self.channels, self.layers, self.strides, strict=True)
        for stage, (channels, num_layers, stride) in enumerate(stages, 1):
            after = self._scaled(channels)
            for layer in range(num_layers):
                name = f"stage{stage}/layer{layer + 1}"
                modules.append(self._layer(name, before, after, stride if layer == 0 else 1))
                before = after
        head = max(self.head_channels, self._scaled(self.head_channels))
        return nn.Sequential(
            *modules,
            _conv_norm(before, head, 1),
            nn.ReLU6(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(head, self.num_classes),
        )

    def _layer(self, name: str, before: int, after: int, stride: int) -> Choice:
        candidates: dict[str, nn.Module] = {
            f"k{kernel}_e{expansion}": MBConv(before, after, kernel, expansion, stride)
            for kernel, expansion in product(self.kernels, self.expansions)
        }
        if stride == 1 and before == after:
            candidates[SKIP] = nn.Identity()
        return Choice(candidates, name)

    def _scaled(self, channels: int) -> int:
        """Rounded to a multiple of 8, never down by more than a tenth (MobileNetV2's code)."""
        if self.width == 1:
            return channels
        rounded = max(8, int(self.width * channels + 4) // 8 * 8)
        return rounded if rounded >= 0.9 * self.width * channels else rounded + 8


def _conv_norm(
    in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, groups: int = 1
) -> nn.Module:
    padding = kernel_size // 2
    return nn.Sequential(
        nn.Conv2d(
            in_channels, out_channels, kernel_size, stride, padding, groups=groups, bias=False
        ),
        nn.BatchNorm2d(out_channels),
    )
