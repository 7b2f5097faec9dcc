"""Which loader, with which augmentation, for which images."""

from dataclasses import dataclass, replace

import torch

from nas.data.folder import ImageFiles
from nas.data.memory import Augmentation, MemoryLoader
from nas.data.order import Loader
from nas.data.preprocessing import IMAGENET_MARGIN
from nas.data.settings import DataInfo, DataSettings
from nas.data.sources import Images
from nas.data.stream import StreamLoader, Transform
from nas.distributed import ALONE, Ranks

IMAGENET = "imagenet"


@dataclass(frozen=True)
class Part:
    """Images with all that a loader of them needs; either decoded or as files."""

    images: Images | ImageFiles
    settings: DataSettings
    info: DataInfo

    def select(self, indices: torch.Tensor) -> "Part":
        """The images at `indices`."""
        return replace(self, images=self.images.select(indices))

    def to(self, device: torch.device) -> "Part":
        """Decoded images on `device`, once for all loaders; files stay where they are."""
        if isinstance(self.images, ImageFiles):
            return self
        return replace(self, images=self.images.to(device))

    @property
    def size(self) -> int:
        """How many images there are."""
        return len(self.images.labels)


@dataclass(frozen=True)
class LoaderMaker:
    """Makes loaders that share seed, device and layout; for one of the ranks of a run."""

    seed: int
    device: torch.device
    channels_last: bool
    ranks: Ranks = ALONE

    def training(self, part: Part, batch_size: int, stream: str) -> Loader:
        """Shuffled and augmented batches."""
        info, augmentation = part.info, Augmentation.of(part.settings)
        if isinstance(part.images, Images):
            return self._memory(part.images, info, batch_size, stream, augmentation)
        transform = _transform(info, augmentation)
        return self._stream(part, transform, batch_size, stream, shuffle=True)

    def evaluation(self, part: Part, batch_size: int) -> Loader:
        """All images as they are, in order."""
        if isinstance(part.images, Images):
            return self._memory(part.images, part.info, batch_size, "evaluation", None)
        transform = _transform(part.info, None)
        return self._stream(part, transform, batch_size, "evaluation", shuffle=False)

    def _memory(
        self,
        images: Images,
        info: DataInfo,
        batch_size: int,
        stream: str,
        augmentation: Augmentation | None,
    ) -> Loader:
        return MemoryLoader(
            images.pixels,
            images.labels,
            info.mean,
            info.std,
            batch_size=batch_size,
            seed=self.seed,
            stream=stream,
            augmentation=augmentation,
            channels_last=self.channels_last,
            ranks=self.ranks,
        )

    def _stream(
        self, part: Part, transform: Transform, batch_size: int, stream: str, *, shuffle: bool
    ) -> Loader:
        assert isinstance(part.images, ImageFiles)
        return StreamLoader(
            part.images,
            channels=part.info.in_channels,
            transform=transform,
            batch_size=batch_size,
            device=self.device,
            seed=self.seed,
            stream=stream,
            shuffle=shuffle,
            num_workers=part.settings.num_workers,
            channels_last=self.channels_last,
            ranks=self.ranks,
        )


def _transform(info: DataInfo, augmentation: Augmentation | None) -> Transform:
    """What the images of files go through; without an augmentation for evaluation."""
    from nas.data import transforms  # slow to import, and only needed here

    size, mean, std, is_imagenet = info.image_size, info.mean, info.std, info.name == IMAGENET
    if augmentation is None:
        resize = round(size * IMAGENET_MARGIN) if is_imagenet else None
        return transforms.evaluation_transform(size, mean, std, resize=resize)
    if is_imagenet:
        return transforms.imagenet_training_transform(size, augmentation, mean, std)
    return transforms.training_transform(size, augmentation, mean, std)
