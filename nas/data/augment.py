"""Augmentation as batched tensor code: every image of a batch gets its own crop, flip and cutout.

Randomness comes from an explicit generator on the device of the images, so nothing waits for the
device and the same generator state gives the same batch.
"""

import torch
from torch import Tensor, nn


def random_crop(images: Tensor, padding: int, generator: torch.Generator) -> Tensor:
    """Crops each image at its own place after padding with zeros (black), any dtype.

    As torchvision's `RandomCrop(size, padding=padding)`, for `[B, C, H, W]` in and out.
    """
    if padding == 0:
        return images
    batch, _, height, width = images.shape
    padded = nn.functional.pad(images, (padding,) * 4)
    # All windows as a view [B, C, places, places, H, W]; one advanced index takes one of each.
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)
    places = torch.randint(2 * padding + 1, (2, batch), generator=generator, device=images.device)
    return windows[torch.arange(batch, device=images.device), :, places[0], places[1]]


def random_flip(images: Tensor, generator: torch.Generator) -> Tensor:
    """Mirrors each image of `[B, C, H, W]` left to right with probability 1/2."""
    flips = torch.rand(len(images), 1, 1, 1, generator=generator, device=images.device) < 0.5
    return torch.where(flips, images.flip(3), images)


def normalise(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """uint8 `[B, C, H, W]` to float32: `(pixel / 255 - mean) / std`, mean and std `[C, 1, 1]`."""
    return torch.addcmul(-mean / std, images.float(), 1 / (255 * std))


def cutout(images: Tensor, length: int, generator: torch.Generator) -> Tensor:
    """Sets a square of `length` pixels a side to 0 in each image (arXiv:1708.04552).

    Centres are uniform over all pixels and squares are cut off at the borders, as in the code of
    DARTS: rows from `y - length // 2` on. Images are `[B, C, H, W]` and normalised.
    """
    half = length // 2
    batch, _, height, width = images.shape
    device = images.device

    def inside(size: int) -> Tensor:
        centre = torch.randint(size, (batch, 1), generator=generator, device=device)
        offset = torch.arange(size, device=device) - centre
        return (offset >= -half) & (offset < length - half)

    hole = inside(height)[:, None, :, None] & inside(width)[:, None, None, :]
    return images.masked_fill(hole, 0.0)
