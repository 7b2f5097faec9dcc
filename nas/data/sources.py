"""Where images come from: data sets that fit in memory as a whole, by name.

A new data set is one function here that is registered under its name, and one YAML file.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from nas.data.order import stratified_split
from nas.data.settings import DataSettings
from nas.errors import UserError
from nas.registry import Registry

if TYPE_CHECKING:  # each function imports it: it takes seconds, and digits do without
    from torchvision import datasets

DEFAULT_PATH = "data"
# What torchvision raises for files that are missing, cut off or not to be had.
_FETCH_ERRORS = (RuntimeError, OSError, EOFError, ValueError, AssertionError)


@dataclass(frozen=True)
class Images:
    """Decoded images.

    Attributes:
        pixels: uint8 `[N, C, H, W]`, on the host.
        labels: int64 `[N]`, on the host.
        class_names: Names of the classes.
    """

    pixels: Tensor
    labels: Tensor
    class_names: tuple[str, ...]

    def select(self, indices: Tensor) -> "Images":
        """The images at `indices`."""
        return Images(self.pixels[indices], self.labels[indices], self.class_names)

    def to(self, device: torch.device) -> "Images":
        """The same on `device`."""
        return Images(self.pixels.to(device), self.labels.to(device), self.class_names)


LoadSplit = Callable[[DataSettings, bool], Images]
"""Loads the training images (True) or the test images (False) of a data set."""

SOURCES: Registry[LoadSplit] = Registry("data set")


def load_split(settings: DataSettings, train: bool) -> Images:
    """Loads one split of the data set `settings.name`, resized if `image_size` says so.

    Raises:
        UserError: the data is not there, cannot be downloaded, or there is no such data set.
    """
    return resized(SOURCES.get(settings.name, "data.name")(settings, train), settings.image_size)


def resized(images: Images, size: int | None) -> Images:
    """The centre squares of the images at `size` pixels a side; None leaves them as they are."""
    if size is None or list(images.pixels.shape[2:]) == [size, size]:
        return images
    from torchvision.transforms.v2.functional import resize  # slow to import, and only needed here

    height, width = images.pixels.shape[2:]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    squares = images.pixels[:, :, top : top + side, left : left + side]
    # In parts: the resizing works in float32.
    firsts = range(0, len(squares), 4096)
    parts = [resize(squares[i : i + 4096], [size, size]) for i in firsts]
    return Images(torch.cat(parts), images.labels, images.class_names)


@SOURCES.register("digits")
def _digits(settings: DataSettings, train: bool) -> Images:
    """The 1,797 scans of 8x8 pixels that come with scikit-learn; a fixed fifth is the test set."""
    from sklearn.datasets import load_digits  # slow to import, and only needed here

    bunch = load_digits()
    # 17 grey levels to 256.
    pixels = torch.from_numpy(bunch.images).mul(255 / 16).round().to(torch.uint8)[:, None]
    labels = torch.from_numpy(bunch.target).long()
    images = Images(pixels, labels, tuple(map(str, range(10))))
    splits = stratified_split(labels, 0.2, "test split")
    return images.select(splits[0] if train else splits[1])


@SOURCES.register("cifar10")
def _cifar10(settings: DataSettings, train: bool) -> Images:
    from torchvision import datasets

    return _cifar(datasets.CIFAR10, settings, train)


@SOURCES.register("cifar100")
def _cifar100(settings: DataSettings, train: bool) -> Images:
    from torchvision import datasets

    return _cifar(datasets.CIFAR100, settings, train)


@SOURCES.register("svhn")
def _svhn(settings: DataSettings, train: bool) -> Images:
    """The 73,257 training and 26,032 test images; the extra images are not used."""
    from torchvision import datasets

    split = "train" if train else "test"
    data = _fetch(
        settings,
        lambda root, download: datasets.SVHN(root, split=split, download=download),
    )
    pixels, labels = torch.from_numpy(data.data), torch.from_numpy(data.labels).long()
    return Images(pixels, labels, tuple(map(str, range(10))))


@SOURCES.register("fashion_mnist")
def _fashion_mnist(settings: DataSettings, train: bool) -> Images:
    from torchvision import datasets

    data = _fetch(
        settings,
        lambda root, download: datasets.FashionMNIST(root, train=train, download=download),
    )
    return Images(data.data[:, None].contiguous(), data.targets.long(), tuple(data.classes))


def _cifar(kind: "type[datasets.CIFAR10]", settings: DataSettings, train: bool) -> Images:
    data = _fetch(settings, lambda root, download: kind(root, train=train, download=download))
    pixels = torch.from_numpy(data.data).permute(0, 3, 1, 2).contiguous()
    return Images(pixels, torch.tensor(data.targets), tuple(data.classes))


def _fetch(
    settings: DataSettings, make: "Callable[[Path, bool], datasets.VisionDataset]"
) -> "datasets.VisionDataset":
    """Opens a data set of torchvision, downloading it if it is not there and may be."""
    root = Path(settings.path or DEFAULT_PATH).expanduser()
    try:
        return _quietly(make, root, False)
    except _FETCH_ERRORS:
        if not settings.download:
            raise UserError(
                f"data.path: {settings.name} is not in {root}, or damaged there; give its folder "
                "or allow data.download=true"
            ) from None
    try:
        return _quietly(make, root, True)
    except _FETCH_ERRORS as error:
        cause = " ".join(str(error).split())  # torchvision's may have a line for each mirror
        raise UserError(
            f"data.download: cannot fetch {settings.name} into {root} ({cause}); "
            "put the files there by hand, set data.path to a folder that has them, or use "
            "data=image_folder"
        ) from None


def _quietly(
    make: "Callable[[Path, bool], datasets.VisionDataset]", root: Path, download: bool
) -> "datasets.VisionDataset":
    """Newer versions of NumPy warn of CIFAR's old pickles, which no user can do anything about."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return make(root, download)
