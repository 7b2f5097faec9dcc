"""The fixed parts of the DARTS networks: stems, auxiliary heads, GDAS's fixed reduction cell."""

import torch
from torch import Tensor, nn

from nas.errors import UserError, unknown_name
from nas.kernels.parts import Concatenation, Parts
from nas.kernels.pending import state_of
from nas.ops import AveragePool2d, FactorizedReduce, Norm, ReLUConvBN


class CifarStem(nn.Module):
    """One 3x3 convolution; both inputs of the first cell are its output."""

    halves_last = False

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.out_channels = (channels, channels)
        self.conv = nn.Conv2d(in_channels, channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        x = self.norm(self.conv(images))
        return x, x

    def add_to(self, parts: Parts, images: int) -> tuple[int, int]:
        """Adds itself to the parts of a network; returns the nodes of its outputs."""
        node = parts.add(nn.Sequential(self.conv, self.norm), images)
        return node, node


class ImageNetStem(nn.Module):
    """Three 3x3 convolutions of stride 2; the inputs of the first cell are 1/4 and 1/8 in size."""

    halves_last = True

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.out_channels = (channels, channels)
        self.quarter = nn.Sequential(
            _halve(in_channels, channels // 2),
            nn.BatchNorm2d(channels // 2),
            nn.ReLU(),
            _halve(channels // 2, channels),
            nn.BatchNorm2d(channels),
        )
        self.eighth = nn.Sequential(nn.ReLU(), _halve(channels, channels), nn.BatchNorm2d(channels))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        quarter = self.quarter(images)
        return quarter, self.eighth(quarter)

    def add_to(self, parts: Parts, images: int) -> tuple[int, int]:
        """Adds itself to the parts of a network; returns the nodes of its outputs."""
        quarter = parts.add(self.quarter, images)
        return quarter, parts.add(self.eighth, quarter)


STEMS = ("cifar", "imagenet")


def stem(kind: str, in_channels: int, channels: int, multiplier: int) -> CifarStem | ImageNetStem:
    """Builds the stem called `kind`; `multiplier` widens that for CIFAR.

    Raises:
        UserError: no stem has that name, or it needs more channels.
    """
    if kind == "cifar":
        return CifarStem(in_channels, multiplier * channels)
    if kind == "imagenet":
        if channels < 2:
            raise UserError(f"channels is {channels}: the stem for ImageNet needs at least 2")
        return ImageNetStem(in_channels, channels)
    raise unknown_name("stem", kind, STEMS)


class Preprocess(nn.Module):
    """Brings the two inputs of a cell to its channels and to the same resolution."""

    def __init__(
        self,
        before_last: int,
        last: int,
        channels: int,
        after_reduction: bool,
        norm: Norm,
    ) -> None:
        super().__init__()
        self.input_0 = (
            FactorizedReduce(before_last, channels, norm)
            if after_reduction
            else ReLUConvBN(before_last, channels, 1, 1, norm)
        )
        self.input_1 = ReLUConvBN(last, channels, 1, 1, norm)

    def add_to(self, parts: Parts, before_last: int, last: int) -> tuple[int, int]:
        """Adds itself to the parts of a network; returns the nodes of its outputs."""
        return parts.add(self.input_0, before_last), parts.add(self.input_1, last)


class AuxiliaryHead(nn.Module):
    """The second classifier of DARTS's retraining, at 2/3 of the depth, on `[B, C, H, W]`.

    Written for 8x8 maps on CIFAR (32x32 images) and 7x7 on ImageNet (224x224); 5x5 pooling must
    leave 2x2. The head for ImageNet has no last batch norm, as in the code of DARTS.
    """

    def __init__(self, stem: str, in_channels: int, num_classes: int) -> None:
        super().__init__()
        imagenet = stem == "imagenet"
        self._image_size = 224 if imagenet else 32
        self.pool = nn.Sequential(
            nn.ReLU(),
            AveragePool2d(5, stride=2 if imagenet else 3, count_include_pad=False),
        )
        self.features = nn.Sequential(
            nn.Conv2d(in_channels, 128, 1, bias=False),
            nn.BatchNorm2d(128),
            nn.ReLU(),
            nn.Conv2d(128, 768, 2, bias=False),
            *([] if imagenet else [nn.BatchNorm2d(768)]),
            nn.ReLU(),
            nn.Flatten(),
        )
        self.classifier = nn.Linear(768, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        pooled = self.pool(x) if min(x.shape[-2:]) >= 5 else None
        if pooled is None or pooled.shape[-2:] != (2, 2):
            raise UserError(
                f"auxiliary_weight: the auxiliary head is made for images of "
                f"{self._image_size}x{self._image_size} pixels, it got maps of "
                f"{x.shape[-2]}x{x.shape[-1]}; set it to 0 or change data.image_size"
            )
        logits: Tensor = self.classifier(self.features(pooled))
        return logits


class FixedReduction(nn.Module):
    """GDAS's hand-made reduction cell (arXiv:1910.04465, figure 3; structure from its code).

    Of each of the two inputs a factorised, grouped 3x3 convolution and a max pool, all of stride
    2; the four results are concatenated.
    """

    GROUPS = 8

    def __init__(self, channels: int, preprocess: Preprocess, norm: Norm) -> None:
        super().__init__()
        self.preprocess = preprocess
        self.out_channels = 4 * channels
        self.convs = nn.ModuleList(_factorised_conv(channels, norm) for _ in range(2))
        self.pools = nn.ModuleList(
            nn.Sequential(nn.MaxPool2d(3, stride=2, padding=1), norm(channels)) for _ in range(2)
        )

    def droppable_paths(self) -> list[nn.Module]:
        """The branches that drop-path may cut."""
        return [*self.convs, *self.pools]

    def forward(self, before_last: Tensor, last: Tensor) -> Tensor:
        inputs = (
            state_of(self.preprocess.input_0(before_last)),
            state_of(self.preprocess.input_1(last)),
        )
        branches = (*self.convs, *self.pools)
        return torch.cat([b(x) for b, x in zip(branches, inputs * 2, strict=True)], dim=1)

    def add_to(self, parts: Parts, before_last: int, last: int) -> int:
        """Adds itself to the parts of a network; returns the node of its output."""
        inputs = self.preprocess.add_to(parts, before_last, last)
        branches = (*self.convs, *self.pools)
        outputs = [parts.add(b, node) for b, node in zip(branches, inputs * 2, strict=True)]
        return parts.add(Concatenation(), *outputs)


def _halve(in_channels: int, out_channels: int) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 3, stride=2, padding=1, bias=False)


def _factorised_conv(channels: int, norm: Norm) -> nn.Sequential:
    groups = FixedReduction.GROUPS
    return nn.Sequential(
        nn.ReLU(),
        nn.Conv2d(channels, channels, (1, 3), (1, 2), (0, 1), groups=groups, bias=False),
        nn.Conv2d(channels, channels, (3, 1), (2, 1), (1, 0), groups=groups, bias=False),
        norm(channels),
        nn.ReLU(),
        nn.Conv2d(channels, channels, 1, bias=False),
        norm(channels),
    )
