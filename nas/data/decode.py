"""Reading image files: their shape, their pixels, and what is wrong with them."""

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from nas.data.folder import ImageFiles
from nas.errors import UserError

GREY_MODES = ("1", "L", "LA")

_BROKEN = (OSError, ValueError, SyntaxError, RuntimeError, Image.DecompressionBombError)
"""What Pillow raises for files that it cannot read (RuntimeError: AVIF, whatever it is called)."""

_SHAPE_IMAGES = 1000  # looked at to tell grey images from colour
_MANY_IMAGES = 10_000  # from here on the wait is announced
_TINY = 64  # pixels a side

_log = logging.getLogger(__name__)


def open_image(path: str, channels: int) -> Image.Image:
    """Decodes a file whole, as grey (1 channel) or RGB (3).

    Raises:
        UserError: the file is broken, no image, or has more than 8 bits a channel.
    """
    with _reading(path) as image:
        return _with_channels(image, channels, path)


def decoded(image: Image.Image, channels: int) -> Image.Image:
    """An image that somebody has opened, which Pillow reads only now, as grey (1) or RGB (3).

    Raises:
        UserError: it is broken, or has more than 8 bits a channel.
    """
    try:
        return _with_channels(image, channels, "the image")
    except _BROKEN as error:
        raise UserError(f"broken image: {error}") from None


def _with_channels(image: Image.Image, channels: int, name: str) -> Image.Image:
    """`image`, called `name` in errors, as grey (1 channel) or RGB (3)."""
    # Pillow would clip these to white without a word.
    if image.mode.startswith(("I", "F")):
        raise UserError(f"{name} has more than 8 bits a channel: convert it to 8 bits")
    return image.convert("L" if channels == 1 else "RGB")


def image_shape(files: ImageFiles, image_size: int | None) -> tuple[int, int]:
    """Channels and side in pixels that the images of `files` are brought to.

    All images are grey if each one of a thousand, evenly spread, is. Without an `image_size` the
    first image gives it, which must be square.

    Raises:
        UserError: an image is broken, or the first not square where no size is given.
    """
    stride = -(-len(files.paths) // _SHAPE_IMAGES)
    headers = [_header(path) for path in files.paths[::stride]]
    channels = 1 if all(mode in GREY_MODES for mode, _ in headers) else 3
    width, height = headers[0][1]
    if image_size is None and width != height:
        raise UserError(
            f"data.image_size: {files.paths[0]} has {width}x{height} pixels, not a square: "
            "give a size"
        )
    return channels, image_size or width


def check_sizes(files: ImageFiles, size: int) -> None:
    """Reads the head of every file, for images that are decoded only later.

    Raises:
        UserError: an image is broken, or not of `size` pixels a side.
    """
    _log.info("reading the sizes of %d images; data.image_size saves this", len(files.paths))
    for path in files.paths:
        _check_size(path, _header(path)[1], size)


def fit(image: Image.Image, size: int) -> Image.Image:
    """Resizes the shorter side to `size` and crops the centre."""
    width, height = image.size
    if (width, height) == (size, size):
        return image
    scale = size / min(width, height)
    resized = image.resize(
        (max(size, round(width * scale)), max(size, round(height * scale))),
        Image.Resampling.BILINEAR,
    )
    left, top = (resized.width - size) // 2, (resized.height - size) // 2
    return resized.crop((left, top, left + size, top + size))


def decode_all(files: ImageFiles, channels: int, size: int, *, resize: bool) -> Tensor:
    """Decodes all files into uint8 `[N, channels, size, size]`, with threads.

    Args:
        files: What to decode.
        channels: 1 or 3.
        size: Pixels a side.
        resize: Bring other sizes to `size`; otherwise they are refused.

    Raises:
        UserError: an image is broken, or of another size.
    """
    if len(files.paths) >= _MANY_IMAGES:
        _log.info("decoding %d images into memory", len(files.paths))
    pixels = np.empty((len(files.paths), size, size, channels), dtype=np.uint8)

    def decode(index: int) -> None:
        image = open_image(files.paths[index], channels)
        if not resize:
            _check_size(files.paths[index], image.size, size)
        pixels[index] = np.asarray(fit(image, size)).reshape(size, size, channels)

    indices = range(len(files.paths))
    # Threads wait for each other's Python more than they decode where images are tiny.
    if max(_header(files.paths[0])[1]) <= _TINY:
        for index in indices:
            decode(index)
    else:
        with ThreadPoolExecutor() as pool:
            for _ in pool.map(decode, indices):
                pass
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()


@contextmanager
def _reading(path: str) -> Iterator[Image.Image]:
    """An image file that is open; what goes wrong is the file's fault."""
    try:
        with Image.open(path) as image:
            yield image
    except _BROKEN as error:
        raise UserError(f"broken image {path}: {error}") from None


def _header(path: str) -> tuple[str, tuple[int, int]]:
    """Mode and (width, height) of a file, without decoding it."""
    with _reading(path) as image:
        return image.mode, image.size


def _check_size(path: str, found: tuple[int, int], size: int) -> None:
    if found != (size, size):
        raise UserError(
            f"data.image_size: {path} has {found[0]}x{found[1]} pixels, others {size}x{size}: "
            "give the size that all are brought to"
        )
