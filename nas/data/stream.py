"""Large data sets: worker processes decode and augment file by file."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from nas.data.decode import open_image
from nas.data.folder import ImageFiles
from nas.data.order import derived_seed, permutation, shares
from nas.distributed import ALONE, Ranks
from nas.errors import UserError

Item = tuple[int, int]
"""Epoch, and index of a file."""

Transform = Callable[..., Any]
"""From a PIL image to a normalised tensor, or a step on that way."""


class StreamDataset(Dataset[tuple[Tensor, int] | UserError]):
    """Decoded, augmented and normalised images, float32 `[C, size, size]`, with their labels.

    The randomness of an item depends on seed, stream, epoch and index alone, so that it does not
    matter which worker makes it. A broken image is returned as its error: one that is raised in a
    worker arrives as a traceback of many lines.
    """

    def __init__(
        self, files: ImageFiles, channels: int, transform: Transform, seed: int, stream: str
    ) -> None:
        self._files, self._channels, self._transform = files, channels, transform
        self._seed, self._stream = seed, stream

    def __len__(self) -> int:
        return len(self._files.paths)

    def __getitem__(self, item: Item) -> tuple[Tensor, int] | UserError:
        epoch, index = item
        try:
            image = open_image(self._files.paths[index], self._channels)
        except UserError as error:
            return error
        with torch.random.fork_rng(devices=[]):
            # Not torch.manual_seed, which would seed the GPU as well, and nothing restores that.
            torch.default_generator.manual_seed(
                derived_seed(self._seed, self._stream, epoch, index)
            )
            pixels: Tensor = self._transform(image)
        return pixels, int(self._files.labels[index])


def collate(items: list[tuple[Tensor, int] | UserError]) -> tuple[Tensor, Tensor] | UserError:
    """Images `[B, C, H, W]` and labels `[B]`, or the first error among the items."""
    good: list[tuple[Tensor, int]] = []
    for item in items:
        if isinstance(item, UserError):
            return item
        good.append(item)
    return torch.stack([pixels for pixels, _ in good]), torch.tensor([label for _, label in good])


class StreamLoader:
    """A `Loader` that streams files through worker processes."""

    def __init__(
        self,
        files: ImageFiles,
        *,
        channels: int,
        transform: Transform,
        batch_size: int,
        device: torch.device,
        seed: int = 0,
        stream: str = "evaluation",
        shuffle: bool = False,
        num_workers: int = 0,
        channels_last: bool = False,
        ranks: Ranks = ALONE,
    ) -> None:
        """Args:
        files: The images.
        channels: 1 or 3.
        transform: From a PIL image to a normalised tensor.
        batch_size: Images in a batch.
        device: Where batches go.
        seed: Of the run.
        stream: Name that gives this loader an order of its own.
        shuffle: Random order, without the last, incomplete batch; else all images in order.
        num_workers: Worker processes; 0 decodes in this one.
        channels_last: Memory layout of the batches.
        ranks: Each gets its part of every training batch, and whole batches of an evaluation.
        """
        self._dataset = StreamDataset(files, channels, transform, seed, stream)
        self.batch_size = batch_size
        self._device, self._seed, self._stream = device, seed, stream
        self._shuffle, self._num_workers, self._ranks = shuffle, num_workers, ranks
        layouts = (torch.contiguous_format, torch.channels_last)
        self._layout = layouts[channels_last]
        count = len(files.paths)
        self.num_batches = count // batch_size if shuffle else math.ceil(count / batch_size)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of `epoch` from step `start` on.

        Raises:
            UserError: an image is broken, or a worker process died.
        """
        loader = DataLoader(
            self._dataset,
            batch_sampler=self._batches(epoch, start),
            num_workers=self._num_workers,
            collate_fn=collate,
            pin_memory=self._device.type == "cuda",
            # Without one of its own it would draw from the global generator.
            generator=torch.Generator(),
        )
        for images, labels in _without_errors(iter(loader)):
            moved = images.to(self._device, non_blocking=True, memory_format=self._layout)
            yield moved, labels.to(self._device, non_blocking=True)

    def _batches(self, epoch: int, start: int) -> list[list[Item]]:
        count, size = len(self._dataset), self.batch_size
        order = (
            permutation(count, self._seed, self._stream, epoch)
            if self._shuffle
            else torch.arange(count)
        ).tolist()
        items = [(epoch, index) for index in order]
        steps, rows = shares(self._ranks, self, start, cuts=self._shuffle)
        return [items[step * size : (step + 1) * size][rows] for step in steps]


def _without_errors(batches: Iterator[Any]) -> Iterator[tuple[Tensor, Tensor]]:
    """The batches, up to an image that is broken or a worker that is gone."""
    while True:
        try:
            batch = next(batches, None)
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            raise UserError(
                "a process that reads images died, most often for want of memory: lower "
                "data.num_workers, and go on from the last checkpoint"
            ) from None
        if batch is None:
            return
        if isinstance(batch, UserError):
            raise batch
        yield batch
