"""Small data sets: all images on the device as uint8, batches by index."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from nas.data.augment import cutout, normalise, random_crop, random_flip
from nas.data.order import derived_seed, permutation, shares
from nas.data.settings import DataSettings
from nas.distributed import ALONE, Ranks


@dataclass(frozen=True)
class Augmentation:
    """What is done to training images.

    Attributes:
        crop_padding: See `DataSettings`, likewise the others.
    """

    crop_padding: int = 0
    flip: bool = False
    cutout: int = 0

    @classmethod
    def of(cls, settings: DataSettings) -> "Augmentation":
        """That of the settings."""
        return cls(settings.crop_padding, settings.flip, settings.cutout)


class MemoryLoader:
    """Batches from images that lie on the device.

    A `Loader`. With an augmentation the order is random and the last, incomplete batch is left
    out; without, the images come in order and all of them.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        *,
        batch_size: int,
        seed: int = 0,
        stream: str = "evaluation",
        augmentation: Augmentation | None = None,
        channels_last: bool = False,
        ranks: Ranks = ALONE,
    ) -> None:
        """Args:
        images: uint8 `[N, C, H, W]` on the device.
        labels: int64 `[N]` on the device.
        mean: By channel, of pixels scaled to [0, 1].
        std: Likewise.
        batch_size: Images in a batch.
        seed: Of the run.
        stream: Name that gives this loader an order of its own.
        augmentation: For training; None for evaluation.
        channels_last: Memory layout of the batches.
        ranks: Each gets its part of every training batch, and whole batches of an evaluation.
        """
        self._images, self._labels = images, labels
        self._mean = torch.tensor(mean, device=images.device)[:, None, None]
        self._std = torch.tensor(std, device=images.device)[:, None, None]
        self.batch_size = batch_size
        self._seed, self._stream = seed, stream
        self._augmentation, self._ranks = augmentation, ranks
        layouts = (torch.contiguous_format, torch.channels_last)
        self._layout = layouts[channels_last]
        size = len(images)
        self.num_batches = size // batch_size if augmentation else -(-size // batch_size)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of `epoch` from step `start` on."""
        device = self._images.device
        generator = torch.Generator(device)
        if self._augmentation is None:
            order = torch.arange(len(self._images))
        else:
            order = permutation(len(self._images), self._seed, self._stream, epoch)
        order = order.to(device)
        steps, rows = shares(self._ranks, self, start, cuts=self._augmentation is not None)
        for step in steps:
            generator.manual_seed(derived_seed(self._seed, self._stream, epoch, step))
            index = order[step * self.batch_size : (step + 1) * self.batch_size]
            yield self._batch(self._images[index], rows, generator), self._labels[index[rows]]

    def _batch(self, images: Tensor, rows: slice, generator: torch.Generator) -> Tensor:
        augmentation = self._augmentation
        if augmentation is None:
            batch = normalise(images[rows], self._mean, self._std)
            return batch.contiguous(memory_format=self._layout)
        # The whole batch, whatever the share: each image gets the same crop on any number of ranks.
        if augmentation.flip:
            images = random_flip(images, generator)
        images = random_crop(images, augmentation.crop_padding, generator)
        batch = normalise(images, self._mean, self._std)
        if augmentation.cutout:
            batch = cutout(batch, augmentation.cutout, generator)
        return batch[rows].contiguous(memory_format=self._layout)


def channel_statistics(
    images: Iterable[Tensor], channels: int
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation by channel, pixels scaled to [0, 1].

    Args:
        images: uint8 `[N, C, H, W]`, in parts: counting makes int64 copies of one.
        channels: C.
    """
    counts = torch.zeros(channels, 256, dtype=torch.int64)
    for part in images:
        for channel, pixels in enumerate(part.unbind(1)):
            counts[channel] += torch.bincount(pixels.flatten(), minlength=256)
    # Sums of whole numbers are exact, so no order of the images can change the result.
    shares = counts / counts.sum(1, keepdim=True, dtype=torch.float64)
    values = torch.arange(256, dtype=torch.float64) / 255
    mean = shares @ values
    variance = (shares * (values - mean[:, None]).square()).sum(1)
    # A channel that is constant has no deviation to divide by.
    return tuple(mean.tolist()), tuple(variance.sqrt().clamp_min(1e-3).tolist())
