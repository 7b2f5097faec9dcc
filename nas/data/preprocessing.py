"""What an image goes through before a network sees it: what test images went through."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from nas.data.augment import normalise
from nas.data.decode import decoded, fit, open_image
from nas.data.settings import DataInfo
from nas.errors import UserError, unknown_name

ImageOrPath = Image.Image | Path | str

IMAGENET_MARGIN = 256 / 224
"""Test images of ImageNet are resized to so much more than what is cropped from them."""


def _fitted(image: Image.Image, size: int) -> Tensor:
    return _pixels(fit(image, size))


def _from_shorter_side(image: Image.Image, size: int) -> Tensor:
    from torchvision.transforms import v2  # slow to import, and only needed here

    crop = v2.Compose([v2.Resize(round(size * IMAGENET_MARGIN)), v2.CenterCrop(size)])
    return _pixels(crop(image))


def _whole(image: Image.Image, size: int) -> Tensor:
    from torchvision.transforms.v2.functional import resize  # slow to import, and only needed here

    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    square = _pixels(image.crop((left, top, left + side, top + side)))
    resized: Tensor = resize(square, [size, size])
    return resized


RESIZES: dict[str, tuple[str, Callable[[Image.Image, int], Tensor]]] = {
    "fit": (
        "The shorter side is resized to {size} pixels, bilinear and antialiased as in Pillow, and "
        "the centre of {size}x{size} pixels is cropped; an image of that size is left as it is.",
        _fitted,
    ),
    "shorter_side": (
        "The shorter side is resized to {larger} pixels, bilinear and antialiased as in Pillow, "
        "and the centre of {size}x{size} pixels is cropped.",
        _from_shorter_side,
    ),
    "whole": (
        "The centre square of the image, as large as it is, is resized to {size}x{size} pixels, "
        "bilinear and antialiased as torchvision does it with uint8 tensors.",
        _whole,
    ),
}
"""Ways to bring a decoded image to a size: the words, and the function that gives uint8
`[C, size, size]`. `fit` is that of folders, `shorter_side` that of ImageNet, `whole` that of data
sets that are held in memory and have `data.image_size`."""


@dataclass(frozen=True)
class Preprocessing:
    """From an image to the input of a network, as in the evaluation of a retraining.

    Attributes:
        in_channels: 1 (grey) or 3 (RGB); with another number no file can be read.
        image_size: Pixels a side.
        resize: A name in `RESIZES`.
        mean: By channel, of pixels scaled to [0, 1].
        std: Likewise.
    """

    in_channels: int
    image_size: int
    resize: str
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        """Raises a `UserError` or a ValueError for what cannot be done."""
        if self.resize not in RESIZES:
            raise unknown_name("rule", self.resize, RESIZES, "resize")
        if self.in_channels < 1 or self.image_size < 1:
            raise ValueError(f"{self.in_channels} channels of {self.image_size} pixels a side")
        if not len(self.mean) == len(self.std) == self.in_channels or not all(self.std):
            raise ValueError("mean and std need a number a channel, and std none that is 0")

    @classmethod
    def of(cls, info: DataInfo) -> "Preprocessing":
        """That of the test images of a data set."""
        return cls(info.in_channels, info.image_size, info.resize, info.mean, info.std)

    def __call__(self, image: ImageOrPath) -> Tensor:
        """The input `[C, size, size]` float32 that `image` is to the network.

        Raises:
            UserError: the image is broken, has more than 8 bits a channel, or images of
                `in_channels` channels cannot be read from files.
        """
        mean, std = (torch.tensor(values)[:, None, None] for values in (self.mean, self.std))
        return normalise(self.pixels(image), mean, std)

    def pixels(self, image: ImageOrPath) -> Tensor:
        """The pixels uint8 `[C, size, size]` before they are normalised; raises as `__call__`."""
        if self.in_channels not in (1, 3):
            raise UserError(
                f"the network takes images of {self.in_channels} channels, files have 1 or 3"
            )
        if isinstance(image, Image.Image):
            found = decoded(image, self.in_channels)
        elif isinstance(image, str | Path):
            found = open_image(str(image), self.in_channels)
        else:
            kind = type(image).__name__
            raise UserError(f"an image is a file or a PIL.Image, not of the type {kind}")
        return RESIZES[self.resize][1](found, self.image_size)

    def steps(self) -> list[str]:
        """What is done, in words, one sentence a step."""
        size, larger = self.image_size, round(self.image_size * IMAGENET_MARGIN)
        colour = {1: "grey", 3: "RGB"}.get(self.in_channels, f"{self.in_channels} channels")
        return [
            f"The image is converted to {colour}, 8 bits a "
            "channel; orientation tags are not followed.",
            RESIZES[self.resize][0].format(size=size, larger=larger),
            f"Pixels are divided by 255; then `(pixel - mean) / std` by channel, with mean "
            f"{_numbers(self.mean)} and std {_numbers(self.std)}.",
            f"The network takes float32 `[batch, {self.in_channels}, {size}, {size}]`.",
        ]


def _numbers(values: tuple[float, ...]) -> str:
    return f"`[{', '.join(f'{value:.6g}' for value in values)}]`"


def _pixels(image: Image.Image) -> Tensor:
    """uint8 `[C, H, W]`."""
    array = np.array(image, dtype=np.uint8)
    return torch.from_numpy(array.reshape(image.height, image.width, -1)).permute(2, 0, 1)
