"""Folders of class folders: which images there are, how they are split and decoded."""

import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from nas.data.order import stratified_split
from nas.errors import UserError

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff")
TRAIN_FOLDER = "train"
TEST_FOLDERS = ("test", "val", "valid", "validation")

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ImageFiles:
    """Image files with their labels.

    Attributes:
        paths: The files.
        labels: int64 `[N]`.
        class_names: Names of the classes.
    """

    paths: list[Path]
    labels: Tensor
    class_names: tuple[str, ...]

    def select(self, indices: Tensor) -> "ImageFiles":
        """The files at `indices`."""
        chosen = [self.paths[i] for i in indices.tolist()]
        return ImageFiles(chosen, self.labels[indices], self.class_names)


def find_splits(root: Path, test_fraction: float) -> tuple[ImageFiles, ImageFiles]:
    """The training and the test files under `root`; opens no file.

    `root/train/<class>/*` with `root/test/<class>/*` (or val, valid, validation), or
    `root/<class>/*`, of which the share `test_fraction` of each class is held out, always the
    same whatever the seed of the run.

    Raises:
        UserError: no such folder, or not of this form.
    """
    if not root.is_dir():
        raise UserError(f"data.path: no such folder: {root}")
    if not (root / TRAIN_FOLDER).is_dir():
        files = list_classes(root)
        train, test = stratified_split(files.labels, test_fraction, "test split")
        return files.select(train), files.select(test)
    train_files = list_classes(root / TRAIN_FOLDER)
    for name in TEST_FOLDERS:
        if (root / name).is_dir():
            test_files = list_classes(root / name)
            _check_same_classes(root / name, train_files.class_names, test_files.class_names)
            return train_files, test_files
    raise UserError(
        f"data.path: {root} has a folder '{TRAIN_FOLDER}' but none of {', '.join(TEST_FOLDERS)}"
    )


def list_classes(folder: Path) -> ImageFiles:
    """All image files of `folder`, sorted; each sub-folder is a class.

    Raises:
        UserError: fewer than two classes, or a class without an image.
    """
    classes = sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    if len(classes) < 2:
        found = f"only '{classes[0].name}'" if classes else "none"
        raise UserError(
            f"data.path: {folder} needs at least two class folders with images, found {found}"
        )
    paths: list[Path] = []
    labels: list[int] = []
    for label, class_folder in enumerate(classes):
        images = sorted(p for p in class_folder.rglob("*") if p.suffix.lower() in EXTENSIONS)
        if not images:
            raise UserError(
                f"data.path: the class folder {class_folder} has no image ({', '.join(EXTENSIONS)})"
            )
        paths += images
        labels += [label] * len(images)
    return ImageFiles(paths, torch.tensor(labels), tuple(p.name for p in classes))


def open_image(path: Path, channels: int) -> Image.Image:
    """Decodes a file whole, as grey (1 channel) or RGB (3).

    Raises:
        UserError: the file is broken or no image.
    """
    try:
        with Image.open(path) as image:
            return image.convert("L" if channels == 1 else "RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(f"broken image {path}: {error}") from None


def image_shape(files: ImageFiles, image_size: int | None) -> tuple[int, int]:
    """Channels and side in pixels that the images of `files` are brought to.

    All images are grey if the first is. Without an `image_size` the first image gives it, which
    must be square; images of another size are refused when they are read.

    Raises:
        UserError: the first image is broken, or not square where no size is given.
    """
    path = files.paths[0]
    try:
        with Image.open(path) as image:
            grey, size = image.mode in ("1", "L", "I", "I;16"), image.size
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(f"broken image {path}: {error}") from None
    if image_size is None and size[0] != size[1]:
        raise UserError(
            f"data.image_size: {path} has {size[0]}x{size[1]} pixels, not a square: give a size"
        )
    return (1 if grey else 3), image_size or size[0]


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
    if len(files.paths) >= 10_000:
        _log.info("decoding %d images of %s", len(files.paths), files.paths[0].parent.parent)
    pixels = np.empty((len(files.paths), size, size, channels), dtype=np.uint8)

    def decode(index: int) -> None:
        image = open_image(files.paths[index], channels)
        if not resize and image.size != (size, size):
            raise UserError(
                f"data.image_size: {files.paths[index]} has {image.size[0]}x{image.size[1]} "
                f"pixels, others {size}x{size}: give the size that all are brought to"
            )
        pixels[index] = np.asarray(fit(image, size)).reshape(size, size, channels)

    with ThreadPoolExecutor() as pool:
        for _ in pool.map(decode, range(len(files.paths)), chunksize=64):
            pass
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()


def _check_same_classes(folder: Path, train: tuple[str, ...], test: tuple[str, ...]) -> None:
    odd = sorted(set(train) ^ set(test))
    if odd:
        raise UserError(
            f"data.path: the classes of {folder} and of the training images differ: "
            f"{', '.join(odd[:5])}"
        )
