"""Large data sets: worker processes decode and augment file by file."""

import math
from collections.abc import Iterator

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from nas.data.folder import ImageFiles, fit, open_image
from nas.data.memory import Augmentation
from nas.data.order import derived_seed, permutation

Item = tuple[int, int]
"""Index of a file and seed of its augmentation."""


class StreamDataset(Dataset[tuple[Tensor, int]]):
    """Decoded, augmented and normalised images, float32 `[C, size, size]`, with their labels.

    Each item comes with its own seed, so that it does not matter which worker makes it.
    """

    def __init__(self, files: ImageFiles, channels: int, size: int, transform: v2.Transform):
        self._files, self._channels, self._size = files, channels, size
        self._transform = transform

    def __len__(self) -> int:
        return len(self._files.paths)

    def __getitem__(self, item: Item) -> tuple[Tensor, int]:
        index, seed = item
        image = open_image(self._files.paths[index], self._channels)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            pixels: Tensor = self._transform(image)
        return pixels, int(self._files.labels[index])


class StreamLoader:
    """A `Loader` that streams files through worker processes."""

    def __init__(
        self,
        files: ImageFiles,
        *,
        channels: int,
        size: int,
        transform: v2.Transform,
        batch_size: int,
        device: torch.device,
        seed: int = 0,
        stream: str = "evaluation",
        shuffle: bool = False,
        num_workers: int = 0,
        channels_last: bool = False,
    ) -> None:
        """Args:
        files: The images.
        channels: 1 or 3.
        size: Pixels a side after the transform.
        transform: From a PIL image to a normalised tensor.
        batch_size: Images in a batch.
        device: Where batches go.
        seed: Of the run.
        stream: Name that gives this loader an order of its own.
        shuffle: Random order, without the last, incomplete batch; else all images in order.
        num_workers: Worker processes; 0 decodes in this one.
        channels_last: Memory layout of the batches.
        """
        self._dataset = StreamDataset(files, channels, size, transform)
        self.batch_size = batch_size
        self._device, self._seed, self._stream = device, seed, stream
        self._shuffle, self._num_workers = shuffle, num_workers
        layouts = (torch.contiguous_format, torch.channels_last)
        self._layout = layouts[channels_last]
        count = len(files.paths)
        self.num_batches = count // batch_size if shuffle else math.ceil(count / batch_size)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of `epoch` from step `start` on."""
        loader = DataLoader(
            self._dataset,
            batch_sampler=self._batches(epoch)[start:],
            num_workers=self._num_workers,
            pin_memory=self._device.type == "cuda",
        )
        for images, labels in loader:
            moved = images.to(self._device, non_blocking=True, memory_format=self._layout)
            yield moved, labels.to(self._device, non_blocking=True)

    def _batches(self, epoch: int) -> list[list[Item]]:
        count, size = len(self._dataset), self.batch_size
        order = (
            permutation(count, self._seed, self._stream, epoch)
            if self._shuffle
            else torch.arange(count)
        ).tolist()
        items = [(i, derived_seed(self._seed, self._stream, epoch, i)) for i in order]
        return [items[b * size : (b + 1) * size] for b in range(self.num_batches)]


def training_transform(
    size: int, augmentation: Augmentation, mean: tuple[float, ...], std: tuple[float, ...]
) -> v2.Transform:
    """The augmentation of `nas.data.augment`, for one PIL image."""
    steps: list[v2.Transform] = [Fit(size)]
    if augmentation.flip:
        steps.append(v2.RandomHorizontalFlip())
    if augmentation.crop_padding:
        steps.append(v2.RandomCrop(size, padding=augmentation.crop_padding))
    steps += _to_tensor(mean, std)
    if augmentation.cutout:
        steps.append(Cutout(augmentation.cutout))
    return v2.Compose(steps)


def imagenet_training_transform(
    size: int, mean: tuple[float, ...], std: tuple[float, ...]
) -> v2.Transform:
    """Random resized crops, flips and colour jitter, as in the code of DARTS for ImageNet."""
    return v2.Compose(
        [
            v2.RandomResizedCrop(size),
            v2.RandomHorizontalFlip(),
            v2.ColorJitter(brightness=0.4, contrast=0.4, saturation=0.4, hue=0.2),
            *_to_tensor(mean, std),
        ]
    )


def evaluation_transform(
    size: int, mean: tuple[float, ...], std: tuple[float, ...], *, resize: int | None = None
) -> v2.Transform:
    """The centre of the image at `size`, cut from its shorter side at `resize` if given."""
    if resize is None:
        return v2.Compose([Fit(size), *_to_tensor(mean, std)])
    return v2.Compose([v2.Resize(resize), v2.CenterCrop(size), *_to_tensor(mean, std)])


class Fit(v2.Transform):
    """Brings a PIL image to `size` pixels a side; see `nas.data.folder.fit`."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self._size = size

    def forward(self, image: Image.Image) -> Image.Image:
        return fit(image, self._size)


class Cutout(v2.Transform):
    """Sets one square to 0, like `nas.data.augment.cutout`, for one image `[C, H, W]`."""

    def __init__(self, length: int) -> None:
        super().__init__()
        self._half = length // 2

    def forward(self, image: Tensor) -> Tensor:
        height, width = image.shape[-2:]
        y, x = int(torch.randint(height, ())), int(torch.randint(width, ()))
        rows = slice(max(0, y - self._half), y + self._half)
        columns = slice(max(0, x - self._half), x + self._half)
        image[..., rows, columns] = 0.0
        return image


def _to_tensor(mean: tuple[float, ...], std: tuple[float, ...]) -> list[v2.Transform]:
    return [
        v2.ToImage(),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize(list(mean), list(std)),
    ]
