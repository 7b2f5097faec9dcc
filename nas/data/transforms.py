"""What the images of folders go through, one by one, with torchvision: it is slow to import."""

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

from nas.data.augment import normalise
from nas.data.decode import fit
from nas.data.memory import Augmentation
from nas.data.stream import Transform


def training_transform(
    size: int, augmentation: Augmentation, mean: tuple[float, ...], std: tuple[float, ...]
) -> Transform:
    """The augmentation of `nas.data.augment`, for one PIL image."""
    steps: list[Transform] = [Fit(size)]
    if augmentation.flip:
        steps.append(v2.RandomHorizontalFlip())
    if augmentation.crop_padding:
        steps.append(v2.RandomCrop(size, padding=augmentation.crop_padding))
    steps += _to_tensor(mean, std)
    if augmentation.cutout:
        steps.append(Cutout(augmentation.cutout))
    return _compose(steps)


def imagenet_training_transform(
    size: int, augmentation: Augmentation, mean: tuple[float, ...], std: tuple[float, ...]
) -> Transform:
    """Random resized crops, flips and colour jitter, as in the code of DARTS for ImageNet.

    The crops take the place of `crop_padding`.
    """
    steps: list[Transform] = [v2.RandomResizedCrop(size)]
    if augmentation.flip:
        steps.append(v2.RandomHorizontalFlip())
    steps.append(v2.ColorJitter(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.2))
    steps += _to_tensor(mean, std)
    if augmentation.cutout:
        steps.append(Cutout(augmentation.cutout))
    return _compose(steps)


def evaluation_transform(
    size: int, mean: tuple[float, ...], std: tuple[float, ...], *, resize: int | None = None
) -> Transform:
    """The centre of the image at `size`, cut from its shorter side at `resize` if given."""
    if resize is None:
        return _compose([Fit(size), *_to_tensor(mean, std)])
    return _compose([v2.Resize(resize), v2.CenterCrop(size), *_to_tensor(mean, std)])


class Fit:
    """Brings a PIL image to `size` pixels a side; see `nas.data.decode.fit`."""

    def __init__(self, size: int) -> None:
        self._size = size

    def __call__(self, image: Image.Image) -> Image.Image:
        return fit(image, self._size)


class Cutout:
    """Sets one square to 0, like `nas.data.augment.cutout`, for one image `[C, H, W]`."""

    def __init__(self, length: int) -> None:
        self._length = length

    def __call__(self, image: Tensor) -> Tensor:
        height, width = image.shape[-2:]
        y, x = int(torch.randint(height, ())), int(torch.randint(width, ()))
        top, left = y - self._length // 2, x - self._length // 2
        rows = slice(max(0, top), top + self._length)
        columns = slice(max(0, left), left + self._length)
        image[..., rows, columns] = 0.0
        return image


def _compose(steps: list[Transform]) -> Transform:
    composed: Transform = v2.Compose(steps)
    return composed


class Normalise:
    """`nas.data.augment.normalise` for one uint8 image: the bits of images held in memory."""

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        self._mean, self._std = (torch.tensor(values)[:, None, None] for values in (mean, std))

    def __call__(self, image: Tensor) -> Tensor:
        return normalise(image, self._mean, self._std)


def _to_tensor(mean: tuple[float, ...], std: tuple[float, ...]) -> list[Transform]:
    return [v2.PILToTensor(), Normalise(mean, std)]
